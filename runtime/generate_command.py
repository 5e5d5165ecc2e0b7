"""`catvae-generate`: new images from a bundle, as one PNG."""

from pathlib import Path

import click

from .command import Choice, command_entry, say
from .errors import UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.option(
    "-b", "--bundle", "bundle_path", type=click.Path(path_type=Path), help="Bundle folder. [default: $CATVAE_BUNDLE, else digits]"
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("generated.png"), show_default=True, help="PNG to write.")
@click.option("-c", "--cluster", "clusters", multiple=True, metavar="CLUSTER", help="Only this cluster, by number or name; repeatable.")
@click.option("-n", "--number", type=click.IntRange(1, 1000), default=10, show_default=True, help="Images per row.")
@click.option("--interpolate", nargs=2, metavar="A B", help="The straight line between two clusters' centres.")
@click.option("--walk", "walk_cluster", metavar="CLUSTER", help="From the origin out along one cluster's own subspace.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed draws the same latents everywhere.")
@click.option("--device", type=Choice(["auto", "cpu", "cuda"]), default="cpu", show_default=True, help="Where to run.")
def generate(
    bundle_path: Path | None,
    output: Path,
    clusters: tuple[str, ...],
    number: int,
    interpolate: tuple[str, str] | None,
    walk_cluster: str | None,
    seed: int,
    device: str,
) -> None:
    """Draw new images, a row for each cluster."""
    from .bundle import Bundle
    from .files import atomic_write
    from .generate import cluster_rows, interpolation_row, walk_row
    from .grid import grid, png_bytes

    if sum((bool(clusters), interpolate is not None, walk_cluster is not None)) > 1:
        raise UsageError("--cluster, --interpolate and --walk are different pictures: give one of them")
    bundle = Bundle.load(bundle_path, device=device)
    names = bundle.names
    if interpolate is not None:
        start, end = (find_cluster(name, names) for name in interpolate)
        rows, labels = [interpolation_row(bundle, start, end, number)], [f"{names[start]} to {names[end]}"]
    elif walk_cluster is not None:
        cluster = find_cluster(walk_cluster, names)
        rows, labels = [walk_row(bundle, cluster, number)], [names[cluster]]
    else:
        wanted = [find_cluster(name, names) for name in clusters] or list(range(len(names)))
        rows = cluster_rows(bundle, per_cluster=number, seed=seed, clusters=wanted)
        labels = [names[cluster] for cluster in wanted]
    atomic_write(output, png_bytes(grid(rows, labels)))
    say(f"{output}: {len(rows)} row{'s' * (len(rows) > 1)} of {number} images")


def find_cluster(text: str, names: list[str]) -> int:
    """The cluster of a name, or of a number where no cluster has that name.

    Raises
    ------
    UsageError
        When there is none, or several clusters share the name.
    """
    found = [i for i, name in enumerate(names) if name == text]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise UsageError(f"the clusters {', '.join(map(str, found))} are all named '{text}': give the number of one that no name equals")
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise UsageError(f"there is no cluster '{text}': expected 0 to {len(names) - 1}, or one of {', '.join(names)}")


main = command_entry(generate, "catvae-generate")
