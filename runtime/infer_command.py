"""`catvae-infer`: the cluster of every image, one row each, in the order given."""

from pathlib import Path

import click

from .command import Choice, command_entry, say
from .errors import UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option(
    "-b", "--bundle", "bundle_path", type=click.Path(path_type=Path), help="Bundle folder. [default: $CATVAE_BUNDLE, else digits]"
)
@click.option(
    "--files-from",
    type=click.Path(allow_dash=True),
    metavar="LIST",
    help="Also the paths in this file, a line each; - reads them from standard input.",
)
@click.option(
    "--format",
    "format_",
    type=Choice(["auto", "table", "jsonl", "csv"]),
    default="auto",
    help="auto: table on a terminal, else jsonl.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the rows to this file.")
@click.option("--embed", is_flag=True, help="Add the posterior mean to each row (jsonl).")
@click.option("--invert", is_flag=True, help="Swap black and white first: for dark ink on white, when the model saw white on black.")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images per run of the model.")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of the model. [default: usable processors, at most 4]")
@click.option(
    "--device",
    type=Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="cuda fails where CUDA does not start.",
)
def infer(
    sources: tuple[str, ...],
    bundle_path: Path | None,
    files_from: str | None,
    format_: str,
    output: Path | None,
    embed: bool,
    invert: bool,
    batch_size: int,
    threads: int | None,
    device: str,
) -> int:
    """Sort images into clusters.

    SOURCE is an image file, a folder (searched for images), a pattern in quotes, or - for one image on standard input.

    Rows go to standard output; everything else to standard error. A file that cannot be read becomes an error row and the exit code 1.
    """
    from .bundle import Bundle
    from .pipeline import classify_stream
    from .rows import open_writer
    from .sources import expand, read_list

    if not sources and files_from is None:
        raise UsageError("no image given: name files, folders or patterns, - for standard input, or --files-from LIST")
    if files_from == "-" and "-" in sources:
        raise UsageError("standard input cannot be both an image (-) and a list of paths (--files-from -)")
    paths = expand([*sources]) if files_from is None else read_list(files_from, expand([*sources]))
    bundle = Bundle.load(bundle_path, device=device, threads=threads)
    total = failed = 0
    with open_writer(format_, output, embed=embed) as write:
        for row in classify_stream(bundle, paths, batch_size=batch_size, embed=embed, invert=invert):
            write(row)
            total += 1
            failed += not row["ok"]
    if not total:
        say("catvae-infer: no images found; nothing to do")
    elif failed:
        say(f"catvae-infer: {failed:,} of {total:,} images could not be read")
    return 1 if failed else 0


main = command_entry(infer, "catvae-infer")
