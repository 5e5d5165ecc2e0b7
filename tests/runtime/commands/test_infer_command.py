"""`catvae-infer` as people and scripts call it: rows, order, errors, exit codes, all in real processes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from catvae.runtime.commands import infer, infer_command


def rows(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


NOTICE = b"catvae-infer: no -b given: sorting with the digits that come with the package\n"


def test_one_image_with_no_options(run, png):
    png("image.png")
    result = run("catvae-infer", "image.png")
    assert result.returncode == 0, result.stderr
    (row,) = rows(result)
    assert row["path"] == "image.png"
    assert row["ok"] is True
    assert row["provider"] == "cpu"
    assert row["cluster"] == int(np.argmax(row["assignment"]))
    assert row["confidence"] == max(row["assignment"])
    assert abs(sum(row["assignment"]) - 1) < 1e-5
    assert result.stderr == NOTICE


def test_folders_patterns_and_order(run, png):
    for name in ("d/b.png", "d/a.png", "d/sub/c.png", "d/.hidden.png", "z.png"):
        png(name)
    Path(png("d/notes.png").parent / "notes.txt").write_text("not listed")
    result = run("catvae-infer", "z.png", "d", "d/*.png", "--batch-size", 2)
    assert [row["path"] for row in rows(result)] == [
        "z.png", "d/a.png", "d/b.png", "d/notes.png", "d/sub/c.png", "d/a.png", "d/b.png", "d/notes.png",
    ]  # fmt: skip


def test_bad_files_become_rows_and_exit_code_1(run, png, tmp_path):
    png("good.png", 40)
    clean = rows(run("catvae-infer", "good.png"))
    (tmp_path / "text.png").write_text("this is text")
    (tmp_path / "empty.png").write_bytes(b"")
    result = run("catvae-infer", "text.png", "good.png", "nope.png", "empty.png")
    assert result.returncode == 1
    found = rows(result)
    assert [row["ok"] for row in found] == [False, True, False, False]
    assert [row["error"]["code"] for row in found if not row["ok"]] == ["not_an_image", "missing", "not_an_image"]
    assert found[1] == clean[0]
    assert result.stderr == NOTICE + b"catvae-infer: 3 of 4 images could not be read\n"


def test_rows_do_not_depend_on_batch_size_threads_or_order(run, png):
    noise = np.random.default_rng(3)
    names = [png(f"{i}.png", noise.integers(0, 256, (28, 28), dtype=np.uint8)).name for i in range(7)]
    first = rows(run("catvae-infer", *names, "--batch-size", 1, "--threads", 1))
    second = rows(run("catvae-infer", *reversed(names), "--batch-size", 4, "--threads", 2))
    assert first == second[::-1]


def test_standard_input_and_lists(run, png):
    path = png("one.png", 17)
    expected = rows(run("catvae-infer", "one.png"))[0]
    piped = rows(run("catvae-infer", "-", stdin=path.read_bytes()))[0]
    assert {**piped, "path": "one.png"} == expected
    listed = run("catvae-infer", "--files-from", "-", stdin=b"one.png\n\none.png\n")
    assert rows(listed) == [expected, expected]
    assert run("catvae-infer", "-", stdin=b"").returncode == 1


def test_names_that_are_no_text(run, png):
    odd = [os.fsdecode(b"caf\xe9.png"), "new\nline.png", '"quoted".png', "-dash.png"]
    for name in odd:
        png(name)
    result = run("catvae-infer", "--", *odd)
    assert result.returncode == 0
    assert [row["path"] for row in rows(result)] == odd
    table = run("catvae-infer", "--format", "table", "--", *odd).stdout.decode()
    assert len(table.splitlines()) == 1 + len(odd)


def test_csv_table_and_output_file(run, png, tmp_path):
    png("a.png")
    as_csv = list(csv.DictReader(io.StringIO(run("catvae-infer", "a.png", "none.png", "--format", "csv").stdout.decode())))
    assert [row["ok"] for row in as_csv] == ["true", "false"]
    assert as_csv[1]["error"].startswith("missing")
    table = run("catvae-infer", "a.png", "--format", "table").stdout.decode()
    assert table.splitlines()[0].split() == ["image", "cluster", "name", "confidence"]
    assert run("catvae-infer", "a.png", "-o", "out/rows.jsonl").stdout == b""
    assert json.loads((tmp_path / "out" / "rows.jsonl").read_text())["ok"]
    assert json.loads(run("catvae-infer", "a.png", "--embed").stdout)["embedding"].__len__() == 40


def test_invert_changes_what_the_model_sees(run, png):
    png("a.png", 255 - 17)
    png("b.png", 17)
    assert rows(run("catvae-infer", "a.png", "--invert"))[0]["assignment"] == rows(run("catvae-infer", "b.png"))[0]["assignment"]


def test_an_empty_folder_is_no_failure(run, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("catvae-infer", "empty")
    assert (result.returncode, result.stdout) == (0, b"")
    assert b"no images found" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "no image given"),
        (("a.png", "--format", "jsonlines"), 2, "did you mean 'jsonl'?"),
        (("a.png", "--device", "gpu"), 2, "'gpu' is not one of auto, cpu, cuda"),
        (("a.png", "--nonsense"), 2, "--nonsense"),
        (("a.png", "--batch-size", "0"), 2, "--batch-size"),
        (("a.png", "--embed", "--format", "csv"), 2, "--embed needs --format jsonl"),
        (("-", "--files-from", "-"), 2, "standard input"),
        (("a.png", "--self-test"), 2, "--self-test replays the images in the bundle itself"),
        (("--self-test", "-o", "rows.jsonl"), 2, "--self-test replays"),
        (("--self-test", "--batch-size", "3"), 2, "leave out --batch-size"),
        (("a.png", "-b", "nowhere"), 3, "no such folder"),
        (("a.png", "-b", "."), 3, "manifest.json is missing"),
        (("--files-from", "nowhere.txt"), 3, "cannot read the list"),
        (("a.png", ""), 2, "an image's path is empty"),
        (("-o", "a.png", "b.png"), 2, "the name of an image, which the rows would replace"),
        (("a.png", "-o", "/dev/null"), 5, "not a regular file"),
        (("a.png", "-o", "a.png/rows"), 5, "a.png"),
    ],
)
def test_one_line_and_an_exit_code(run, png, arguments, code, message):
    png("a.png")
    result = run("catvae-infer", *arguments)
    assert result.returncode == code, result.stderr
    assert message in result.stderr.decode()
    assert len(result.stderr.removeprefix(NOTICE).splitlines()) == 1
    assert result.stdout == b""


def test_quiet_is_silent_but_for_drift(run, png):
    for i in range(60):
        png(f"d/{i}.png")
    loud, quiet = run("catvae-infer", "d"), run("catvae-infer", "d", "-q")
    assert quiet.stdout == loud.stdout
    assert len(loud.stderr.splitlines()) > 1
    (line,) = quiet.stderr.decode().splitlines()
    assert "away from training" in line
    assert run("catvae-infer", "d/1.png", "-q").stderr == b""


def test_bundle_from_the_environment(run, png):
    png("a.png")
    assert run("catvae-infer", "a.png", env={"CATVAE_BUNDLE": "nowhere"}).returncode == 3


def test_a_reader_that_goes_away(png, tmp_path):
    png("a.png")
    infer = Path(sys.executable).parent / "catvae-infer"
    command = f"yes a.png | head -n 3000 | '{infer}' --files-from - --batch-size 8 | head -n 1; echo ${{PIPESTATUS[2]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, cwd=tmp_path, timeout=120)
    assert result.stdout.splitlines()[-1] == b"141"
    assert result.stderr == NOTICE


@pytest.mark.parametrize(("number", "what"), [(signal.SIGINT, b"interrupted"), (signal.SIGTERM, b"terminated")])
def test_interrupted_between_rows(png, tmp_path, number, what):
    png("a.png")
    infer = Path(sys.executable).parent / "catvae-infer"
    process = subprocess.Popen(
        [str(infer), "--files-from", "-", "--batch-size", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        bufsize=0,  # what a buffered reader had read ahead would be lost to communicate
    )
    process.stdin.write(b"a.png\n" * 500)
    first = process.stdout.read(1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    output = first + output
    assert process.returncode == 128 + number
    assert errors == NOTICE + b"catvae-infer: " + what + b"\n"
    assert output.endswith(b"\n")
    assert all(json.loads(line)["ok"] for line in output.splitlines())


def test_a_part_that_an_unset_variable_names_is_no_part(run, png):
    png("a.png")
    result = run("catvae-infer", "a.png", "--shard", "")
    assert (result.returncode, b"expected i/n" in result.stderr) == (2, True)


def test_pictures_of_runs_and_bundles_are_not_sorted(run, png, tmp_path):
    for name in ("a.png", "run/samples/final.png", "bundle/preview.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        png(name)
    for name in ("run/run.json", "run/config.json", "bundle/manifest.json", "bundle/classifier.onnx"):
        (tmp_path / name).write_text("{}")
    result = run("catvae-infer", ".")
    assert [row["path"] for row in rows(result)] == ["./a.png"]
    assert b"left out ./run: it is a run folder" in result.stderr
    assert b"left out ./bundle: it is a bundle" in result.stderr


def test_a_long_call_says_how_far_it_has_come(png, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(infer, "SAY_EVERY", 0.0)
    for name in ("a.png", "b.png", "c.png"):
        png(name)
    call = ["a.png", "b.png", "c.png", "--batch-size", "2"]
    for others, said in ((["-o", "rows.csv"], True), (["-o", "rows.csv", "-q"], False), ([], False)):
        infer_command.infer.main([*call, *others], standalone_mode=False)
        assert ("2 images so far" in capsys.readouterr().err) is said, others


@pytest.mark.parametrize(
    ("words", "variable", "said"), [([], None, True), (["-q"], None, False), (["-b", "here"], None, False), ([], "here", False)]
)
def test_the_packaged_digits_are_said_to_be_taken_where_nothing_else_is_named(run, png, bundle, monkeypatch, words, variable, said):
    """Also where standard error is a log: under cron a variable that is not set must not sort photographs as digits in silence."""
    png("a.png")
    if variable:
        monkeypatch.setenv("CATVAE_BUNDLE", str(bundle.path))
    result = run("catvae-infer", "a.png", *(str(bundle.path) if word == "here" else word for word in words))
    assert result.returncode == 0
    assert (b"no -b given: sorting with the digits" in result.stderr) is said


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from catvae.runtime.commands import infer_command, generate_command; import catvae.runtime;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.stdout.strip() == "[]", result.stderr


@pytest.fixture
def many(names, tmp_path):
    """A folder of so many images that a second process decodes from the start, every hundredth of them damaged."""
    folder = tmp_path / "many"
    folder.mkdir()
    (tmp_path / "torn.png").write_bytes(Path(names[0]).read_bytes()[:60])
    for i in range(3000):
        os.link(tmp_path / "torn.png" if i % 100 == 99 else names[i % len(names)], folder / f"{i:05}.png")
    return folder


def test_many_images_give_the_rows_that_each_gives_alone(run, many, names, tmp_path):
    few = {row["path"]: row for row in rows(run("catvae-infer", *names, tmp_path / "torn.png"))}
    whole = run("catvae-infer", many, "-o", "rows.jsonl")
    assert whole.returncode == 1
    found = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["path"] for row in found] == [f"{many}/{i:05}.png" for i in range(3000)]
    for i, row in enumerate(found):
        alone = few[str(tmp_path / "torn.png") if i % 100 == 99 else names[i % len(names)]]
        assert {**row, "path": alone["path"]} == alone
    parts = [rows(run("catvae-infer", many, "--shard", f"{part}/2")) for part in (1, 2)]
    assert sorted(parts[0] + parts[1], key=lambda row: row["path"]) == found


def test_many_images_are_gone_on_with(run, many, tmp_path):
    """Killed while it waits for the rest of a list, so that it cannot be finished; gone on with from the whole of it."""
    (tmp_path / "list.txt").write_text("".join(f"{many}/{i:05}.png\n" for i in range(3000)))
    whole = run("catvae-infer", "--files-from", "list.txt")
    command = [str(Path(sys.executable).parent / "catvae-infer"), "--files-from", "-", "-o", str(tmp_path / "rows.jsonl")]
    part = tmp_path / "rows.jsonl.part"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdin.writelines((tmp_path / "list.txt").read_bytes().splitlines(keepends=True)[:2000])
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while process.poll() is None and not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert part.stat().st_size > 100_000
    assert run("catvae-infer", "--files-from", "list.txt", "-o", "rows.jsonl", "--resume").returncode == 1
    assert (tmp_path / "rows.jsonl").read_bytes() == whole.stdout


def test_a_bundle_among_the_images_is_meant_for_another_option(run, png, bundle):
    png("a.png")
    result = run("catvae-infer", bundle.path, "a.png")
    assert result.returncode == 2
    assert b"give it with -b" in result.stderr
    assert run("catvae-infer", bundle.path, "a.png", env={"CATVAE_BUNDLE": str(bundle.path)}).returncode == 0
    assert run("catvae-infer", "a" * 300, "a.png").returncode == 1  # a row of its own
