"""`catvae-export`: from a run folder to a bundle that needs no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from catvae.runtime.command import command_entry, say
from catvae.runtime.errors import UsageError

if TYPE_CHECKING:
    from .precision import Precision


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.option("--onnx", "run", type=click.Path(path_type=Path), required=True, metavar="RUN", help="Run folder of catvae-train.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="BUNDLE", help="Bundle folder to create. [default: RUN/bundle]")
@click.option("--int8", "precision", flag_value="int8", help="Graphs of 8-bit integers, calibrated on the run's own images.")
@click.option("--fp16", "precision", flag_value="fp16", help="Graphs of 16-bit floats; inputs and outputs stay as they are.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
def export(run: Path, output: Path | None, precision: Precision | None, overwrite: bool, quiet: bool) -> None:
    """Write classifier, encoder and decoder as ONNX graphs, with a manifest that names and verifies them.

    Every graph must answer as PyTorch does before anything appears under the bundle's name; graphs of reduced precision must keep the
    clusters of real images.
    """
    say("loading torch ...", quiet=quiet)
    try:
        from .bundle_writer import export_bundle, summary
    except ImportError as error:
        raise UsageError(f"exporting needs PyTorch, onnx and onnxruntime ({error}): pip install 'catvae[train,cpu]'") from error
    chosen: Precision = precision or "fp32"
    target = output or run / ("bundle" if chosen == "fp32" else f"bundle-{chosen}")
    exported = export_bundle(run, target, precision=chosen, overwrite=overwrite)
    for key, value in {"bundle": str(target), **summary(exported), "next": f"catvae-infer -b {target} IMAGE"}.items():
        print(f"{key:<9} {value}")


main = command_entry(export, "catvae-export")
