"""The mixture loss over ranges of N, K and D, by instruction set, and its error: the rows behind the plots of `plots`.

Forward with backward through torch, one thread, except where a row says otherwise; the crossover with plain matrix products and the
regions where ours loses show here. The instruction sets are timed in the C interface itself, forward and backward, without torch.
"""

from collections.abc import Callable
from functools import partial

import click
import numpy as np
import torch

from catvae.core.machine.devices import keep_freed_memory
from catvae.kernels import _loader, dense_mixture_kl, mixture_kl
from catvae.kernels.reference import mixture_kl_reference

from . import rivals
from .kernel import dense_inputs, exact_dense_results, exact_results, problem, require_right
from .record import circumstances, write_csv
from .timing import Call, bytes_held, compare, forward_backward

SWEEPS = {
    "N": [(2**i, 10, 20) for i in range(5, 17, 2)],
    "K": [(512, K, 64) for K in (2, 5, 10, 20, 50, 100, 200, 500, 1000)],
    "D": [(1024, 10, D) for D in (2, 5, 10, 20, 50, 100, 200, 500, 1000)],
}
BROADCAST_LIMIT = 40_000_000
"""N*K*D above which forms with tensors of that size are left out."""
ISAS = ("portable C", "AVX2", "AVX-512")


def sweep(axis: str, sizes: list[tuple[int, int, int]], seconds: float) -> list[dict[str, object]]:
    rows = []
    for size in sizes:
        inputs = problem(*size)
        m, E, logits = (inputs[i].detach() for i in (0, 2, 5))
        forms = {
            "ours": (mixture_kl, inputs),
            "eager products": (rivals.products, inputs),
            "empty autograd function": (rivals.nothing, inputs),
        }
        if np.prod(size, dtype=float) <= BROADCAST_LIMIT:
            wide = dense_inputs(inputs)
            forms |= {
                "eager broadcast": (rivals.broadcast, inputs),
                "dense: ours": (dense_mixture_kl, wide),
                "dense: eager": (rivals.dense, wide),
            }
        exact = {id(inputs): exact_results(inputs)}
        for name, (form, given) in forms.items():
            if form is not rivals.nothing:
                if id(given) not in exact:
                    exact[id(given)] = exact_dense_results(given)
                require_right(f"{name} at {size}", form, given, exact[id(given)])
        memory = {name: bytes_held(form, given) for name, (form, given) in forms.items()}
        calls: dict[str, Call] = {name: forward_backward(form, given) for name, (form, given) in forms.items()}
        calls["six products alone"] = lambda m=m, E=E, logits=logits: rivals.six_products(m, E, logits)
        for name, (middle, low, high) in compare(calls, seconds).items():
            rows.append(row(axis, size, name, f"{middle:.4f}", f"{low:.4f}", f"{high:.4f}", memory.get(name, "")))
        best = min((float(str(r["ms"])), str(r["form"])) for r in rows[-len(calls) :] if r["form"] not in FLOORS)
        click.echo(f"{axis} {size!s:<18} ours {rows[-len(calls)]['ms']:>9} ms   fastest: {best[1]} {best[0]:.4f} ms")
    return rows


FLOORS = ("six products alone", "empty autograd function")


def row(axis, size, form, ms, ms_20, ms_80, memory: int | str = "", error="") -> dict[str, object]:
    N, K, D = size
    return {
        "sweep": axis, "N": N, "K": K, "D": D, "form": form, "ms": ms, "ms_20": ms_20, "ms_80": ms_80, "bytes_held": memory,
        "error": error,
    }  # fmt: skip


def direct_call(N: int, K: int, D: int) -> Callable[[int], None]:
    """Forward and backward of one problem in the C interface, as a function of the instruction set."""
    ffi, lib = _loader.load()
    p = lambda x: ffi.cast("void *", x.data_ptr())  # noqa: E731
    values = [x.detach().contiguous() for x in problem(N, K, D)]
    shapes = [(), (), (N, K), (N, K), (3, N), (N, D), (N, D), (K, D), (K, D), (N, K)]
    out, one = [torch.empty(shape) for shape in shapes], torch.ones(())
    spaces = [torch.empty(lib.catvae_mixture_kl_workspace(N, K, D, 4, 0, phase, 1), dtype=torch.uint8) for phase in (0, 1)]

    # Made before the clock starts: a cast costs a quarter of a microsecond, twenty of them half of the smallest call.
    inputs, found, scratch, upstream = [*map(p, values), ffi.NULL, 0], list(map(p, out)), list(map(p, spaces)), p(one)
    forward = N, K, D, *inputs, *found[:5], scratch[0], 1
    backward = N, K, D, *inputs, *found[2:5], upstream, upstream, *found[5:], scratch[1], 1

    def call(isa: int) -> None:
        first = lib.catvae_mixture_kl_forward_f32(*forward, isa, ffi.NULL)
        if first or lib.catvae_mixture_kl_backward_f32(*backward, isa, ffi.NULL):
            raise SystemExit(f"the call at {(N, K, D)} was refused: not timed")

    call.memory = values, out, spaces, one  # pyright: ignore[reportFunctionMemberAccess] - what the pointers point to
    return call


def instruction_sets(seconds: float) -> list[dict[str, object]]:
    """The C call alone on each instruction set this machine has, forward and backward."""
    best = _loader.load()[1].catvae_best_isa()
    rows = []
    for size in [(128, 10, 20), (8192, 10, 64), (512, 300, 600)]:
        call = direct_call(*size)
        for name, (middle, low, high) in compare({ISAS[isa]: partial(call, isa) for isa in range(best + 1)}, seconds).items():
            rows.append(row("isa", size, name, f"{middle:.4f}", f"{low:.4f}", f"{high:.4f}"))
            click.echo(f"isa {size!s:<18} {name:<12} {middle:>9.4f} ms")
    return rows


def error_sweep() -> list[dict[str, object]]:
    """Relative error of the KL and of dE against float64, as means move away from the origin towards the modes' mirror image."""
    rows = []
    for distance in (0.0, 1.0, 10.0, 100.0, 1000.0):
        values = [x.detach() for x in problem(256, 10, 64)]
        values[0], values[2] = values[0] + distance, values[2] - distance
        exact = mixture_kl_reference(*(x.numpy() for x in values))
        for name, form in {"ours": mixture_kl, "eager products": rivals.products, "eager broadcast": rivals.broadcast}.items():
            leaves = [x.clone().requires_grad_(i != 4) for i, x in enumerate(values)]
            kl, neg_entropy = form(*leaves)[:2]
            (kl + neg_entropy).backward()
            gradient = leaves[2].grad
            assert gradient is not None
            errors = abs(kl.item() - exact.kl) / abs(exact.kl), np.abs(gradient.numpy() - exact.g_E).max() / np.abs(exact.g_E).max()
            for what, error in zip(("kl", "dE"), errors, strict=True):
                rows.append(
                    {**row("error", (256, 10, 64), name, "", "", "", error=f"{error:.2e}"), "sweep": f"error {what} at {distance:g}"}
                )
        click.echo(f"error at distance {distance:g}: " + "  ".join(f"{r['form']} {r['sweep'].split()[1]} {r['error']}" for r in rows[-6:]))
    return rows


@click.command()
@click.option("--seconds", default=0.6, show_default=True, help="Time spent on each row, about.")
def main(seconds: float) -> None:
    """Run every sweep and write results/kernel-sweeps.csv."""
    click.echo(str(circumstances()))
    keep_freed_memory()  # as catvae-train does
    torch.set_num_threads(1)
    rows = [r for axis, sizes in SWEEPS.items() for r in sweep(axis, sizes, seconds)]
    rows += instruction_sets(seconds) + error_sweep()
    click.echo(f"written to {write_csv('kernel-sweeps', rows)}")


if __name__ == "__main__":
    main()
