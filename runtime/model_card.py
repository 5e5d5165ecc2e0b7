"""`MODEL_CARD.md`: what a bundle is, how well it is known to work, and where it stops, for whoever receives it without us."""

from .manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """The card, from the manifest alone."""
    p, q = manifest.provenance, manifest.preprocess
    lines = [
        f"# CatVAE bundle: {p.data}",
        "",
        f"Sorts images into {len(manifest.clusters)} clusters and draws new ones, cluster by cluster. Trained without labels"
        f" on {p.images:,} images ({p.data}), recipe `{p.recipe}`, seed {p.seed}, {p.epochs} epochs.",
        "",
        "![one row of generated images per cluster](preview.png)",
        "",
        "## Use",
        "```",
        "catvae-infer -b THIS_FOLDER image.png",
        "catvae-generate -b THIS_FOLDER -o samples.png",
        "```",
        f"Images are read as {q.width} x {q.height}, {'grey' if q.channels == 1 else 'RGB'}, `{q.fit}`, background {q.background}"
        f"{', inverted' if q.invert else ''}. `golden.npz` holds inputs and the answers expected to them.",
        "",
        "## Clusters",
        "| cluster | name | share of training images | mean confidence |",
        "|---|---|---|---|",
        *(
            f"| {i} | {c.name.replace('|', chr(92) + '|')} | {c.share:.1%} | {c.mean_confidence:.3f} |"
            for i, c in enumerate(manifest.clusters)
        ),
        "",
        "## Known quality",
    ]
    if manifest.metrics:
        lines += ["| images | ACC | NMI | ARI |", "|---|---|---|---|"]
        lines += [f"| {part} | {m['acc']:.4f} | {m['nmi']:.4f} | {m['ari']:.4f} |" for part, m in manifest.metrics.items()]
        lines += ["", "Labels were used for this table and for the cluster names, never for training."]
    else:
        lines += ["The training images had no labels: agreement with human classes is not known."]
    lines += [
        "",
        f"ONNX against PyTorch at batches {', '.join(map(str, manifest.parity.batches))}: largest difference"
        f" {max(manifest.parity.max_difference.values()):.1e}, clusters equal for {manifest.parity.cluster_agreement:.1%} of the probes"
        f" (onnxruntime {manifest.parity.onnxruntime}).",
        "",
        "## Limits",
        "- Every image gets a cluster, also one unlike anything seen in training: look at the confidence.",
        "- Clusters are what the images have in common, not what anyone wanted to tell apart: check the names before relying on them.",
        "",
        "## Files",
        "| file | precision | bytes | sha256 |",
        "|---|---|---|---|",
        *(f"| {g.name} | {g.precision} | {g.size:,} | `{g.sha256[:16]}` |" for g in manifest.graphs.values()),
        "",
    ]
    return "\n".join(lines)
