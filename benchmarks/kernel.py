"""Times of the mixture loss through torch, forward and backward, against every other way to compute it: `make bench`.

Rows agree with the float64 reference before they are timed. Median of repeated runs in milliseconds, with the 20 % and 80 % quantiles.
Left out: the CUDA rows (no kernel yet) and the whole training step.
"""

import time
import warnings
from collections.abc import Callable

import click
import numpy as np
import torch
from torch import Tensor

from catvae.kernels import kernel_status, mixture_kl
from catvae.kernels.reference import mixture_kl_reference

from . import rivals
from .record import circumstances, write_csv

SIZES = [(128, 10, 20), (1024, 10, 20), (8192, 10, 64), (256, 100, 200), (512, 300, 600)]
SLOWEST = 4.0
"""Seconds of measuring per row, about."""


def problem(N: int, K: int, D: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(N, D), (N, D), (K, D), (K, D), (K, D), (N, K)]
    values = [0.5 * torch.randn(shape, generator=generator) for shape in shapes]
    return [x.requires_grad_(i != 4) for i, x in enumerate(values)]


def once(form: Callable, inputs: list[Tensor]) -> None:
    kl, neg_entropy = form(*inputs)[:2]
    (kl + neg_entropy).backward()


def timed(call: Callable[[], object]) -> tuple[float, float, float]:
    """Median and 20 % and 80 % quantiles, in milliseconds."""
    call()
    began = time.perf_counter()
    call()
    one = time.perf_counter() - began
    samples = []
    for _ in range(int(min(300, max(5, SLOWEST / max(one, 1e-6))))):
        began = time.perf_counter()
        call()
        samples.append(1e3 * (time.perf_counter() - began))
    low, middle, high = np.quantile(samples, [0.2, 0.5, 0.8])
    return float(middle), float(low), float(high)


def held(form: Callable, inputs: list[Tensor]) -> int:
    """Bytes that forward keeps for backward, inputs not counted."""
    own = {x.untyped_storage().data_ptr() for x in inputs}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = form(*inputs)[:2]
    total = sum(kept.values())
    del out
    return total


def measure(size: tuple[int, int, int], compiled: bool) -> list[dict[str, object]]:
    """One row per form at a size, on the threads torch uses now."""
    inputs = problem(*size)
    expected = mixture_kl_reference(*(x.detach().numpy() for x in inputs)).kl
    forms: dict[str, Callable] = {
        "published loop": rivals.published_loop,
        "eager broadcast": rivals.broadcast,
        "eager products": rivals.matmul_form,
        "ours": mixture_kl,
    }
    if compiled:
        torch._dynamo.reset()
        forms["compiled broadcast"] = torch.compile(rivals.broadcast, dynamic=False)
        forms["compiled products"] = torch.compile(rivals.matmul_form, dynamic=False)
    rows: list[dict[str, object]] = []
    for name, form in forms.items():
        for x in inputs:
            x.grad = None
        found = form(*inputs)[0].item()
        error = abs(found - expected) / abs(expected)
        if error > 1e-4:
            raise SystemExit(f"{name} at {size} is off by {error:.1e}: not timed")
        middle, low, high = timed(lambda form=form: once(form, inputs))
        memory = held(form, inputs) if not name.startswith("compiled") else ""
        rows.append(row(size, name, middle, low, high, f"{error:.1e}", memory))
    m, E, logits = (inputs[i].detach() for i in (0, 2, 5))
    middle, low, high = timed(lambda: rivals.six_products(m, E, logits))
    rows.append(row(size, "six products alone", middle, low, high, "", ""))
    return rows


def row(size, name, middle, low, high, error, memory) -> dict[str, object]:
    N, K, D = size
    return {
        "N": N, "K": K, "D": D, "threads": torch.get_num_threads(), "form": name, "ms": f"{middle:.4f}", "ms_20": f"{low:.4f}",
        "ms_80": f"{high:.4f}", "relative_error": error, "bytes_held": memory,
    }  # fmt: skip


@click.command()
@click.option("--compiled/--no-compiled", default=True, show_default=True, help="Also the torch.compile rows (slow to build).")
def main(compiled: bool) -> None:
    """Time every form and write results/kernel.csv."""
    warnings.simplefilter("ignore")
    click.echo(f"{circumstances()}\n{kernel_status()}")
    rows = []
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        for size in SIZES:
            found = measure(size, compiled)
            ours = next(float(str(r["ms"])) for r in found if r["form"] == "ours")
            for r in found:
                ms = float(str(r["ms"]))
                click.echo(f"{size!s:<16} {threads} threads  {r['form']:<20} {ms:>10.3f} ms   {ms / ours:>8.2f} x ours")
            rows += found
    click.echo(f"written to {write_csv('kernel', rows)}")


if __name__ == "__main__":
    main()
