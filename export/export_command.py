"""`catvae-export`: from a run folder to a bundle that needs no PyTorch."""

from pathlib import Path

import click

from catvae.runtime.command import command_entry, say
from catvae.runtime.errors import UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.option("--onnx", "run", type=click.Path(path_type=Path), required=True, metavar="RUN", help="Run folder of catvae-train.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="BUNDLE", help="Bundle folder to create. [default: RUN/bundle]")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that is there.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
def export(run: Path, output: Path | None, overwrite: bool, quiet: bool) -> None:
    """Write classifier, encoder and decoder as ONNX graphs, with a manifest that names and verifies them.

    Every graph must answer as PyTorch does before anything appears under the bundle's name.
    """
    say("loading torch ...", quiet=quiet)
    try:
        from .bundle_writer import export_bundle, manifest_summary
    except ImportError as error:
        raise UsageError(f"exporting needs PyTorch, onnx and onnxruntime ({error}): pip install 'catvae[train,cpu]'") from error
    target = output or run / "bundle"
    manifest = export_bundle(run, target, overwrite=overwrite)
    for key, value in {"bundle": str(target), **manifest_summary(manifest), "next": f"catvae-infer -b {target} IMAGE"}.items():
        print(f"{key:<9} {value}")


main = command_entry(export, "catvae-export")
