"""What `catvae-infer` costs: `python -m benchmarks.infer` writes cold start, throughput, memory and int8 rows.

Cold start is a whole process, from its start to its exit, beside the same imports with one session and nothing else, and beside the
PyTorch way. Throughput is a folder of PNG files beside decoding them alone, on one thread, and running onnxruntime alone on what was
decoded: once files of the model's own size, where Python's bookkeeping outweighs the work, once of the size that cameras write. Processes
are compared with processes: decoding alone is read with and without its start. Everything is read in one run, rounds alternating, on an
otherwise idle machine; the median is given.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from PIL import Image

from catvae.core.images.data import load_data
from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import find_bundle
from catvae.runtime.images.decoder_process import DecoderProcess
from catvae.runtime.images.image_files import read_image

from .record import write_csv

LARGE = 512
"""Pixels a side."""
BIN = Path(sys.executable).parent
BARE = (
    "import numpy, PIL.Image, onnxruntime as o; s = o.SessionOptions(); s.intra_op_num_threads = 2;"
    "o.InferenceSession({graph!r}, s, providers=['CPUExecutionProvider'])"
)
DECODE = (
    "import sys, msgspec;"
    "from catvae.runtime.images.image_files import decode_all; from catvae.runtime.images.preprocess import Preprocess;"
    "rules = msgspec.json.decode(sys.argv[2], type=Preprocess); decode_all(open(sys.argv[1]).read().splitlines(), rules)"
)
"""Without numpy and the bundle, as the second process of `catvae-infer` does."""
TORCH = (
    "import numpy, PIL.Image, torch; from catvae.core.runs.folder import RunFolder; from catvae.core.runs.evaluation import assign;"
    "from catvae.runtime.images.image_files import read_image; f = RunFolder({run!r}); m = f.read_model();"
    "x = read_image({image!r}, f.read_record().data.preprocess); print(assign(m, x[None]).argmax())"
)


@click.command()
@click.argument("data", default="digits")
@click.option("--run", type=click.Path(path_type=Path), help="A finished run: adds the PyTorch way and int8 against fp32.")
@click.option("--rounds", default=15, show_default=True, help="Of everything that is timed; a third of them on large images.")
@click.option("--files", default=10_000, show_default=True)
@click.option("--most", default=100_000, show_default=True, help="Files of the memory row.")
def main(data: str, run: Path | None, rounds: int, files: int, most: int) -> None:
    """Measure on images of DATA with the packaged bundle."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = Bundle.load()
        paths = write_images(folder / "images", load_data(data).images, bundle, files)
        rows += cold_start(paths[0], run, rounds)
        rows += throughput(folder, paths, bundle, "x".join(map(str, bundle.preprocess.shape[:2])), rounds)
        large = write_images(folder / "large", load_data(data).images, bundle, files // 5, LARGE)
        rows += throughput(folder, large, bundle, f"{LARGE}x{LARGE}", -(-rounds // 3))
        rows += memory(folder, paths, most)
        if run is not None:
            rows += reduced(folder, run, paths, -(-rounds // 3))
    for row in rows:
        click.echo(f"{row['what']:<44}{row['value']:>12.4g} {row['unit']:<10}{row['note']}")
    write_csv("infer", rows)


def write_images(folder: Path, images: np.ndarray, bundle: Bundle, count: int, size: int | None = None) -> list[str]:
    """`count` grey PNG files, of the bundle's own size, or square ones with a camera's noise, which is what makes files large."""
    folder.mkdir()
    height, width = (size, size) if size else bundle.preprocess.shape[:2]
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        picture = Image.fromarray(images[i % len(images), :, :, 0])
        if picture.size != (width, height):
            picture = picture.resize((width, height))
        if size:
            picture = Image.fromarray(np.minimum(np.asarray(picture) + rng.integers(0, 12, (size, size)), 255).astype(np.uint8))
        path = folder / f"{i:06}.png"
        picture.save(path)
        paths.append(str(path))
    return paths


def cold_start(image: str, run: Path | None, rounds: int) -> list[dict[str, Any]]:
    graph = str(find_bundle() / "classifier.onnx")
    ways = {
        "numpy, Pillow, onnxruntime, one session": [sys.executable, "-c", BARE.format(graph=graph)],
        "catvae-infer image.png": [str(BIN / "catvae-infer"), image],
    }
    if run is not None:
        ways["the PyTorch way"] = [sys.executable, "-c", TORCH.format(run=str(run), image=image)]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    peaks = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for way, command in ways.items():
            took, peak = spent(command)
            seconds[way].append(took)
            peaks[way] = max(peaks[way], peak)
    base = next(iter(ways))
    rows = []
    for way in ways:
        took = statistics.median(seconds[way])
        rows.append(row(f"cold start: {way}", 1000 * took, "ms", f"{took / statistics.median(seconds[base]):.2f} x the bare session"))
        rows.append(row(f"cold memory: {way}", peaks[way] / 1e6, "MB", f"{peaks[way] / peaks[base]:.2f} x the bare session"))
    return rows


def throughput(folder: Path, paths: list[str], bundle: Bundle, size: str, rounds: int) -> list[dict[str, Any]]:
    decoding = len(paths) / statistics.median(
        _seconds(lambda: [read_image(path, bundle.preprocess) for path in paths]) for _ in range(rounds)
    )
    pixels = np.stack([read_image(path, bundle.preprocess) for path in paths])
    bundle.predict_proba(pixels[:64])
    running = len(paths) / statistics.median(_seconds(lambda: bundle.predict_proba(pixels)) for _ in range(rounds))
    (folder / "list").write_text("\n".join(paths))
    listed, rows = str(folder / "list"), str(folder / "rows.jsonl")
    rules = msgspec.json.encode(bundle.preprocess).decode()
    commands = [sys.executable, "-c", DECODE, listed, rules], [str(BIN / "catvae-infer"), "--files-from", listed, "-o", rows, "--quiet"]
    seconds = [[spent(command)[0] for command in commands] for _ in range(rounds)]
    alone, whole = (len(paths) / statistics.median(column) for column in zip(*seconds, strict=True))
    slower = min(alone, running)
    return [
        row(f"folder, {size}: decoding alone", decoding, "images/s", f"{len(paths):,} files, one thread"),
        row(f"folder, {size}: decoding alone, start included", alone, "images/s", "the same as a process of its own"),
        row(f"folder, {size}: onnxruntime alone", running, "images/s", "batch 64"),
        row(f"folder, {size}: catvae-infer, start included", whole, "images/s", f"{whole / slower:.2f} x the slower of the two above"),
    ]


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def memory(folder: Path, paths: list[str], most: int) -> list[dict[str, Any]]:
    rows = []
    for count in (1_000, most):
        listed = [paths[i % len(paths)] for i in range(count)]
        (folder / "list").write_text("\n".join(listed))
        _, peak = spent([str(BIN / "catvae-infer"), "--files-from", str(folder / "list"), "-o", str(folder / "rows.jsonl"), "--quiet"])
        rows.append(row(f"memory: {count:,} files", peak / 1e6, "MB", ""))
    return [*rows, row("memory: the second process, beside it", second_process(paths) / 1e6, "MB", "tiny images alone, long streams alone")]


def second_process(paths: list[str]) -> float:
    """Peak bytes of the process that helps to decode."""
    helper, rules = DecoderProcess(), Bundle.load().preprocess
    while not helper.has_room():
        time.sleep(0.01)
    for start in range(0, min(len(paths), 6400), 64):
        helper.ask(paths[start : start + 64], rules)
        helper.answer()
    status = Path(f"/proc/{helper.pid}/status").read_text()
    helper.close()
    return float(status.split("VmHWM:")[1].split()[0]) * 1024


def reduced(folder: Path, run: Path, paths: list[str], rounds: int) -> list[dict[str, Any]]:
    bundles: dict[str, Bundle] = {}
    for option, name in ((None, "fp32"), ("--int8", "int8"), ("--fp16", "fp16")):
        target = folder / name
        arguments = [str(BIN / "catvae-export"), "--onnx", str(run), "-o", str(target), "-q", *([option] if option else [])]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        bundles[name] = Bundle.load(target, threads=1)
    pixels = np.stack([read_image(path, bundles["fp32"].preprocess) for path in paths])
    clusters = {name: bundle.predict_proba(pixels).argmax(1) for name, bundle in bundles.items()}
    seconds: dict[str, list[float]] = {name: [] for name in bundles}
    for _ in range(rounds):
        for name, bundle in bundles.items():
            seconds[name].append(_seconds(lambda bundle=bundle: bundle.predict_proba(pixels)))
    rows = []
    for name, bundle in bundles.items():
        size = sum(record.size for record in bundle.manifest.graphs.values())
        note = f"{size / 1e6:.2f} MB, {np.mean(clusters[name] == clusters['fp32']):.2%} in the cluster of fp32, one thread"
        rows.append(row(f"precision: {name}", len(paths) / statistics.median(seconds[name]), "images/s", note))
    return rows


def spent(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak bytes of a process, compiled modules allowed, as pip leaves them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = (
        "import json, resource, subprocess, sys, time; t = time.perf_counter();"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(json.dumps([time.perf_counter() - t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]))"
    )
    result = subprocess.run([sys.executable, "-S", "-c", code, *command], check=True, capture_output=True, text=True, env=environment)
    took, peak = json.loads(result.stdout)
    return took, peak


def row(what: str, value: float, unit: str, note: str) -> dict[str, Any]:
    return {"what": what, "value": round(value, 4), "unit": unit, "note": note}


if __name__ == "__main__":
    main()
