"""Times of the mixture loss through torch against every other way to compute it, at the sizes of the goals: `make bench`.

Every form's sums and gradients agree with float64 before it is timed; forward alone, backward alone and both, one thread and all, the
dense entry point beside the factorised one. Rows where ours loses are printed like the others. Sweeps over N, K and D are in
`kernel_sweeps`, the whole training step in `step`. ``--device cuda`` reads the same rows on a GPU, and ours as a CUDA graph besides.
"""

import warnings
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from catvae.core.machine.devices import keep_freed_memory
from catvae.kernels import dense_mixture_kl, kernel_status, mixture_kl
from catvae.kernels.reference import mixture_kl_reference

from . import rivals
from .record import circumstances, write_csv
from .timing import Backward, bytes_held, captured, compare, forward_backward, forward_only, on_cpu, on_gpu

SIZES = [(128, 10, 20), (1024, 10, 20), (8192, 10, 64), (256, 100, 200), (512, 300, 600)]
DENSE_LIMIT = 30_000_000
"""N*K*D above which the dense forms are left out: 120 MB a tensor."""
LOOP_LIMIT = 10_000_000_000
"""N*K*K*D above which the published loop is left out: its gradients take minutes a step at (512, 300, 600)."""


def problem(N: int, K: int, D: int, device: str = "cpu") -> list[Tensor]:
    """m, v, E, F, prior, logits."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(N, D), (N, D), (K, D), (K, D), (K, D), (N, K)]
    return [(0.5 * torch.randn(shape, generator=generator)).to(device).requires_grad_(i != 4) for i, shape in enumerate(shapes)]


def dense_inputs(inputs: list[Tensor]) -> list[Tensor]:
    """mu, lv, prior, logits of the same posteriors."""
    m, v, E, F, prior, logits = (x.detach() for x in inputs)
    mu, lv = (m[:, None] + E).requires_grad_(), (v[:, None] + F).requires_grad_()
    return [mu, lv, prior, logits.clone().requires_grad_()]


def forms_of(compiled: bool, device: str) -> dict[str, Callable]:
    forms: dict[str, Callable] = {
        "published loop": rivals.published_loop,
        "eager broadcast": rivals.broadcast,
        "eager products": rivals.products,
        "ours": mixture_kl,
    }
    if device == "cpu":  # the node's own device
        forms["ours from Python"] = rivals.from_python
    if compiled:
        torch._dynamo.reset()
        forms["compiled broadcast"] = torch.compile(rivals.broadcast, dynamic=False)
        forms["compiled products"] = torch.compile(rivals.products, dynamic=False)
    return forms


def dense_forms(compiled: bool, device: str) -> dict[str, Callable]:
    forms: dict[str, Callable] = {
        "dense: eager": rivals.dense,
        "dense: ours": dense_mixture_kl,
    }
    if device == "cpu":
        forms["dense: ours from Python"] = rivals.dense_from_python
    if compiled:
        forms["dense: compiled"] = torch.compile(rivals.dense, dynamic=False)
    return forms


def measure(size: tuple[int, int, int], compiled: bool, seconds: float, device: str) -> list[dict[str, object]]:
    """One row per form and pass at a size, on the threads torch uses now or on the GPU."""
    inputs = problem(*size, device)
    cases = [(name, form, inputs) for name, form in forms_of(compiled, device).items()]
    if size[0] * size[1] ** 2 * size[2] > LOOP_LIMIT:
        click.echo(f"{size}: published loop not run, it would take minutes a step")
        cases = cases[1:]
    wide = dense_inputs(inputs) if size[0] * size[1] * size[2] <= DENSE_LIMIT else []
    if wide:
        cases += [(name, form, wide) for name, form in dense_forms(compiled, device).items()]
    errors, memory, calls = {}, {}, {}
    exact = {False: exact_results(inputs), True: exact_dense_results(wide) if wide else {}}
    for name, form, given in cases:
        error = require_right(name, form, given, exact[given is wide])
        errors[name], memory[name] = f"{error:.1e}", "" if "compiled" in name else bytes_held(form, given)
        calls[name, "forward"] = forward_only(form, given)
        calls[name, "backward"] = Backward(form, given)
        calls[name, "forward+backward"] = forward_backward(form, given)
    if device == "cuda":
        replay = calls["ours as a CUDA graph", "forward+backward"] = captured(forward_backward(mixture_kl, inputs))
        replay()
        require_close("ours as a CUDA graph", gradients(inputs), {i: value for i, value in exact[False].items() if isinstance(i, int)})
    m, E, logits = (inputs[i].detach() for i in (0, 2, 5))
    calls["six products alone", "forward+backward"] = lambda: rivals.six_products(m, E, logits)
    calls["empty autograd function", "forward+backward"] = forward_backward(rivals.nothing, inputs)
    N, K, D = size
    where, clock = ("GPU", on_gpu()) if device == "cuda" else (torch.get_num_threads(), on_cpu)
    return [
        {
            "N": N, "K": K, "D": D, "threads": where, "pass": which, "form": name, "ms": f"{middle:.4f}", "ms_20": f"{low:.4f}",
            "ms_80": f"{high:.4f}", "relative_error": errors.get(name, ""), "bytes_held": memory.get(name, ""),
        }
        for (name, which), (middle, low, high) in compare(calls, seconds, clock).items()
    ]  # fmt: skip


def exact_results(inputs: list[Tensor]) -> dict[str | int, Any]:
    """Sums and gradients of the factorised form in float64: "kl", "neg_entropy", and by the position of the input."""
    found = mixture_kl_reference(*(x.detach().cpu().numpy() for x in inputs))
    return {"kl": found.kl, "neg_entropy": found.neg_entropy, 0: found.g_m, 1: found.g_v, 2: found.g_E, 3: found.g_F, 5: found.g_logits}


def exact_dense_results(inputs: list[Tensor]) -> dict[str | int, Any]:
    """The same of the dense form."""
    leaves = [x.detach().double().requires_grad_(x.requires_grad) for x in inputs]
    kl, neg_entropy = rivals.dense(*leaves)
    (kl + neg_entropy).backward()
    return {"kl": kl.item(), "neg_entropy": neg_entropy.item()} | {i: g.cpu().numpy() for i, g in gradients(leaves).items()}


def require_right(name: str, form: Callable, inputs: list[Tensor], exact: dict[str | int, Any]) -> float:
    """The relative error of the KL; ends the program where a sum or a gradient is wrong by more than 1e-4 of the largest number in it."""
    leaves = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    kl, neg_entropy = form(*leaves)[:2]
    (kl + neg_entropy).backward()
    return require_close(name, {"kl": kl.detach(), "neg_entropy": neg_entropy.detach()} | gradients(leaves), exact)["kl"]


def gradients(leaves: list[Tensor]) -> dict[str | int, Any]:
    """By the position of the input."""
    return {i: x.grad for i, x in enumerate(leaves) if x.grad is not None}


def require_close(name: str, found: dict[str | int, Any], exact: dict[str | int, Any]) -> dict[str | int, float]:
    """Each one's error, in parts of its largest number."""
    errors = {what: float(np.abs(found[what].double().cpu().numpy() - value).max() / np.abs(value).max()) for what, value in exact.items()}
    worst = max(errors, key=lambda what: errors[what])
    if not errors[worst] < 1e-4:
        raise SystemExit(f"{name}: {worst} is off by {errors[worst]:.1e}: not timed")
    return errors


def show(rows: list[dict[str, object]]) -> None:
    """Rows of one size and thread count, each against ours of the same pass and form."""
    ms = {(row["form"], row["pass"]): float(str(row["ms"])) for row in rows}
    for row in rows:
        name, which = row["form"], row["pass"]
        ours = ms["dense: ours" if str(name).startswith("dense") else "ours", which]
        size = f"({row['N']}, {row['K']}, {row['D']})"
        where = row["threads"] if row["threads"] == "GPU" else f"{row['threads']} threads"
        against = f"{ms[name, which]:>10.3f} ms {ms[name, which] / ours:>9.2f} x ours"
        click.echo(f"{size:<16} {where}  {which:<17} {name:<24} {against}")


@click.command()
@click.option("--compiled/--no-compiled", default=True, show_default=True, help="Also the torch.compile rows (slow to build).")
@click.option("--seconds", default=2.0, show_default=True, help="Time spent on each row, about.")
@click.option("--name", default="kernel", show_default=True, help="Of the result file: machines stand beside each other.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def main(compiled: bool, seconds: float, name: str, device: str) -> None:
    """Time every form and write results/NAME.csv."""
    warnings.simplefilter("ignore")
    click.echo(f"{circumstances()}\n{kernel_status(device)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("no GPU on this machine: nothing to measure")
    if not kernel_status(device).startswith("compiled"):
        raise click.UsageError("the compiled kernel does not run here: what is called ours would be plain torch")
    keep_freed_memory()  # as catvae-train does, for all forms: else what a call takes depends on where its results come to lie
    rows = []
    for threads in sorted({1, torch.get_num_threads()}) if device == "cpu" else [torch.get_num_threads()]:
        torch.set_num_threads(threads)
        for size in SIZES:
            found = measure(size, compiled, seconds, device)
            show(found)
            rows += found
    click.echo(f"written to {write_csv(name, rows)}")


if __name__ == "__main__":
    main()
