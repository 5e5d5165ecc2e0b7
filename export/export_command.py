"""`catvae-export`: from a run folder to a bundle that needs no PyTorch, and from a bundle to a page or a server's models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from catvae.runtime.commands.command import FilePath, command_entry
from catvae.runtime.errors import UsageError
from catvae.runtime.wording import say, typed

if TYPE_CHECKING:
    from .precision import Precision


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("also", nargs=-1, metavar="")
@click.option("--onnx", "run", type=FilePath(), metavar="RUN", help="Run folder of catvae-train.")
@click.option(
    "-o", "--output", type=FilePath(), metavar="BUNDLE", help="Bundle folder to create. [default: RUN/bundle, RUN/bundle-int8, ...]"
)
@click.option("--int8", is_flag=True, help="Graphs of 8-bit integers, calibrated on the run's own images.")
@click.option("--fp16", is_flag=True, help="Graphs of 16-bit floats; inputs and outputs stay as they are.")
@click.option("--web", type=FilePath(), metavar="DIR", help="Also write the studio, a static page that runs the bundle.")
@click.option("--triton", type=FilePath(), metavar="DIR", help="Also write a model repository for NVIDIA Triton.")
@click.option(
    "-b",
    "--bundle",
    type=FilePath(),
    help="With --web or --triton and without --onnx: an existing bundle. [default: $CATVAE_BUNDLE, else the packaged digits]",
)
@click.option(
    "--names-from", type=FilePath(), metavar="BUNDLE", help="Names of clusters from another bundle of the run, as catvae-label left them."
)
@click.option("--overwrite", is_flag=True, help="Replace what is there; a bundle of the same run leaves its names to the new one.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but warnings on standard error.")
def export(
    also: tuple[str, ...],
    run: Path | None,
    output: Path | None,
    int8: bool,
    fp16: bool,
    web: Path | None,
    triton: Path | None,
    bundle: Path | None,
    names_from: Path | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write classifier, encoder and decoder as ONNX graphs, with a manifest that names and verifies them.

    Every graph must answer as PyTorch does before anything appears under the bundle's name; graphs of reduced precision must keep the
    clusters of real images. With --web, a page for any static web server runs the same graphs in the browser; with --triton, a server
    answers for them.
    """
    if also:
        raise UsageError(f"what is '{also[0]}'? A run is named by --onnx {also[0]}, an existing bundle by -b {also[0]}")
    if run is None and web is None and triton is None:
        raise UsageError("nothing to export: give --onnx RUN, or --web DIR for the page of an existing bundle, or --triton DIR")
    if run is not None and bundle is not None:
        raise UsageError("--bundle names the bundle of --web and --triton; with --onnx it is the one that is written, which -o names")
    if int8 and fp16:
        raise UsageError("--int8 and --fp16 are two bundles: export them one by one")
    from catvae.runtime.bundles.bundle_files import find_bundle, refuse_inside
    from catvae.runtime.files import real_path

    precision = "int8" if int8 else "fp16" if fp16 else None
    target = (output or run / ("bundle" if precision is None else f"bundle-{precision}")) if run else find_bundle(bundle)
    for option, place in {"--web": web, "--triton": triton}.items():
        if place is not None:
            refuse_inside(target, place, option)
            if run is not None and real_path(target).is_relative_to(real_path(place)):
                raise UsageError(f"the bundle {target} would lie in {option} {place}, which holds its own files alone: give it another -o")
    if web is not None and triton is not None:
        for one, other in ((web, triton), (triton, web)):
            if real_path(one).is_relative_to(real_path(other)):
                raise UsageError("--web and --triton lie in one another: give each a folder of its own")
    from . import model_repository, web_page

    if web is not None:
        web_page.check_place(web, overwrite=overwrite)  # before an export takes its time
    if triton is not None:
        model_repository.check_place(triton, overwrite=overwrite)
    lines: dict[str, str] = {}
    if run is not None:
        lines = _export_run(run, target, precision or "fp32", names_from, overwrite, quiet)
    elif output or precision or names_from:
        raise UsageError("-o, --int8, --fp16 and --names-from belong to --onnx RUN")
    if web is not None:
        web_page.write_page(target, web, overwrite=overwrite)
        lines["studio"] = f"{web}: python -m http.server -d {typed(web)}, then open http://localhost:8000"
    if triton is not None:
        model_repository.write_repository(target, triton, overwrite=overwrite)
        lines["triton"] = f"{triton}: tritonserver --model-repository={typed(triton)}"
    for key, value in lines.items():
        print(f"{key:<9} {value}")


def _export_run(run: Path, target: Path, precision: Precision, names_from: Path | None, overwrite: bool, quiet: bool) -> dict[str, str]:
    say("loading torch ...", quiet=quiet)
    try:
        from .bundle_writer import export_bundle, summary
    except ImportError as error:
        raise UsageError(
            f"exporting needs PyTorch, onnx and onnxruntime ({error}): pip install '.[train,cpu]' in catvae's sources"
        ) from error
    exported = export_bundle(run, target, precision=precision, overwrite=overwrite, names_from=names_from)
    for reason in exported.reasons:
        say(f"warning: clusters of {run} are degenerate: {reason}")
    return {"bundle": str(target), **summary(exported), "next": f"catvae-infer -b {typed(target)} IMAGE"}


main = command_entry(export, "catvae-export")
