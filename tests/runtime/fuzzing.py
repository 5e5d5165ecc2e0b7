"""Damaged images and bundles, made from a seed, and what may become of them: an answer or a named failure, in bounded time and memory.

    python -m tests.runtime.fuzzing --images 10000 --bundles 1000

runs more of them than the test-suite does and prints what came out.
"""

import hashlib
import io
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.bundles.bundle_files import PRETRAINED
from catvae.runtime.bundles.drift import Tally
from catvae.runtime.bundles.manifest_seal import sealed
from catvae.runtime.bundles.model_card import model_card
from catvae.runtime.errors import CatVAEError, DataError, ImageError
from catvae.runtime.images.image_files import read_image
from catvae.runtime.images.preprocess import Preprocess

SLOWEST = 5.0
"""Seconds of processor time that one item may take, whatever else the machine does."""
MOST_MEMORY = 500e6
"""Bytes the whole process may reach."""
IMAGE_CODES = {"not_an_image", "corrupt_image", "truncated_image", "too_many_pixels", "too_large", "unsupported_mode"}
RULES = Preprocess(height=28, width=28, channels=1)


def seed_images() -> list[bytes]:
    """A file of every format and of the modes that are handled apart."""
    rng = np.random.default_rng(5)
    grey = Image.fromarray(rng.integers(0, 256, (37, 23), dtype=np.uint8))
    colour = Image.fromarray(rng.integers(0, 256, (31, 44, 3), dtype=np.uint8))
    alpha = Image.fromarray(rng.integers(0, 256, (16, 16, 4), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (20, 20)).astype(np.uint16))
    frames = [grey.resize((12, 12)), grey.resize((12, 12)).rotate(90)]
    variants: list[tuple[Image.Image, dict]] = [
        (grey, {"format": "PNG"}), (colour, {"format": "PNG"}), (alpha, {"format": "PNG"}), (deep, {"format": "PNG"}),
        (grey, {"format": "JPEG"}), (colour, {"format": "JPEG", "progressive": True}), (colour.convert("CMYK"), {"format": "JPEG"}),
        (colour, {"format": "WEBP"}), (alpha, {"format": "WEBP", "lossless": True}), (colour, {"format": "BMP"}),
        (colour.quantize(16), {"format": "GIF"}), (frames[0], {"format": "GIF", "save_all": True, "append_images": frames[1:]}),
        (colour, {"format": "TIFF"}), (deep, {"format": "TIFF"}), (colour, {"format": "TIFF", "compression": "tiff_deflate"}),
        (grey.convert("1"), {"format": "TIFF", "compression": "group4"}),
    ]  # fmt: skip
    files = []
    for image, options in variants:
        stream = io.BytesIO()
        image.save(stream, **options)
        files.append(stream.getvalue())
    return files


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, overwrite, cut, double or splice bytes; fields of headers are hit more often than pixels."""
    mutated = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not mutated:
            break
        at = int(rng.integers(0, min(len(mutated), 64 if rng.random() < 0.5 else len(mutated))))
        kind = rng.integers(0, 6)
        if kind == 0:
            mutated[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            mutated[at : at + 4] = int(rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000])).to_bytes(4, rng.choice(["big", "little"]))
        elif kind == 2:
            del mutated[at:]
        elif kind == 3:
            del mutated[at : at + int(rng.integers(1, 32))]
        elif kind == 4:
            mutated[at:at] = mutated[at : at + int(rng.integers(1, 64))]
        else:
            mutated[at : at + 8] = rng.bytes(8)
    return bytes(mutated)


NUMBERS = [-1, 0, 1, 0.5, 7, 2**31, 2**64, 1e308, -1e-308, float("nan")]
VALUES = [None, True, *NUMBERS, "", "x", "\0", "../x", "9" * 400, [], {}, [None], {"a": 1}]


def replace_value(data: bytes, rng: np.random.Generator) -> bytes:
    """A JSON document with one value somewhere inside replaced by one of `VALUES`, or taken away."""
    document = json.loads(data)
    places: list[tuple[dict | list, str | int]] = []

    def visit(value: object) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            places.append((value, key))  # pyright: ignore[reportArgumentType]
            visit(inner)

    visit(document)
    holder, key = places[rng.integers(0, len(places))]
    if rng.random() < 0.15:
        del holder[key]  # pyright: ignore[reportArgumentType, reportCallIssue]
    else:
        holder[key] = VALUES[rng.integers(0, len(VALUES))]  # pyright: ignore[reportArgumentType, reportCallIssue]
    return json.dumps(document).encode()


def fuzz_images(count: int, seed: int = 0) -> Iterator[str]:
    """What each mutated file came to: ``image``, or a code of `ImageError`; anything else raises."""
    rng, files = np.random.default_rng(seed), seed_images()
    for _ in range(count):
        data = mutate(files[rng.integers(0, len(files))], rng)
        try:
            with limit():
                assert read_image(data, RULES).shape == RULES.shape
            yield "image"
        except ImageError as error:
            assert error.code in IMAGE_CODES, error.code
            yield error.code


def fuzz_bundles(count: int, folder: Path, seed: int = 0) -> Iterator[str]:
    """What loading and asking each mutated bundle came to: ``answers`` (nothing that is read was hit) or ``refused``.

    Some mutations carry fresh hashes, as someone who edits a bundle would write them: then the graphs themselves are what is tried.
    """
    rng = np.random.default_rng(seed)
    source = PRETRAINED / "digits"
    names = ["manifest.json", "classifier.onnx", "encoder.onnx", "decoder.onnx", "golden.npz"]
    image = np.zeros((1, *Bundle.load(source).preprocess.shape), np.uint8)
    for i in range(count):
        bundle = folder / str(i)
        shutil.copytree(source, bundle)
        name = str(rng.choice(names))
        if name == "manifest.json" and rng.random() < 0.7:
            (bundle / name).write_bytes(replace_value((bundle / name).read_bytes(), rng))
        else:
            (bundle / name).write_bytes(mutate((bundle / name).read_bytes(), rng))
        if name.endswith(".onnx") and rng.random() < 0.5:
            rewrite_hash(bundle, name)
        try:
            with limit():
                loaded = Bundle.load(bundle)
                loaded.predict_proba(image)
                loaded.transform(image)
                loaded.decode(loaded.means[:1])
                loaded.examine(image, score=True)
                loaded.training()
                model_card(loaded.manifest)
                Tally(loaded.manifest).summary()
            yield "answers"
        except CatVAEError as error:
            assert error.exit_code == DataError.exit_code, error
            yield "refused"
        finally:
            shutil.rmtree(bundle)


def model_id(manifest: dict) -> str:
    """What names a model: the hash over its graphs' hashes. Whoever forges a graph forges this too."""
    return hashlib.sha256("".join(manifest["graphs"][role]["sha256"] for role in sorted(manifest["graphs"])).encode()).hexdigest()


def rewrite_hash(bundle: Path, name: str) -> None:
    """Make the manifest name the file that is there."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    data = (bundle / name).read_bytes()
    manifest["graphs"][name.removesuffix(".onnx")] |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    manifest["model_id"] = model_id(manifest)
    (bundle / "manifest.json").write_bytes(sealed(manifest))


class limit:
    """Fails when the block computes for longer than `SLOWEST`."""

    def __enter__(self) -> None:
        self.began = time.process_time()

    def __exit__(self, *_: object) -> None:
        assert time.process_time() - self.began < SLOWEST


def peak_memory() -> float:
    """Bytes this process has reached; getrusage would also count what its parent had before the program was started."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024.0


@click.command()
@click.option("--images", default=10_000, show_default=True)
@click.option("--bundles", default=1_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(images: int, bundles: int, seed: int) -> None:
    """Fuzz with other seeds than the test-suite, and print what came out."""
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[tuple[str, Callable[[], Iterator[str]]]] = [
            ("images", lambda: fuzz_images(images, seed)),
            ("bundles", lambda: fuzz_bundles(bundles, Path(folder), seed)),
        ]
        for name, job in jobs:
            began = time.monotonic()
            found = Counter(job())
            click.echo(f"{name}: {dict(found.most_common())} in {time.monotonic() - began:.0f} s")
    click.echo(f"peak memory {peak_memory() / 1e6:.0f} MB")
    assert peak_memory() < MOST_MEMORY


if __name__ == "__main__":
    main()
