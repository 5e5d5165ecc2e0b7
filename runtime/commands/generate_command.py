"""`catvae-generate`: new images from a bundle, as one PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import DataError, ImageError, UsageError
from ..wording import say
from .command import Choice, FilePath, SourceText, bundle_option, command_entry

if TYPE_CHECKING:
    from ..bundles.bundle import Bundle, Images
    from ..bundles.pictures import Picture

MOST_IMAGES = 100
"""Given images in one picture."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("images", nargs=-1, type=SourceText(), metavar="[IMAGE]...")
@bundle_option()
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    default=Path("generated.png"),
    show_default=True,
    help="PNG to write; replaces only what this command drew.",
)
@click.option("-c", "--cluster", "clusters", multiple=True, metavar="CLUSTER", help="Only this cluster, by name or #NUMBER; repeatable.")
@click.option("-n", "--number", type=click.IntRange(1, 1000), help="Images per row. [default: 10]")
@click.option("--interpolate", nargs=2, metavar="A B", help="The straight line between two clusters' centres.")
@click.option("--ring", "around", is_flag=True, help="The lines from every cluster's centre to the next one's, and back to the first.")
@click.option("--walk", "walked", metavar="CLUSTER", help="From the origin out along a cluster's own subspace; all: each cluster's.")
@click.option("--reconstruct", is_flag=True, help="The given images, and what the model makes of them.")
@click.option("--between", is_flag=True, help="From the first given image to the second, through the latent space.")
@click.option("--transfer", is_flag=True, help="The style of each given image in every cluster.")
@click.option("--invert", is_flag=True, help="Swap black and white of the given images first.")
@click.option("--seed", type=click.IntRange(0), help="The same seed draws the same latents everywhere. [default: 0]")
@click.option("--device", type=Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True, help="Where to run.")
def generate(
    images: tuple[str, ...],
    bundle_path: Path | None,
    output: Path,
    clusters: tuple[str, ...],
    number: int | None,
    interpolate: tuple[str, str] | None,
    around: bool,
    walked: str | None,
    reconstruct: bool,
    between: bool,
    transfer: bool,
    invert: bool,
    seed: int | None,
    device: str,
) -> None:
    """Draw new images, a row for each cluster; or, of the given ones, what the model makes of them.

    IMAGE is a file, a folder or a pattern, for --reconstruct, --between and --transfer.
    """
    from ..bundles.bundle import Bundle
    from ..bundles.bundle_files import refuse_inside
    from ..bundles.pictures import interpolation, ring, samples, walks
    from ..files import atomic_write, refuse_to_replace
    from ..images.grid import BEGINNING, MARK, grid, png_bytes
    from ..names import find_cluster

    if output.suffix.lower() not in ("", ".png"):
        raise UsageError(f"-o is '{output}': pictures are written as PNG, expected a name that ends in .png")
    refuse_to_replace(output, BEGINNING, "drawn by catvae-generate")
    of_images = {"--reconstruct": reconstruct, "--between": between, "--transfer": transfer}
    asked = {"--interpolate": interpolate is not None, "--ring": around, "--walk": walked is not None, **of_images}
    chosen = [name for name, given in asked.items() if given]
    if len(chosen) > 1 or (clusters and chosen and chosen != ["--ring"]):
        raise UsageError(f"{' and '.join(['--cluster'] * bool(clusters) + chosen)} are different pictures: give one of them")
    if bool(images) != any(of_images.values()):
        raise UsageError(
            f"{chosen[0]} needs images" if not images else "to draw given images, say how: --reconstruct, --between, --transfer"
        )
    how = chosen[0] if chosen else ""
    idle = {"-n": number is not None and transfer, "--seed": seed is not None and bool(chosen), "--invert": invert and not images}
    if without := [name for name, given in idle.items() if given]:
        raise UsageError(f"{without[0]} changes nothing {f'beside {how}' if how else 'without given images'}: leave it out")
    number, seed = number or 10, seed or 0
    bundle = Bundle.load(bundle_path, device=device)
    refuse_inside(bundle.path, output)
    every = list(range(len(bundle.names)))
    wanted = [find_cluster(name, bundle.names) for name in clusters] or every
    if images:
        picture = _of_images(bundle, _read(bundle, images, invert), how, number)
    elif interpolate is not None:
        start, end = (find_cluster(name, bundle.names) for name in interpolate)
        picture = interpolation(bundle, [(start, end)], number)
    elif around:
        if len(wanted) < 2:
            raise UsageError("--ring goes from cluster to cluster: give two or more with -c, or none for all")
        picture = interpolation(bundle, ring(wanted), number)
    elif walked is not None:
        all_of_them = walked == "all" and "all" not in bundle.names
        picture = walks(bundle, every if all_of_them else [find_cluster(walked, bundle.names)], number)
    else:
        picture = samples(bundle, wanted, per_cluster=number, seed=seed)
    atomic_write(output, png_bytes(grid(*picture), mark=MARK))
    columns = max(len(row) for row in picture.rows)
    say(f"{output}: {len(picture.rows)} row{'s' * (len(picture.rows) > 1)} of {columns} image{'s' * (columns > 1)}")


def _of_images(bundle: Bundle, images: Images, how: str, number: int) -> Picture:
    from ..bundles.pictures import class_transfer, image_interpolation, reconstructions

    if how == "--reconstruct":
        return reconstructions(bundle, images, number)
    if how == "--transfer":
        return class_transfer(bundle, images)
    if len(images) != 2:
        raise UsageError(f"--between needs 2 images, got {len(images):,}")
    return image_interpolation(bundle, images, number)


def _read(bundle: Bundle, arguments: tuple[str, ...], invert: bool) -> Images:
    """The given images as the model's tensors; one that cannot be read is an error: it was named by hand."""
    import itertools

    import numpy as np

    from ..images.image_files import read_image
    from ..images.sources import expand

    rules = bundle.preprocess.swapped(invert)
    paths = list(itertools.islice(expand(arguments, lambda line: say(f"catvae-generate: {line}")), MOST_IMAGES + 1))
    if not paths:
        raise DataError(f"no images found in {', '.join(arguments)}")
    if len(paths) > MOST_IMAGES:
        raise UsageError(f"one picture holds at most {MOST_IMAGES} given images, got more: name fewer")
    found = []
    for path in paths:
        try:
            found.append(read_image(path, rules))
        except ImageError as error:
            raise DataError(f"{path}: {error}") from error
    return np.stack(found)


main = command_entry(generate, "catvae-generate", at_once=True)
