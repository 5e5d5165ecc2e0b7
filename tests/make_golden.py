"""Rewrites what `tests/runtime/golden` holds: `python -m tests.make_golden`. Needs the training side; the tests that read it do not.

``images``: a file of every kind that the decode policy knows, and in `expected.json` what became of each; the tensors are in `tensors.npz`.
``bundles``: one small model of scikit-learn's digits in every precision, a few PNG files, and the rows that they gave here. The oldest
supported onnxruntime and Pillow must give the same.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from catvae.runtime.bundles.bundle import Bundle
from catvae.runtime.errors import ImageError
from catvae.runtime.images.image_files import decode_image

from .runtime.test_golden import GOLDEN, RULES

UNDECIDED = 0.2
"""Files with two best clusters closer than this are left out: one half moves by 0.07 where 8-bit steps are rounded otherwise."""
BUNDLES = {"fp32": (), "fp16": ("--fp16",), "int8": ("--int8",)}


def pictures() -> dict[str, bytes]:
    """File name -> content."""
    y, x = np.mgrid[:21, :34]
    ramp = (x * 7.7).astype(np.uint8)
    shapes = np.where((x - 20) ** 2 + (y - 9) ** 2 < 40, 230, 25).astype(np.uint8)
    rgb = Image.fromarray(np.stack([ramp, shapes, 255 - ramp], -1))
    grey, soft = Image.fromarray(shapes), Image.fromarray(ramp)
    clear = rgb.copy()
    clear.putalpha(soft)
    grey_clear = grey.copy()
    grey_clear.putalpha(soft)
    deep = Image.fromarray((x * 1985).astype(np.uint16))
    few = rgb.quantize(16)
    turned = Image.Exif()
    turned[0x0112] = 6
    several = {"save_all": True, "append_images": [grey.transpose(Image.Transpose.ROTATE_180), soft]}
    made = [
        ("grey.png", grey, {}), ("colour.png", rgb, {}), ("alpha.png", clear, {}), ("grey-alpha.png", grey_clear, {}),
        ("palette.png", few, {}), ("palette-transparent.png", few, {"transparency": 3}), ("bilevel.png", grey.convert("1"), {}),
        ("sixteen-bit.png", deep, {}), ("one-pixel.png", Image.new("L", (1, 1), 140), {}), ("strip.png", soft.resize((200, 3)), {}),
        ("grey.jpg", grey, {"quality": 95}), ("colour.jpg", rgb, {"quality": 95, "progressive": True}),
        ("turned.jpg", rgb, {"quality": 95, "exif": turned}), ("cmyk.jpg", rgb.convert("CMYK"), {"quality": 95}),
        ("lossy.webp", rgb, {"quality": 95}), ("lossless.webp", clear, {"lossless": True}), ("colour.bmp", rgb, {}),
        ("palette.gif", few, {}), ("animated.gif", grey, several), ("animated.png", grey, several),
        ("colour.tif", rgb, {}), ("turned.tif", rgb, {"exif": turned}),
        ("deflate.tif", rgb, {"compression": "tiff_deflate"}), ("sixteen-bit.tif", deep, {}),
        ("fax.tif", grey.convert("1"), {"compression": "group4"}), ("pages.tif", grey, several),
        ("float.tif", Image.fromarray((x / 34).astype(np.float32)), {}),
    ]  # fmt: skip
    formats = {"jpg": "JPEG", "tif": "TIFF"}
    files = {}
    for name, image, options in made:
        stream, suffix = io.BytesIO(), name.rpartition(".")[2]
        image.save(stream, formats.get(suffix, suffix.upper()), **options)
        files[name] = stream.getvalue()
    files["cut.png"] = files["colour.png"][: len(files["colour.png"]) // 2]
    files["text.png"] = b"no image at all\n"
    files["empty.png"] = b""
    return files


def write_images(folder: Path) -> None:
    """Files, and what they become under each of `RULES`."""
    expected: dict[str, dict[str, object]] = {}
    tensors: dict[str, np.ndarray] = {}
    for name, content in pictures().items():
        (folder / name).write_bytes(content)
        try:
            for rules_name, rules in RULES.items():
                decoded = decode_image(folder / name, rules)
                (tensors[f"{name}/{rules_name}"],) = rules.as_images(decoded.pixels)
                expected[name] = {"frames": decoded.frames}
        except ImageError as error:
            expected[name] = {"error": error.code}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / "tensors.npz", **tensors)  # pyright: ignore[reportArgumentType]


def write_bundles(folder: Path) -> None:
    """A trained model in three precisions, files, and rows."""
    digits = load_digits().images
    (folder / "files").mkdir()
    for i in range(0, 40):
        image = Image.fromarray(np.round(digits[i] / 16 * 255).astype(np.uint8))
        side = (8, 24, 50)[i % 3]
        image.resize((side, side + i % 2), Image.Resampling.BICUBIC).convert(("L", "RGB", "RGBA", "P")[i % 4]).save(
            folder / "files" / f"{i:02}.png"
        )
    with tempfile.TemporaryDirectory() as temporary:
        settings = Path(temporary) / "settings.json"
        settings.write_text('{"hidden": 64}')  # narrower ones are degenerate, and 8-bit steps stand out in them
        run = Path(temporary) / "run"
        command("catvae-train", "digits", "--config", settings, "-q", "-o", run)
        for precision, options in BUNDLES.items():
            command("catvae-export", "--onnx", run, *options, "-o", folder / precision)
            (folder / precision / "preview.png").unlink()  # for people alone
    whole = Bundle.load(folder / "fp32")
    for path in sorted((folder / "files").iterdir()):
        second, best = np.sort(whole.predict_proba(whole.read(path)[None])[0])[-2:]
        if best - second < UNDECIDED:
            path.unlink()
    rows = {}
    for precision in BUNDLES:
        bundle = Bundle.load(folder / precision)
        images = np.stack([bundle.read(path) for path in sorted((folder / "files").iterdir())])
        rows[precision] = bundle.predict_proba(images)
    np.savez_compressed(folder / "assignments.npz", **rows)


def command(name: str, *arguments: object) -> None:
    """Run one of our commands."""
    subprocess.run([str(Path(sys.executable).parent / name), *map(str, arguments)], check=True)


if __name__ == "__main__":
    for part, write in (("images", write_images), ("bundles", write_bundles)):
        shutil.rmtree(GOLDEN / part, ignore_errors=True)
        (GOLDEN / part).mkdir(parents=True)
        write(GOLDEN / part)
    print(f"{GOLDEN}: {sum(path.stat().st_size for path in GOLDEN.rglob('*') if path.is_file()) / 1e3:.0f} kB")
