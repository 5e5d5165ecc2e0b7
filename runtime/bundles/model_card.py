"""`MODEL_CARD.md`: what a bundle is, how well it is known to work, and where it stops, for whoever receives it without us."""

from ..wording import counted
from .manifest import Cluster, Manifest


def model_card(manifest: Manifest) -> str:
    """The card, from the manifest alone."""
    p, q = manifest.provenance, manifest.preprocess
    lines = [
        f"# CatVAE bundle: {p.data}",
        "",
        f"Sorts images into {counted(len(manifest.clusters), 'cluster')} and draws new ones, cluster by cluster. Learnt from"
        f" {p.learnt_from} ({p.data}), recipe `{p.recipe}`, seed {p.seed}, {counted(p.epochs, 'epoch')}.",
        "",
        "![one row of generated images per cluster](preview.png)",
        "",
        "## Use",
        "```",
        "catvae-infer -b THIS_FOLDER image.png",
        "catvae-generate -b THIS_FOLDER -o samples.png",
        "```",
        f"Images are read as {q.size}, `{q.fit}`, background {q.background}"
        f"{', inverted' if q.invert else ''}. `golden.npz` holds inputs and the answers expected to them.",
        "",
        "## Clusters",
        "| cluster | name | share of training images | mean confidence | unknown below, nats | relatively |",
        "|---|---|---|---|---|---|",
        *(_row(i, cluster) for i, cluster in enumerate(manifest.clusters)),
        "",
        "## Known quality",
    ]
    if manifest.metrics:
        lines += ["| images | ACC | NMI | ARI |", "|---|---|---|---|"]
        lines += [f"| {part} | {m['acc']:.4f} | {m['nmi']:.4f} | {m['ari']:.4f} |" for part, m in manifest.metrics.items()]
        trained = f"a few of them for training too, with weight {p.label_weight:g}" if p.label_weight else "never for training"
        named = any(c.name not in (str(i), f"cluster {i}") for i, c in enumerate(manifest.clusters))
        lines += ["", f"Labels were used for this table{' and for the cluster names' if named else ''}, {trained}."]
    else:
        lines += ["The training images had no labels: agreement with human classes is not known."]
    lines += [
        "",
        f"ONNX{' in fp32' if manifest.quantisation else ''} against PyTorch at batches {', '.join(map(str, manifest.parity.batches))}:"
        f" largest difference {max(manifest.parity.max_difference.values()):.1e}, clusters equal for"
        f" {manifest.parity.cluster_agreement:.1%} of the probes (onnxruntime {manifest.parity.onnxruntime}).",
        "",
        *_reduced(manifest),
        f"`catvae-infer -b THIS_FOLDER --self-test` replays the golden inputs where the model is to run; accepted are differences of"
        f" {', '.join(f'{value:.0e} on {kind}' for kind, value in sorted(manifest.tolerances.items()))}.",
        "",
        "## Limits",
        f"- {_unlike(manifest)}",
        "- Clusters are what the images have in common, not what anyone wanted to tell apart: check the names before relying on them.",
        "",
        "## Files",
        "| file | precision | bytes | sha256 |",
        "|---|---|---|---|",
        *(f"| {g.name} | {g.precision} | {g.size:,} | `{g.sha256[:16]}` |" for g in manifest.graphs.values()),
        "",
        f"Model `{manifest.model_id[:16]}`, training data `{p.data_hash[:16]}`. Made with"
        f" {', '.join(f'{name} {version}' for name, version in sorted(p.versions.items()))};"
        f" needs {', '.join(f'{name} {version} or newer' for name, version in sorted(manifest.min_runtime.items())) or 'onnxruntime'}.",
        "",
    ]
    return "\n".join(lines)


def _row(number: int, cluster: Cluster) -> str:
    name = cluster.name.replace("|", chr(92) + "|")
    thresholds = f"{_nats(cluster.reject_threshold)} | {_nats(cluster.reject_relative)}"
    return f"| {number} | {name} | {cluster.share:.1%} | {cluster.mean_confidence:.3f} | {thresholds} |"


def _nats(threshold: float | None) -> str:
    return "never" if threshold is None else f"{threshold:.1f}"


def _unlike(manifest: Manifest) -> str:
    """A sentence on images of another kind."""
    every = "Every image gets a cluster, also one unlike anything seen in training, and its confidence may be high"
    scoring = manifest.scoring
    if scoring is None:
        return f"{every}: this bundle cannot tell, it was exported without images to score."
    source = "that were held back from training" if scoring.held_back else "of training: there were too few to hold any back"
    said = (
        f"{every}. `--score` calls it unknown where its evidence lower bound is below its cluster's threshold, or is so relative to the"
        f" most that its pixels allow, as were about {scoring.quantile:.0%} of {scoring.images:,} images {source}."
    )
    if not scoring.least_contrast:
        return said
    faint = f"{scoring.least_contrast:.1f} of 255"
    return f"{said} A frame with hardly anything on it, whose pixels deviate by less than {faint}, is unknown too."


def _reduced(manifest: Manifest) -> list[str]:
    """How a reduced precision compares with fp32."""
    q = manifest.quantisation
    if q is None:
        return []
    return [
        f"`{manifest.precision}` has {q.size_ratio:.0%} of the size of fp32. {q.words}. {q.held_back:,} of these images were held back from"
        " training.",
        "",
    ]
