"""The whole training step: the published code's beside ours at K = 10, 50, 100, with equal batches and equal numbers of generated images.

Ours is a step of `Trainer` with ``--recipe paper``: batch drawn from the resident uint8 images, loss, gradients, clipping, Adam, the
epoch's means. The floor is the sum of that step's matrix products alone, in the same precision. The mixture loss alone, forward with
backward, stands beside them: what its speed is worth in a step, at least, since its caches are warm.
"""

import warnings
from collections.abc import Callable

import click
import numpy as np
import torch

from catvae.core.config import resolve
from catvae.core.images.data import ImageData, native_preprocess
from catvae.core.machine.devices import keep_freed_memory
from catvae.core.training.trainer import Trainer
from catvae.kernels import mixture_kl

from .kernel import problem
from .published import published_step
from .record import circumstances, write_csv
from .timing import compare, forward_backward

SIDE, HIDDEN, DELTA, BATCH, PER_CLUSTER = 28, 400, 2, 128, 10


def our_step(clusters: int, precision: str, **options) -> Callable[[], object]:
    """A call that takes one step of our training on random images."""
    images = np.random.default_rng(0).integers(0, 256, (4096, SIDE, SIDE, 1), dtype=np.uint8)
    data = ImageData("noise", images, native_preprocess(images))
    trainer = Trainer(data, resolve({"recipe": "paper", "clusters": clusters, "precision": precision, "epochs": 1000, **options}))
    return trainer.step


def products(clusters: int, dtype: torch.dtype) -> Callable[[], None]:
    """Every matrix product of the step: forward, and backward to weights and, but for the images, to inputs."""
    pixels, latent, generated = SIDE * SIDE, clusters * DELTA, clusters * PER_CLUSTER
    shapes = [  # rows, in, out, whether the input wants a gradient
        (BATCH, pixels, HIDDEN, False), (BATCH, HIDDEN, 2 * latent + clusters, True),
        (BATCH, latent, HIDDEN, True), (BATCH, HIDDEN, pixels, True),
        (generated, latent, HIDDEN, False), (generated, HIDDEN, pixels, True),
        (generated, pixels, HIDDEN, True), (generated, HIDDEN, clusters, True),
    ]  # fmt: skip
    tensors = [(torch.rand(n, i, dtype=dtype), torch.rand(o, i, dtype=dtype), torch.rand(n, o, dtype=dtype), g) for n, i, o, g in shapes]

    def run() -> None:
        for x, w, g, wanted in tensors:
            torch.mm(x, w.T)
            torch.mm(g.T, x)
            if wanted:
                torch.mm(g, w)

    return run


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Time spent on each row, about.")
@click.option("--name", default="step", show_default=True, help="Of the result file: machines stand beside each other.")
def main(seconds: float, name: str) -> None:
    """Time every step and write results/NAME.csv."""
    warnings.simplefilter("ignore")
    click.echo(str(circumstances()))
    keep_freed_memory()  # as catvae-train does
    rows: list[dict[str, object]] = []
    threads = torch.get_num_threads()
    for clusters in (10, 50, 100):
        calls = {
            "published": published_step(SIDE * SIDE, clusters, DELTA, HIDDEN, BATCH, PER_CLUSTER),
            "ours fp32": our_step(clusters, "fp32"),
            "products alone fp32": products(clusters, torch.float32),
            "ours bf16": our_step(clusters, "bf16"),
            "products alone bf16": products(clusters, torch.bfloat16),
            "mixture loss alone fp32": forward_backward(mixture_kl, problem(BATCH, clusters, clusters * DELTA)),
        }
        found = compare(calls, seconds)
        for step, (middle, low, high) in found.items():
            precision = "fp32" if step == "published" else step[-4:]
            compared = {"part_of_our_step": middle / found[f"ours {precision}"][0]}
            if "alone" not in step:
                floor = found[f"products alone {precision}"][0]
                compared = {"published_over_this": found["published"][0] / middle, "this_over_its_products": middle / floor}
            rows.append(
                {
                    "K": clusters, "batch": BATCH, "generated": clusters * PER_CLUSTER, "threads": threads, "step": step,
                    "ms": f"{middle:.3f}", "ms_20": f"{low:.3f}", "ms_80": f"{high:.3f}",
                    **{what: f"{ratio:.3g}" for what, ratio in compared.items()},
                }
            )  # fmt: skip
            ratios = "   ".join(f"{what.replace('_', ' ')} {ratio:.3g}" for what, ratio in compared.items())
            click.echo(f"K={clusters:<4} {step:<24} {middle:>9.3f} ms   {ratios}")
    click.echo(f"written to {write_csv(name, rows)}")


if __name__ == "__main__":
    main()
