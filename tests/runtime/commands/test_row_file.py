"""Files of rows that grow, stop and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from catvae.runtime.commands.row_file import complete_rows, growing_file, made_otherwise, note_of, part_of, skip_answered
from catvae.runtime.errors import DataError, OutputError, UsageError

MADE = {"model": "abc", "score": False}


def test_a_complete_file_appears_alone(tmp_path):
    target = tmp_path / "deep" / "rows.jsonl"
    with growing_file(target, MADE) as growing:
        growing.stream.write('{"path": "a", "ok": false}\n')
        assert not target.exists()
    assert target.read_text() == '{"path": "a", "ok": false}\n'
    assert [path.name for path in target.parent.iterdir()] == ["rows.jsonl"]


def interrupted(target: Path, text: str) -> None:
    """Write some rows, then stop as a signal would."""
    with growing_file(target, MADE) as growing:
        growing.stream.write(text)
        raise KeyboardInterrupt


def test_after_a_failure_rows_stay_and_go_on(tmp_path):
    target = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        interrupted(target, '{"path": "a", "ok": false}\n{"path": "b", "ok": false}\n{"pa')
    assert not target.exists()
    sources = iter(["a", "b", "c"])
    with growing_file(target, MADE, resume=True) as growing:
        assert [row["path"] for row in skip_answered(growing.earlier(), sources, part_of(target))] == ["a", "b"]
        assert list(sources) == ["c"]
        growing.stream.write('{"path": "c", "ok": false}\n')
    assert [json.loads(line)["path"] for line in target.read_text().splitlines()] == ["a", "b", "c"]


def test_where_not_a_row_was_written_nothing_is_left(tmp_path):
    """Beside a finished file it would count as an unfinished one."""
    target = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        interrupted(target, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_a_file_that_is_being_written_is_left_alone(tmp_path):
    """Half a row that a running call has written so far is no torn one."""
    target = tmp_path / "rows.jsonl"
    with growing_file(target, MADE) as growing:
        growing.stream.write('{"path": "a", "ok": false}\n{"path": "b", ')
        growing.stream.flush()
        for resume in (True, False):
            with pytest.raises(OutputError, match="another catvae-infer"), growing_file(target, MADE, resume=resume):
                pass
        growing.stream.write('"ok": false}\n')
    assert [json.loads(line)["path"] for line in target.read_text().splitlines()] == ["a", "b"]


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_a_file_is_locked_until_it_has_its_name(tmp_path, monkeypatch):
    target, replace, refused = tmp_path / "rows.jsonl", os.replace, []

    def second_call(source, to):
        if Path(source) == part_of(target):
            with pytest.raises(OutputError, match="another catvae-infer"), growing_file(target, MADE):
                pass
            refused.append(source)
        replace(source, to)

    with growing_file(target, MADE) as growing:
        growing.stream.write('{"path": "a", "ok": false}\n')
        growing.stream.flush()
        monkeypatch.setattr(os, "replace", second_call)
    assert refused
    assert target.read_text() == '{"path": "a", "ok": false}\n'


def test_a_file_that_was_finished_while_waiting_for_its_lock_is_begun_anew(tmp_path, monkeypatch):
    target = tmp_path / "rows.jsonl"
    part_of(target).write_text('{"path": "a", "ok": false}\n')

    def finished_meanwhile(handle, calls=[]):  # noqa: B006 - the list is the memory of the calls
        if not calls:
            os.replace(part_of(target), target)
        calls.append(handle)
        return True

    monkeypatch.setattr("catvae.runtime.commands.row_file.lock", finished_meanwhile)
    with growing_file(target, MADE, resume=True) as growing:
        assert list(growing.earlier()) == []
        assert target.read_text() == '{"path": "a", "ok": false}\n'
        growing.stream.write("new\n")
    assert target.read_text() == "new\n"


def test_without_resume_an_old_part_is_begun_again(tmp_path):
    target = tmp_path / "rows.jsonl"
    part_of(target).write_text("old")
    note_of(part_of(target)).write_text("{}")
    with growing_file(target, MADE) as growing:
        growing.stream.write("new\n")
    assert target.read_text() == "new\n"


def test_rows_of_something_else_are_not_continued(tmp_path):
    target = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        interrupted(target, '{"path": "a", "ok": false}\n')
    rows = part_of(target).read_bytes()
    with pytest.raises(UsageError, match="another model"):
        earlier(target, {**MADE, "model": "xyz"}, ["a"])
    with pytest.raises(UsageError, match="now give 'z'"):
        earlier(target, MADE, ["z"])
    with pytest.raises(UsageError, match="they end before"):
        earlier(target, MADE, [])
    assert part_of(target).read_bytes() == rows
    for line in ("not json", '{"path": "a"}', '{"x": 1}', '{"path": "a", "ok": true}', "[]"):
        part_of(target).write_text(f"{line}\n")
        with pytest.raises(DataError, match="line 1"):
            earlier(target, MADE, ["a"])
    part_of(target).with_name("rows.jsonl.part.json").unlink()
    with pytest.raises(DataError, match="made with"):
        earlier(target, MADE, ["a"])


def earlier(target: Path, made_with: dict, sources: list[str]) -> None:
    """Read what an interrupted call left, as --resume does."""
    with growing_file(target, made_with, resume=True) as growing:
        list(skip_answered(growing.earlier(), iter(sources), part_of(target)))


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("elsewhere"), lambda p: os.mkfifo(p), lambda p: p.mkdir()])
def test_targets_that_are_no_files_are_left_alone(tmp_path, make):
    target = tmp_path / "rows.jsonl"
    make(target)
    with pytest.raises(OutputError, match="not a regular file"), growing_file(target, MADE):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_killed_and_resumed_equals_uninterrupted(run, png, tmp_path):
    noise = np.random.default_rng(3)
    for i in range(40):
        png(f"d/{i:03}.png", noise.integers(0, 256, (28, 28), dtype=np.uint8))
    (tmp_path / "d" / "017.png").write_text("text")
    listed = "".join(f"d/{i:03}.png\n" for i in range(40)) * 50
    (tmp_path / "list.txt").write_text(listed)
    assert run("catvae-infer", "--files-from", "list.txt", "-o", "whole.jsonl").returncode == 1
    infer = [str(Path(sys.executable).parent / "catvae-infer"), "--files-from", "list.txt", "-o", "rows.jsonl", "--batch-size", "2"]
    landed = 0
    for _ in range(3):
        process = subprocess.Popen([*infer, "--resume"], cwd=tmp_path, stderr=subprocess.PIPE)
        part = tmp_path / "rows.jsonl.part"
        before = part.stat().st_size if part.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and (not part.exists() or part.stat().st_size <= before) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        landed += process.wait() == -signal.SIGKILL
        process.stderr.close()
        if part.exists():
            with part.open("ab") as file:
                file.write(b'{"path": "torn')
    assert landed, "it was finished before it could be killed"
    assert run("catvae-infer", "--files-from", "list.txt", "-o", "rows.jsonl", "--resume").returncode == 1
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    again = run("catvae-infer", "--files-from", "list.txt", "-o", "rows.jsonl", "--resume")
    assert again.returncode == 1  # as the call that finished it: one file cannot be read
    assert b"nothing to resume" in again.stderr


@pytest.mark.parametrize(
    ("sources", "content", "code", "message"),
    [
        (["a.png", "b.png"], None, 0, "rows.jsonl is complete; nothing to resume"),
        (["a.png", "b.png", "c.png"], None, 2, "rows.jsonl is complete with 2 rows, but the sources go on with 'c.png'"),
        (["a.png", "c.png"], None, 2, "row 2 of rows.jsonl is of 'b.png', but they now give 'c.png'"),
        (["a.png"], None, 2, "row 2 of rows.jsonl is of 'b.png', but they end before"),
        (["a.png", "b.png"], "notes\n", 3, "rows.jsonl, line 1, is no row"),
        (["a.png"], '{"path": "a.png", "ok": false}\n{"pa', 3, "rows.jsonl ends within a row"),
    ],
)
def test_a_finished_file_is_of_these_sources_or_not_resumed(run, png, tmp_path, sources, content, code, message):
    for name in ("a.png", "b.png", "c.png"):
        png(name, np.zeros((28, 28), np.uint8))
    assert run("catvae-infer", "a.png", "b.png", "-o", "rows.jsonl").returncode == 0
    if content:
        (tmp_path / "rows.jsonl").write_text(content)
    before = (tmp_path / "rows.jsonl").read_bytes()
    result = run("catvae-infer", *sources, "-o", "rows.jsonl", "--resume")
    assert (result.returncode, message in result.stderr.decode()) == (code, True), result.stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize("option", ["--score", "--embed"])
def test_a_finished_file_was_made_with_these_options_or_is_not_resumed(run, png, tmp_path, option):
    png("a.png", np.zeros((28, 28), np.uint8))
    assert run("catvae-infer", "a.png", option, "-o", "rows.jsonl").returncode == 0
    assert run("catvae-infer", "a.png", option, "-o", "rows.jsonl", "--resume").returncode == 0
    before = (tmp_path / "rows.jsonl").read_bytes()
    result = run("catvae-infer", "a.png", "-o", "rows.jsonl", "--resume")
    assert (result.returncode, f"rows were made with another {option}" in result.stderr.decode()) == (2, True), result.stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_a_finished_file_of_another_model_or_polarity_is_not_resumed(run, png, tmp_path, bundle):
    """Which the file itself does not say: four of its images are asked again."""
    for i, image in enumerate(bundle.decode(bundle.means[:3])):
        png(f"{i}.png", np.round(image[..., 0] * 255).astype(np.uint8))
    digits = ("gone.png", "0.png", "1.png", "2.png")
    assert run("catvae-infer", *digits, "-o", "rows.jsonl").returncode == 1
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert run("catvae-infer", *digits, "-o", "rows.jsonl", "--resume").returncode == 1
    result = run("catvae-infer", *digits, "--invert", "-o", "rows.jsonl", "--resume")
    assert (result.returncode, "gets another answer now" in result.stderr.decode()) == (2, True), result.stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", ["[" * 100_000, '{"path": 1, "ok": true}', '{"path": "a", "ok": true}', "null"])
def test_lines_that_are_no_rows_are_named(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="line 1, is no row"):
        list(complete_rows(tmp_path / "rows.jsonl"))


def test_a_finished_row_tells_of_another_bundle():
    row = {"path": "a.png", "ok": True, "cluster": 1, "name": "bolts", "assignment": [0.0, 1.0]}
    fields = {"--score": ("score", False)}
    assert made_otherwise(row, ["nuts", "bolts"], fields) is None
    assert made_otherwise({**row, "cluster": -1, "name": "unknown"}, ["nuts", "bolts"], fields) is None
    assert made_otherwise({"path": "a.png", "ok": False}, ["nuts", "bolts"], fields) is None
    assert made_otherwise({**row, "assignment": 3}, ["nuts", "bolts"], fields) == "bundle"
    for names in (["bolts", "nuts"], ["nuts"], ["nuts", "bolts", "washers"]):
        assert made_otherwise(row, names, fields) == "bundle"


def test_rows_that_cannot_be_gone_on_with_are_not_said_to_be(tmp_path):
    for resumable in (True, False):

        def full(resumable: bool = resumable):
            with growing_file(tmp_path / "rows", MADE, resumable=resumable) as growing:
                growing.stream.write("a row\n")
                growing.stream.flush()
                raise OSError(28, "No space left on device")

        with pytest.raises(OutputError) as caught:
            full()
        assert ("--resume" in str(caught.value)) is resumable


def test_a_table_for_other_programs_is_told_by_its_name_in_any_case(run, png, tmp_path):
    png("a.png")
    assert run("catvae-infer", "a.png", "-o", "rows.CSV").returncode == 0
    assert (tmp_path / "rows.CSV").read_text().startswith("path,ok,cluster")
    result = run("catvae-infer", "a.png", "-o", "rows.CSV", "--resume")
    assert (result.returncode, b"-o NAME.jsonl" in result.stderr) == (2, True)


@pytest.mark.parametrize("option", [["--score"], ["--invert"], ["--shard", "1/2"], ["--format", "csv"], ["--embed"]])
def test_a_self_test_takes_no_options_of_rows(run, option):
    result = run("catvae-infer", "--self-test", *option)
    assert (result.returncode, f"leave out {option[0]}".encode() in result.stderr) == (2, True)


def test_rows_do_not_replace_what_they_are_made_from(run, png, tmp_path):
    image = png("a.png").read_bytes()
    (tmp_path / "picture").write_bytes(image)
    (tmp_path / "list.txt").write_text("a.png\n")
    for arguments in (["--files-from", "list.txt", "-o", "list.txt"], ["picture", "-o", "./picture"]):
        result = run("catvae-infer", *arguments)
        assert (result.returncode, b"the rows are to be made from" in result.stderr) == (2, True)
    assert (tmp_path / "picture").read_bytes() == image
    assert (tmp_path / "list.txt").read_text() == "a.png\n"


def test_a_part_that_is_not_ours_stays(run, png, tmp_path):
    png("a.png")
    (tmp_path / "rows.jsonl.part").write_text("mine")
    result = run("catvae-infer", "a.png", "-o", "rows.jsonl")
    assert (result.returncode, b"was not written by catvae-infer" in result.stderr) == (5, True)
    assert (tmp_path / "rows.jsonl.part").read_text() == "mine"


def test_resume_does_not_replace_a_file_that_came_in_between(run, png, tmp_path):
    png("a.png")
    (tmp_path / "rows.jsonl").write_text("my notes")
    (tmp_path / "rows.jsonl.part").write_text("")
    result = run("catvae-infer", "a.png", "-o", "rows.jsonl", "--resume")
    assert result.returncode == 2, result.stderr
    assert (tmp_path / "rows.jsonl").read_text() == "my notes"


def test_a_folder_without_images_leaves_the_rows_of_yesterday(run, png, tmp_path):
    png("pile/a.png")
    (tmp_path / "empty").mkdir()
    assert run("catvae-infer", "pile", "-o", "rows.jsonl").returncode == 0
    rows = (tmp_path / "rows.jsonl").read_bytes()
    assert run("catvae-infer", "empty", "-o", "rows.jsonl").returncode == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == rows
    assert sorted(path.name for path in tmp_path.glob("rows*")) == ["rows.jsonl"]
    assert run("catvae-infer", "empty", "-o", "none.jsonl").returncode == 0
    again = run("catvae-infer", "pile", "-o", "none.jsonl", "--resume")  # an empty file is none to go on with
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "none.jsonl").read_bytes() == rows


def test_each_live_row_is_in_the_file_at_once(png, tmp_path):
    png("a.png")
    command = [Path(sys.executable).parent / "catvae-infer", "--files-from", "-", "--batch-size", "1", "-o", "live.jsonl", "-q"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write("a.png\n")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not (part := tmp_path / "live.jsonl.part").exists() or not part.stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert part.read_text().endswith("\n")
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_dash_is_no_file(run, png, tmp_path):
    png("a.png")
    result = run("catvae-infer", "a.png", "-o", "-")
    assert result.returncode == 2
    assert b"./-" in result.stderr
    assert not (tmp_path / "-").exists()
