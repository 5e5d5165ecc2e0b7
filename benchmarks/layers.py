"""What the layers of both recipes cost on the CPU, torch's own beside ours, and the default one's whole step with either: `make bench`.

Batch norm with its ReLU at the sizes of the encoder, eager, compiled and ours, forward with backward, float32 and bfloat16, with the error
of the gradient that has most to lose; the encoder's convolutions, whose weights learn by patches in bfloat16; the decoder's transposed
ones, whose bias torch lets oneDNN learn and whose last one goes to few channels; the paper's dropout with its ReLU; the likelihood of
pixels with the images drawn beside them; and a step of `Trainer` on grey images of 28 x 28 and colour images of 64 x 64, both before and
after the generator joins.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from catvae.core.config import resolve
from catvae.core.images.data import ImageData, native_preprocess
from catvae.core.machine.devices import keep_freed_memory
from catvae.core.training.trainer import Trainer
from catvae.core.vae import layers as of_network
from catvae.core.vae import objective
from catvae.kernels import kernel_status, norm_relu

from .record import circumstances, write_csv
from .timing import compare

NORMS = [(512, 32, 32), (512, 64, 16), (512, 128, 8), (512, 32, 14), (512, 64, 7)]
"""Images, channels, side."""
CONVOLUTIONS = [(512, 3, 32, 64), (512, 32, 64, 32), (512, 64, 128, 16), (512, 32, 64, 14), (512, 64, 128, 7)]
"""Images, channels before and after, side before: of the encoder, of which each halves the side."""
DOUBLINGS = [(416, 64, 32, 16), (416, 128, 64, 8), (416, 64, 32, 7), (416, 32, 3, 32), (416, 32, 1, 14)]
"""Images, channels before and after, side before."""
DROPOUTS = [(128, 400), (228, 400), (1128, 400)]
"""Rows, hidden units: of a batch at the published setting, and with what K = 10 and 100 generate."""
PIXELS = [(228, 128, 28, 1), (416, 256, 28, 1), (416, 256, 64, 3)]
"""Images, how many of them are explained, side, channels: of the published setting, and of the default one."""
IMAGES = [(1, 28), (3, 64)]
"""Channels, side."""

Rows = list[dict[str, object]]


def torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Batch norm and ReLU as `torch.nn` does them, with running averages."""
    averages = x.new_zeros(len(weight), dtype=torch.float32), x.new_ones(len(weight), dtype=torch.float32)
    return nnF.batch_norm(x, *averages, weight, bias, True, 0.1, 1e-5).relu_()


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    done = norm_relu(x, weight, bias, 1e-5)
    assert done is not None
    return done.y


def gradients_of(form: Callable, inputs: list[Tensor], upstream: Tensor | tuple[Tensor, ...]) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: torch.autograd.grad(form(*inputs), inputs, upstream)


def norms(dtype: torch.dtype, compiled: bool, seconds: float) -> Rows:
    rows: Rows = []
    for images, channels, side in NORMS:
        generator = torch.Generator().manual_seed(0)
        x, upstream = (torch.randn(images, channels, side, side, generator=generator) for _ in range(2))
        x, upstream = ((part.to(dtype)).contiguous(memory_format=torch.channels_last) for part in (x + 1, upstream))
        inputs = [
            part.requires_grad_() for part in (x, torch.randn(channels, generator=generator), torch.randn(channels, generator=generator))
        ]
        forms = {"torch": torchs, "ours": ours}
        if compiled:
            torch._dynamo.reset()
            forms["torch compiled"] = torch.compile(torchs, dynamic=False)
        calls = {name: gradients_of(form, inputs, upstream) for name, form in forms.items()}
        exact = gradients_of(torchs_in_double, [part.detach().double().requires_grad_() for part in inputs], upstream.double())()[1]
        errors = {name: ((call()[1] - exact).abs().max() / exact.abs().max()).item() for name, call in calls.items()}
        size = f"({images}, {channels}, {side}, {side})"
        rows += timed("batch norm and ReLU", size, dtype, calls, seconds, {name: f"{error:.1e}" for name, error in errors.items()})
    return rows


def torchs_in_double(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nnF.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-5).relu()


def convolutions(dtype: torch.dtype, seconds: float) -> Rows:
    rows: Rows = []
    for images, before, after, side in CONVOLUTIONS:
        x = torch.randn(images, before, side, side).contiguous(memory_format=torch.channels_last).to(dtype).requires_grad_()
        upstream = torch.randn(images, after, side // 2 + side % 2, side // 2 + side % 2)
        upstream = upstream.to(dtype).contiguous(memory_format=torch.channels_last)
        layers = {"torch": nn.Conv2d(before, after, 3, 2, 1, bias=False), "ours": of_network.Convolution(before, after, 2, bias=False)}
        calls = {}
        for name, layer in layers.items():
            layer = layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            calls[name] = gradients_of(partial(under_autocast, layer, dtype), [x, layer.weight], upstream)
        rows += timed("convolution", f"({images}, {before}, {side}, {side}) to {after}", dtype, calls, seconds)
    return rows


def doublings(dtype: torch.dtype, seconds: float) -> Rows:
    rows: Rows = []
    for images, before, after, side in DOUBLINGS:
        x = torch.randn(images, before, side, side).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        upstream = torch.randn(images, after, 2 * side, 2 * side).to(dtype).contiguous(memory_format=torch.channels_last)
        layers = {"torch": nn.ConvTranspose2d(before, after, 4, 2, 1), "ours": of_network.UpConvolution(before, after)}
        calls = {}
        for name, layer in layers.items():
            layer = layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            calls[name] = gradients_of(partial(under_autocast, layer, dtype), [x, layer.weight, layer.bias], upstream)
        rows += timed("transposed convolution", f"({images}, {before}, {side}, {side}) to {after}", dtype, calls, seconds)
    return rows


def dropouts(dtype: torch.dtype, compiled: bool, seconds: float) -> Rows:
    rows: Rows = []
    for size in DROPOUTS:
        x, upstream = torch.randn(size).to(dtype).requires_grad_(), torch.randn(size).to(dtype)
        layer = of_network.DropoutReLU(0.25)
        forms: dict[str, Callable[..., Tensor]] = {"torch": lambda x: nnF.dropout(x, 0.25).relu(), "ours": layer}
        if compiled:
            torch._dynamo.reset()
            forms["torch compiled"] = torch.compile(forms["torch"], dynamic=False)
        calls = {name: gradients_of(form, [x], upstream) for name, form in forms.items()}
        rows += timed("dropout and ReLU", str(size), dtype, calls, seconds)
    return rows


def likelihoods(dtype: torch.dtype, compiled: bool, seconds: float) -> Rows:
    rows: Rows = []
    for images, explained, side, channels in PIXELS:
        size = images, channels, side, side
        logits, x = (part.contiguous(memory_format=torch.channels_last) for part in (torch.randn(size), torch.rand(size)))
        logits, x, upstream = logits.to(dtype).requires_grad_(), x[:explained], torch.rand(size)[explained:]  # as views give it back
        forms: dict[str, Callable] = {"torch": objective.reconstruction_in_torch, "ours": objective.reconstruction}
        if compiled:
            torch._dynamo.reset()
            forms["torch compiled"] = torch.compile(objective.reconstruction_in_torch, dynamic=False)
        given = torch.ones(()), upstream
        calls = {name: gradients_of(partial(likelihood_of, form, x), [logits], given) for name, form in forms.items()}
        rows += timed("likelihood of pixels", f"{size}, {explained} explained", dtype, calls, seconds)
    return rows


def likelihood_of(form: Callable, x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return form(logits, x)


def under_autocast(layer: nn.Module, dtype: torch.dtype, x: Tensor, *_: Tensor) -> Tensor:
    """As in training, weights stay in float32."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return layer(x)


@contextlib.contextmanager
def layers_of_torch() -> Iterator[None]:
    """The networks with batch norm, ReLU and convolutions of torch, and its likelihood of pixels."""
    convolution, doubling = of_network.Convolution, of_network.UpConvolution
    mine: Any = of_network.norm_relu, objective.bernoulli, convolution.forward, doubling.forward
    of_network.norm_relu = objective.bernoulli = lambda *_: None
    convolution.forward, doubling.forward = nn.Conv2d.forward, nn.ConvTranspose2d.forward
    try:
        yield
    finally:
        of_network.norm_relu, objective.bernoulli, convolution.forward, doubling.forward = mine


def a_step(channels: int, side: int, warm: bool, of_torch: bool) -> Callable[[], object]:
    """A step of the default recipe on noise; `warm`: before the generator joins."""
    pixels = np.random.default_rng(0).integers(0, 256, (2048, side, side, channels), dtype=np.uint8)
    trainer = Trainer(ImageData("noise", pixels, native_preprocess(pixels)), resolve({"epochs": 100_000, "guard": False}))
    trainer.warm_steps = trainer.steps if warm else 0

    def call() -> None:
        with layers_of_torch() if of_torch else contextlib.nullcontext():
            trainer.step()

    return call


def steps(seconds: float) -> Rows:
    rows: Rows = []
    for channels, side in IMAGES:
        for warm in (True, False):
            calls = {name: a_step(channels, side, warm, name == "torch") for name in ("torch", "ours")}
            what = "step, clusters alone" if warm else "step, with the generator"
            rows += timed(what, f"256 of {side} x {side} x {channels}", None, calls, seconds)
    return rows


def timed(
    what: str, size: str, dtype: torch.dtype | None, calls: dict[str, Callable], seconds: float, errors: dict[str, str] | None = None
) -> Rows:
    found = compare(calls, seconds)
    rows: Rows = []
    for form, (middle, low, high) in found.items():
        rows.append(
            {
                "what": what, "size": size, "dtype": str(dtype or "auto").removeprefix("torch."), "threads": torch.get_num_threads(),
                "form": form, "ms": f"{middle:.3f}", "ms_20": f"{low:.3f}", "ms_80": f"{high:.3f}",
                "over_ours": f"{middle / found['ours'][0]:.2f}", "error_of_weight_gradient": (errors or {}).get(form, ""),
            }
        )  # fmt: skip
        click.echo("  ".join(str(value) for value in rows[-1].values()))
    return rows


@click.command()
@click.option("--compiled/--no-compiled", default=True, show_default=True, help="Also the torch.compile rows (slow to build).")
@click.option("--seconds", default=2.0, show_default=True, help="Time spent on each row, about.")
@click.option("--name", default="layers", show_default=True, help="Of the result file: machines stand beside each other.")
def main(compiled: bool, seconds: float, name: str) -> None:
    """Time layers and steps and write results/NAME.csv."""
    warnings.simplefilter("ignore")
    if not kernel_status().startswith("compiled"):
        raise click.UsageError("the compiled kernel does not run here: what is called ours would be plain torch")
    click.echo(str(circumstances()))
    keep_freed_memory()  # as catvae-train does
    rows: Rows = []
    for dtype in (torch.float32, torch.bfloat16):
        rows += norms(dtype, compiled, seconds) + convolutions(dtype, seconds) + doublings(dtype, seconds)
        rows += dropouts(dtype, compiled, seconds) + likelihoods(dtype, compiled, seconds)
    click.echo(f"written to {write_csv(name, rows + steps(seconds))}")


if __name__ == "__main__":
    main()
