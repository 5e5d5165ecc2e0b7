"""`catvae-report`: what a bundle has learnt and makes of images, as one HTML page; the page of a run is copied as its training left it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import DataError, ImageError, UsageError
from ..ours import PAGE, RECORD, is_run
from ..wording import say, typed
from .command import Choice, FilePath, SourceText, command_entry

if TYPE_CHECKING:
    from ..bundles.bundle import Bundle
    from ..report.facts import Facts


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("bundle_path", metavar="[BUNDLE|RUN]", required=False, type=FilePath(readable=False))
@click.argument("images", metavar="[IMAGES]...", nargs=-1, type=SourceText())
@click.option("-o", "--output", type=FilePath(), default=Path(PAGE), show_default=True, help="Page to write.")
@click.option("--invert", is_flag=True, help="Swap black and white first: for dark ink on white, when the model saw white on black.")
@click.option("--device", type=Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True, help="Where to run.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
def report(bundle_path: Path | None, images: tuple[str, ...], output: Path, invert: bool, device: str, quiet: bool) -> None:
    """Show what a bundle has learnt: a card for each cluster, a map, figures, provenance; one file without scripts or requests.

    BUNDLE is a bundle folder [default: $CATVAE_BUNDLE, else the packaged digits]. IMAGES are files, folders or patterns; where every image
    lies in one of several sub-folders of a folder given, the page compares these with the clusters. RUN is the folder of a finished run:
    its page, written when it ended, is copied.
    """
    from ..bundles.bundle import Bundle
    from ..bundles.bundle_files import refuse_inside
    from ..files import atomic_write, refuse_to_replace
    from ..images.sources import is_image_name
    from ..report.page import BEGINNING, render
    from ..wording import counted

    if is_image_name(output.name):
        raise UsageError(f"-o is '{output}', the name of an image, which the page would replace: choose another")
    if output.is_dir():
        raise UsageError(f"{output} is a folder, expected the name of the page: -o {output / PAGE}")
    refuse_to_replace(output, BEGINNING, "made by catvae-report")
    if output.name == PAGE and (output.absolute().parent / RECORD).is_file():
        raise UsageError(f"-o is '{output}', the page of the run in whose folder it lies: choose another name")
    if bundle_path is not None and is_run(bundle_path):
        if invert or device != "cpu":
            raise UsageError(f"{bundle_path} is a run, whose page is copied: leave out {'--invert' if invert else '--device'}")
        refuse_inside(None, output)
        atomic_write(output, _page_of_run(bundle_path, images))
        say(f"{output}: the page of {bundle_path}", quiet=quiet)
        return
    if invert and not images:
        raise UsageError("--invert swaps the given images, and there are none: leave it out")
    bundle = Bundle.load(bundle_path, device=device)
    refuse_inside(bundle.path, output)
    facts = _facts(bundle, images, invert, quiet)
    atomic_write(output, render(facts))
    say(f"{output}: {counted(len(facts.cards), 'cluster')}", quiet=quiet)


def _page_of_run(run: Path, images: tuple[str, ...]) -> bytes:
    if images:
        raise UsageError(
            f"{run} is a run: its page shows what it was trained on; for other images export it, catvae-export --onnx {typed(run)}"
        )
    try:
        return (run / PAGE).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{run} has no {PAGE}: catvae-train --resume {typed(run)} finishes it and writes one") from error
    except OSError as error:
        raise DataError(f"cannot read {run / PAGE}: {error.strerror or error}") from error


def _facts(bundle: Bundle, arguments: tuple[str, ...], invert: bool, quiet: bool) -> Facts:
    import numpy as np

    from ..images.image_files import read_image
    from ..images.sources import expand
    from ..report.facts import EXAMINED
    from ..report.of_bundle import facts_of_bundle
    from ..sampling import scattered

    paths = list(expand(arguments, lambda line: say(f"catvae-report: {line}")))
    if arguments and not paths:
        raise DataError(f"no images found in {', '.join(arguments)}")
    rules = bundle.preprocess.swapped(invert)
    pixels, read, first = [], [], None
    for row in scattered(len(paths), EXAMINED):
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
    names = _classes(read, arguments)
    classes = sorted(set(names))
    labels = np.array([classes.index(name) for name in names]) if len(classes) > 1 else None
    return facts_of_bundle(bundle, images, labels, classes, _below_all(read))


def _below_all(paths: list[str]) -> list[str]:
    """Paths from the folder that holds them all: where that lies is nobody's business who is sent the page."""
    whole = list(map(os.path.abspath, paths))
    folder = os.path.commonpath(map(os.path.dirname, whole)) if whole else ""
    return [os.path.relpath(path, folder) for path in whole]


def _classes(paths: list[str], arguments: tuple[str, ...]) -> list[str]:
    """For each image the sub-folder it lies in, as catvae-train names classes; nothing where an image lies in none."""
    folders = sorted((os.path.join(argument, "") for argument in arguments if os.path.isdir(argument)), key=len, reverse=True)
    names = []
    for path in paths:
        below = next((path[len(folder) :].split(os.sep) for folder in folders if path.startswith(folder)), [])
        if len(below) < 2:
            return []
        names.append(below[0])
    return names


main = command_entry(report, "catvae-report", at_once=True)
