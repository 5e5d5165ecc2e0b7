"""`catvae-label`: name the clusters of a bundle."""

from pathlib import Path

import click

from ..errors import UsageError
from ..wording import say
from .command import Choice, FilePath, command_entry

NOTABLE = 0.02
"""Share of the given images by which another --match must name more of them rightly to be mentioned."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("bundle_path", metavar="BUNDLE", type=FilePath(readable=False))
@click.argument("images", metavar="[IMAGES]", required=False, type=FilePath())
@click.option(
    "--match",
    type=Choice(["one-to-one", "many-to-one"]),
    help="many-to-one: each cluster takes its most frequent class; clusters that share a class are merged. [default: one-to-one]",
)
@click.option("--name", "by_hand", multiple=True, metavar="CLUSTER=NAME", help="Name one cluster, by #NUMBER or present name; repeatable.")
@click.option("--merge", multiple=True, metavar="A,B,...=NAME", help="Give several clusters one name: they count as one; repeatable.")
@click.option("-o", "--output", type=FilePath(), help="Write a renamed copy. [default: rename BUNDLE itself]")
@click.option("--invert", is_flag=True, help="Swap black and white first: for dark ink on white, when the model saw white on black.")
@click.option("--dry-run", is_flag=True, help="Print the names, write nothing.")
@click.option("--device", type=Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to run.")
def label(
    bundle_path: Path,
    images: Path | None,
    match: str | None,
    by_hand: tuple[str, ...],
    merge: tuple[str, ...],
    output: Path | None,
    invert: bool,
    dry_run: bool,
    device: str,
) -> None:
    """Name the clusters of a bundle; nothing is trained, no graph changes.

    IMAGES holds a few images whose class is known: a folder with a sub-folder per class, or a CSV file with rows of path and class.
    One-to-one, each class names the cluster that fits it best, and clusters beyond those keep their names; many-to-one, so does a cluster
    without any of the images, or with as many of two classes.
    """
    from ..bundles.bundle import Bundle
    from ..images.labelled import read_labelled
    from .labelling import accuracy, names_from_images, renamed, require_place, write_names

    if images is None and not by_hand and not merge:
        raise UsageError("nothing to name clusters by: give IMAGES, --name or --merge")
    if images is None and (match or invert):
        raise UsageError(f"{'--match' if match else '--invert'} is about IMAGES, and there are none: leave it out")
    bundle = Bundle.load(bundle_path, device=device)
    hand = _names_by_hand(by_hand, merge, bundle.names)
    labelled = read_labelled(images, bundle.preprocess.swapped(invert)) if images is not None else None
    assignment = bundle.predict_proba(labelled.images) if labelled else None
    naming = None
    if labelled and assignment is not None:
        naming = names_from_images(bundle.names, labelled, assignment, one_to_one=match != "many-to-one")
    manifest = renamed(bundle.manifest, naming.names if naming else bundle.names, hand)
    for name in sorted(set(hand.values())):
        if others := [i for i, other in enumerate(manifest.names) if other == name and i not in hand]:
            say(f"note: {name} is the name of cluster {', '.join(map(str, others))} too: clusters that share a name count as one")
    target = output or bundle_path
    if not dry_run:
        require_place(bundle, target)
    print(f"{'cluster':>7}  {'name':<20}  {'share':>6}  images given")
    for i, cluster in enumerate(manifest.clusters):
        given = ""
        if naming and labelled:
            given = ", ".join(f"{count} {name}" for name, count in zip(labelled.names, naming.counts[i], strict=True) if count)
        print(f"{i:>7}  {cluster.name:<20}  {cluster.share:>6.1%}  {given}".rstrip())
    if labelled and assignment is not None:
        agreed = accuracy(manifest, labelled, assignment)
        print(f"{agreed:.1%} of {len(labelled.labels)} images are in a cluster of their name")
        if agreed < 0.5:
            say("warning: most of these images are in a cluster of another name: the clusters follow something else than these classes")
        if match != "many-to-one":
            shared = names_from_images(bundle.names, labelled, assignment, one_to_one=False)
            would = accuracy(renamed(bundle.manifest, shared.names, hand), labelled, assignment)
            if would > agreed + NOTABLE:
                say(f"note: {would:.1%} would be, if a class may have several clusters: --match many-to-one")
        left_out = sorted(set(labelled.names) - set(manifest.names))
        if left_out:
            say(f"note: no cluster is named {', '.join(left_out)}: their images lie in clusters of other names")
    if not dry_run:
        write_names(bundle, manifest, target)
        say(f"{target}: names written")


def _names_by_hand(single: tuple[str, ...], merged: tuple[str, ...], names: list[str]) -> dict[int, str]:
    from ..names import find_cluster, refusal

    found: dict[int, str] = {}
    for option, text in [("--name", text) for text in single] + [("--merge", text) for text in merged]:
        clusters, equals, name = text.partition("=")
        name = name.strip()
        if not equals or not name or not clusters:
            raise UsageError(f"{option} is '{text}', expected {'CLUSTER=NAME' if option == '--name' else 'A,B,...=NAME'}")
        if why := refusal(name):
            raise UsageError(f"{option}: {why}")
        for part in clusters.split(",") if option == "--merge" else [clusters]:
            cluster = find_cluster(part.strip(), names)
            if part.strip().isdecimal() and cluster != int(part) < len(names):
                say(f"note: {part.strip()} is taken for the name of cluster {cluster}; #{part.strip()} is the cluster of that number")
            if cluster in found:
                raise UsageError(f"cluster {cluster} is named twice: '{found[cluster]}' and '{name}'")
            found[cluster] = name
    return found


main = command_entry(label, "catvae-label", at_once=True)
