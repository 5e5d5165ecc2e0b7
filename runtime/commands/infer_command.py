"""`catvae-infer`: its options, and which of them do not go together; what a call then does is in `infer`.

Nothing here or above imports numpy, Pillow or onnxruntime: bad options are answered at once.
"""

import contextlib
import os
from pathlib import Path

import click

from ..errors import UsageError
from .command import Choice, FilePath, SourceText, bundle_option, command_entry
from .infer import Request, answer

BATCH = 64
"""Images per run of the model, where nothing is said."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("sources", nargs=-1, type=SourceText(), metavar="SOURCE...")
@bundle_option("bundle")
@click.option(
    "--files-from",
    type=FilePath(dash=True),
    metavar="LIST",
    help="Also the paths in this file, a line each; - reads them from standard input.",
)
@click.option(
    "--format",
    type=Choice(["auto", "table", "jsonl", "csv"]),
    default="auto",
    help="auto: csv for -o NAME.csv, table on a terminal, else jsonl.",
)
@click.option("-o", "--output", type=FilePath(), help="Write the rows to this file; replaces only rows.")
@click.option(
    "--copy-to",
    "copy_to",
    type=FilePath(),
    metavar="DIR",
    help="Also copy each image into DIR, into a folder per cluster; nothing is moved or written over.",
)
@click.option("--embed", is_flag=True, help="Add the posterior mean to each row (jsonl).")
@click.option(
    "--score",
    is_flag=True,
    help="Add how well the model explains the image, in nats; cluster -1 where it does not, or there is hardly anything on it.",
)
@click.option("--invert", is_flag=True, help="Swap black and white first: for dark ink on white, when the model saw white on black.")
@click.option("--resume", is_flag=True, help="Go on with the rows an interrupted call left beside -o.")
@click.option(
    "--shard", metavar="I/N", help="Only the I-th of N parts of the images, by a hash of the path: name the sources alike in every call."
)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=BATCH, show_default=True, help="Images per run of the model.")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of the model. [default: usable processors, at most 4]")
@click.option(
    "--device",
    type=Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="cuda fails where CUDA does not start.",
)
@click.option("--tf32", is_flag=True, help="On CUDA: faster products of about three digits.")
@click.option("--self-test", "testing", is_flag=True, help="Replay the bundle's golden inputs on this machine, then stop.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but warnings on standard error.")
def infer(shard: str | None, **options) -> int:
    """Sort images into clusters.

    SOURCE is an image file, a folder (searched for images), a pattern in quotes, or - for one image on standard input.

    Rows go to standard output; everything else to standard error. A file that cannot be read becomes an error row and the exit code 1.
    """
    from ..images.sources import is_image_name, parse_shard

    request = Request(part=None if shard is None else parse_shard(shard), shard=shard, **options)
    if request.testing:
        _require_nothing_else(request)
    if request.tf32 and request.device == "cpu":
        raise UsageError("--tf32 is for CUDA: leave it out with --device cpu")
    if request.output is not None:
        from ..files import refuse_special_target, refuse_to_replace
        from .row_file import part_of
        from .rows import BEGINNING

        if is_image_name(request.output.name):
            raise UsageError(f"-o is '{request.output}', the name of an image, which the rows would replace: choose another")
        refuse_special_target(request.output)
        _refuse_to_replace_inputs(request)
        if not request.resume or part_of(request.output).exists():  # else what is there is read
            refuse_to_replace(request.output, BEGINNING, "written by catvae-infer")
    if not request.testing:
        _require_sources(request)
    return answer(request)


def _refuse_to_replace_inputs(request: Request) -> None:
    """Where the rows would take the place of what they are made from."""
    output = request.output
    if output is None or not output.exists():
        return
    for given in (*request.sources, *filter(None, [request.files_from])):
        with contextlib.suppress(OSError):  # a pattern, standard input, or not there: whoever reads it says so
            if os.path.samefile(given, output):
                raise UsageError(f"-o is '{output}', which the rows are to be made from: choose another")


def _require_nothing_else(request: Request) -> None:
    """Beside --self-test."""
    if request.sources or request.files_from or request.output or request.copy_to:
        raise UsageError("--self-test replays the images in the bundle itself: give it no others, and no -o or --copy-to")
    others = {f"--{name}": getattr(request, name) for name in ("embed", "score", "invert", "resume", "shard")}
    others |= {"--format": request.format != "auto", "--batch-size": request.batch_size != BATCH}
    if any(others.values()):
        raise UsageError(f"--self-test replays the bundle's own images as they are: leave out {next(filter(others.get, others))}")


def _require_sources(request: Request) -> None:
    from ..ours import is_bundle

    if not request.sources and request.files_from is None:
        raise UsageError("no image given: name files, folders or patterns, - for standard input, or --files-from LIST")
    unsaid = request.bundle is None and not os.environ.get("CATVAE_BUNDLE")
    if unsaid and (bundle := next((source for source in request.sources if is_bundle(Path(source))), None)):
        raise UsageError(f"{bundle} is a bundle, not an image: to sort with it, give it with -b")
    if request.files_from == "-" and "-" in request.sources:
        raise UsageError("standard input cannot be both an image (-) and a list of paths (--files-from -)")


main = command_entry(infer, "catvae-infer", at_once=True)
