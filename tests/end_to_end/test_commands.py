"""Train, export, sort, draw: the whole path in subprocesses, and every mistake a user can make at its start."""

import gzip
import json
import signal
import struct
import subprocess
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from .conftest import BIN, command

QUICK = ("--epochs", "3", "--precision", "fp32", "-q")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a trained run, its bundle and a few images."""
    folder = tmp_path_factory.mktemp("work")
    result = command("catvae-train", "digits", *QUICK, "-o", "run", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "ACC" in result.stdout
    result = command("catvae-export", "--onnx", "run", "-o", "bundle", cwd=folder)
    assert result.returncode == 0, result.stderr
    digits = load_digits()
    for i in range(12):
        Image.fromarray(np.round(digits.images[i] * (255 / 16)).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_run_folder_holds_what_it_should(work):
    run = work / "run"
    assert {p.name for p in run.iterdir()} == {
        "config.json", "run.json", "metrics.csv", "model.safetensors", "state.safetensors", "state.json", "samples", "report.html",
        "calibration.safetensors",
    }  # fmt: skip
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert set(record["scores"]["train"]) == {"acc", "nmi", "ari", "ece"}
    assert record["verdict"]["status"] in ("healthy", "degenerate")
    assert record["bound"]["nll"] > 0
    assert 0 <= record["health"]["drawn_return"] <= 1
    assert {"view_information", "view_agreement", "separation", "perplexity"} <= set(record["health"])
    lines = (run / "metrics.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,total,reconstruction,kl,neg_entropy,information")
    assert len(lines) == 4
    for name in ("final", "clusters", "reconstructions"):
        with Image.open(run / "samples" / f"{name}.png") as image:
            assert image.width > 200


def test_the_bundle_sorts_and_draws(work):
    result = command("catvae-infer", "-b", "bundle", *[f"{i}.png" for i in range(12)], cwd=work)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, result.stderr
    assert [row["path"] for row in rows] == [f"{i}.png" for i in range(12)]
    assert command("catvae-generate", "-b", "bundle", cwd=work).returncode == 0
    assert (work / "generated.png").stat().st_size > 1000


def test_a_page_that_may_not_be_written_is_refused_before_the_export(work, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    result = command(
        "catvae-export", "--onnx", work / "run", "-o", tmp_path / "bundle", "--web", tmp_path / "site", "--overwrite", cwd=tmp_path
    )
    assert (result.returncode, "site is not empty" in result.stderr) == (2, True)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("program", ["catvae-infer", "catvae-generate"])
def test_a_name_too_long_for_a_file_is_no_traceback(program, tmp_path):
    result = command(program, "-b", "x" * 300, *(["x.png"] if program == "catvae-infer" else []), cwd=tmp_path)
    assert result.returncode == 3
    assert "File name too long" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_defaults_sort_digits(tmp_path):
    """The promise of the demo: at least 0.80 with nothing but the defaults (over seeds: benchmarks/results/quality-digits.csv)."""
    result = command("catvae-train", "-q", cwd=tmp_path, timeout=900)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "runs" / "digits" / "run.json").read_text())
    assert record["scores"]["train"]["acc"] >= 0.80
    assert len(record["start_scores"]) == 3


def test_several_seeds_for_one_result_with_k_chosen_and_names_given(work, tmp_path):
    """--seeds, -k auto and --labels in one run; the bundle carries the names."""
    digits = load_digits()
    with (tmp_path / "given.csv").open("w") as file:
        for digit in (3, 7):
            Image.fromarray(np.round(digits.images[digit] * (255 / 16)).astype(np.uint8)).save(tmp_path / f"{digit}.png")
            file.write(f"{digit}.png,digit {digit}\n")
    arguments = ("digits", *QUICK, "-k", "auto", "--max-clusters", "6", "--seeds", "2", "--labels", "given.csv", "-o", "run")
    result = command("catvae-train", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("<- kept") == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [run["seed"] for run in record["seeds"]] == [0, 1]
    assert 1 <= record["spec"]["clusters"] <= 6
    assert "K = " in record["events"][0]["what"]
    assert {"digit 3", "digit 7"} & {cluster["name"] for cluster in record["clusters"]}
    assert (tmp_path / "run" / "seeds" / "1" / "model.safetensors").is_file()
    refused = command("catvae-train", "--resume", "run", "--seeds", "3", cwd=tmp_path)
    assert (refused.returncode, "leave out --seeds" in refused.stderr) == (2, True)
    refused = command("catvae-train", "--resume", "run", "--overwrite", cwd=tmp_path)
    assert (refused.returncode, "leave out --overwrite" in refused.stderr) == (2, True)
    before = sorted(tmp_path.rglob("run/**/*"))
    for wrong in (("-k", "2000"), ("--seed", str(2**31 - 1))):
        refused = command("catvae-train", "digits", *wrong, "--seeds", "2", "--overwrite", "-o", "run", cwd=tmp_path)
        assert refused.returncode == 2, refused.stderr
    assert sorted(tmp_path.rglob("run/**/*")) == before  # what cannot be trained costs nothing


def test_an_interrupted_run_resumes_to_the_same_weights(work, tmp_path):
    process = subprocess.Popen(
        [str(BIN / "catvae-train"), "digits", "--epochs", "40", "--precision", "fp32", "-q", "-o", "cut"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "catvae-train --resume cut" in errors
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["status"] == "interrupted"
    assert command("catvae-export", "--onnx", "cut", cwd=tmp_path).returncode == 3
    assert command("catvae-train", "--resume", "cut", "--seed", "3", cwd=tmp_path).returncode == 2
    resumed = command("catvae-train", "--resume", "cut", "-q", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    again = command("catvae-train", "--resume", "cut", cwd=tmp_path)  # a loop that retries until it succeeds must end
    assert (again.returncode, "is finished: nothing to resume" in again.stderr) == (0, True)
    whole = command("catvae-train", "digits", "--epochs", "40", "--precision", "fp32", "-q", "-o", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Data sets, good and bad."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "empty").mkdir()
    (folder / "idx").mkdir()
    whole = gzip.compress(idx(np.zeros((20, 8, 8), np.uint8)))
    (folder / "idx" / "train-images-idx3-ubyte.gz").write_bytes(whole[: len(whole) // 2])
    rng = np.random.default_rng(0)
    for kind, size in (("ants", (12, 9)), ("bees", (20, 20))):
        (folder / "mixed" / kind).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "mixed" / kind / f"{i}.png")
    (folder / "odd.json").write_text('{"recipe": ["paper"]}')
    return folder


def test_a_folder_of_mixed_sizes_trains_and_exports(sources, tmp_path):
    result = command(
        "catvae-train",
        sources / "mixed",
        "-k",
        "2",
        "--epochs",
        "2",
        "--batch-size",
        "8",
        "--precision",
        "fp32",
        "-o",
        "run",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "2 sizes: each was stretched to 20 x 20 pixels" in result.stderr
    assert command("catvae-export", "--onnx", "run", cwd=tmp_path).returncode == 0
    rows = command("catvae-infer", "-b", "run/bundle", sources / "mixed" / "ants", cwd=tmp_path)
    assert len(rows.stdout.splitlines()) == 12
    # Two epochs may follow the classes, and are named after them, or not.
    assert {json.loads(line)["name"] for line in rows.stdout.splitlines()} <= {"ants", "bees", "cluster 0", "cluster 1"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("digits", "--recipe", "robst"), 2, "did you mean 'robust'?"),
        (("digits", "--clusters", "2000"), 2, "--clusters is 2000, expected 1 to 1000"),
        (("{sources}/mixed", "-k", "900"), 2, "--clusters is 900, but only 24 images are trained on"),
        (("missing", "--image-size", "9"), 3, "no data at missing: no such file or folder"),
        (("digits", "-o", "runs/\udcff"), 2, "the path 'runs/\\xff' is not UTF-8 text"),
        (("digits", "-k", "0"), 2, "'0' is not a number of clusters"),
        (("digits", "-k", "ten"), 2, "ten"),
        (("digits", "--epoch", "3"), 2, "--epoch"),
        (("digits", "--max-clusters", "3"), 2, "--max-clusters belongs to -k auto"),
        (("digits", "--image-size", "9"), 2, "--image-size is for a folder of images"),
        (("digits", "--label-weight", "1"), 2, "--label-weight needs --labels"),
        (("digits", "--config", "{sources}/odd.json"), 2, "recipe"),
        (("digits", "--legacy"), 2, "--legacy belongs to --recipe paper"),
        (("digits", "--device", "cuda"), 4, "no CUDA device"),
        (("digits", "--config", "none.json"), 3, "cannot read the configuration"),
        (("digits", "-o", "/proc/run"), 5, "cannot write into"),
        (("digit",), 3, "did you mean 'digits'"),
        (("nowhere",), 3, "no such file or folder"),
        (("{sources}/empty",), 3, "holds no images"),
        (("{sources}/idx",), 3, "cannot read"),
        (("--resume", "nowhere"), 3, "not a run folder"),
        (("digits", "-o", "{sources}"), 2, "not empty"),
        (("digits", "-o", "{sources}", "--overwrite"), 2, "only replaces runs"),
    ],
)
def test_one_line_and_an_exit_code(sources, tmp_path, arguments, code, message):
    result = command("catvae-train", "-q", *[a.format(sources=sources) for a in arguments], cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--onnx", "nowhere"), 3, "nowhere is not a run folder: no such folder"),
        (("--onnx", "."), 3, "not a run folder: it has no run.json"),
        ((), 2, "--onnx"),
        (("--onnx", "x", "--int9"), 2, "--int9"),
        (("runs/mine",), 2, "A run is named by --onnx runs/mine"),
    ],
)
def test_export_mistakes(tmp_path, arguments, code, message):
    result = command("catvae-export", "-q", *arguments, cwd=tmp_path)
    assert result.returncode == code
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    ["catvae-train", "catvae-export", "catvae-infer", "catvae-generate", "catvae-label", "catvae-report", "catvae-doctor"],
)
def test_help_answers_without_heavy_imports(name, tmp_path):
    result = command(name, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: {name}")
    timed = command(name, "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rsplit("|", 1)[-1].strip() for line in timed.stderr.splitlines()}
    assert not imported & {"torch", "onnx", "onnxruntime", "sklearn", "scipy"}
    assert command(name, "--version", cwd=tmp_path).stdout.strip().startswith(name)


def test_folders_that_are_no_classes(tmp_path):
    """Days or cameras: nothing is scored or named by them, and a resumed run remembers."""
    rng = np.random.default_rng(0)
    for i in range(24):
        (tmp_path / "pile" / f"day {i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "pile" / f"day {i % 2}" / f"{i}.png")
    quick = ("-k", "2", "--epochs", "2", "--augment", "none", "--precision", "fp32")
    with_classes = command("catvae-train", "pile", *quick, "-o", "a", cwd=tmp_path)
    without = command("catvae-train", "pile", *quick, "-o", "b", "--no-labels", cwd=tmp_path)
    assert ("ACC" in with_classes.stdout, "ACC" in without.stdout) == (True, False), with_classes.stderr + without.stderr
    assert "drawings " in without.stdout
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert (record["origin"]["classes"], [cluster["name"] for cluster in record["clusters"]]) == (False, ["0", "1"])
    (tmp_path / "b" / "report.html").unlink()  # finished once more, from what the run remembers
    again = command("catvae-train", "--resume", "b", cwd=tmp_path)
    assert (again.returncode, "ACC" in again.stdout) == (0, False), again.stderr
    refused = command("catvae-train", "--resume", "b", "--no-labels", cwd=tmp_path)
    assert refused.returncode == 2
    assert "leave out --no-labels" in refused.stderr
