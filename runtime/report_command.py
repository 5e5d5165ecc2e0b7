"""`catvae-report`: what a bundle makes of images, as one HTML page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import Choice, command_entry, say
from .errors import DataError, ImageError, UsageError

if TYPE_CHECKING:
    from .bundle import Bundle
    from .report.facts import Facts


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("bundle_path", metavar="[BUNDLE]", required=False, type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGES]...", nargs=-1)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True, help="Page to write.")
@click.option("--invert", is_flag=True, help="Swap black and white first: for dark ink on white, when the model saw white on black.")
@click.option("--device", type=Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True, help="Where to run.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
def report(bundle_path: Path | None, images: tuple[str, ...], output: Path, invert: bool, device: str, quiet: bool) -> None:
    """Show what a bundle has learnt: a card for each cluster, a map, figures, provenance; one file without scripts or requests.

    BUNDLE is a bundle folder [default: $CATVAE_BUNDLE, else digits]. IMAGES are files, folders or patterns; where every image lies in one
    of several sub-folders, the page compares them with the clusters. catvae-train writes the report of a run into its folder.
    """
    from .bundle import Bundle
    from .files import atomic_write
    from .report.page import render

    if output.is_dir():
        raise UsageError(f"{output} is a folder, expected the name of the page: -o {output / 'report.html'}")
    if bundle_path is not None and (bundle_path / "run.json").is_file() and not (bundle_path / "manifest.json").is_file():
        raise UsageError(f"{bundle_path} is a run: its report is {bundle_path / 'report.html'}; catvae-export makes the bundle asked for")
    facts = _facts(Bundle.load(bundle_path, device=device), images, invert, quiet)
    atomic_write(output, render(facts))
    say(f"{output}: {len(facts.cards)} clusters", quiet=quiet)


def _facts(bundle: Bundle, arguments: tuple[str, ...], invert: bool, quiet: bool) -> Facts:
    import numpy as np

    from .images import read_image
    from .report.facts import EXAMINED, evenly
    from .report.of_bundle import facts_of_bundle
    from .sources import expand

    paths = list(expand(arguments))
    if arguments and not paths:
        raise DataError(f"no images found in {', '.join(arguments)}")
    rules = bundle.preprocess.swapped(invert)
    pixels, read, first = [], [], None
    for row in evenly(len(paths), EXAMINED):
        try:
            pixels.append(read_image(paths[row], rules))
            read.append(paths[row])
        except ImageError as error:
            first = first or f"{paths[row]}: {error}"
    if first and not pixels:
        raise DataError(f"none of {len(paths):,} images could be read; {first}")
    if first:
        tried = min(len(paths), EXAMINED)
        say(f"catvae-report: {tried - len(pixels):,} of {tried:,} images could not be read; {first}", quiet=quiet)
    images = np.stack(pixels) if pixels else np.zeros((0, *bundle.preprocess.shape), np.uint8)
    folders = [os.path.basename(os.path.dirname(path)) for path in read]
    classes = sorted(set(folders))
    labels = np.array([classes.index(folder) for folder in folders]) if len(classes) > 1 else None
    return facts_of_bundle(bundle, images, labels, classes)


main = command_entry(report, "catvae-report")
