"""Faults around `catvae-infer`: its streams, its file system, its environment. Numbers are those of docs/reliability.md."""

import contextlib
import json
import os
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from catvae.runtime.images.sources import expand, read_list

INFER = str(Path(sys.executable).parent / "catvae-infer")


def rows(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_1_one_empty_image_among_many(run, png, tmp_path):
    noise = np.random.default_rng(0)
    for i in range(1000):
        png(f"d/{i:04}.png", noise.integers(0, 256, (28, 28), dtype=np.uint8))
    clean = rows(run("catvae-infer", "d"))
    (tmp_path / "d" / "0500.png").write_bytes(b"")
    result = run("catvae-infer", "d")
    found = rows(result)
    assert result.returncode == 1
    assert found[500]["error"]["code"] == "not_an_image"
    assert found[:500] + found[501:] == clean[:500] + clean[501:]


def test_11_odd_shapes(run, png, tmp_path):
    png("dot.png", np.full((1, 1), 200, np.uint8))
    png("line.png", np.full((1, 10_000), 200, np.uint8))
    Image.new("L", (4_800, 4_800), 30).save(tmp_path / "large.jpg")
    result = run("catvae-infer", "dot.png", "line.png", "large.jpg")
    assert result.returncode == 0
    assert all(row["ok"] for row in rows(result))


def test_12_what_is_no_readable_file(run, tmp_path, png):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    png("locked.png").chmod(0)
    result = run("catvae-infer", "pipe.png", "/dev/zero", "locked.png", "gone.png")
    found = [row.get("error", {}).get("code") for row in rows(result)]
    assert found[:2] == ["not_a_file", "not_a_file"]
    assert found[2] == ("unreadable" if os.geteuid() else None)
    assert found[3] == "missing"


def test_13_links(run, png, tmp_path):
    png("real.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "link.png").symlink_to("real.png")
    found = rows(run("catvae-infer", "loop.png", "dangling.png", "link.png", "real.png", "real.png"))
    assert [row["ok"] for row in found] == [False, False, True, True, True]
    assert found[3] == found[4]


def test_13_loops_of_links_as_places_to_write(run, png, tmp_path):
    png("a.png")
    (tmp_path / "loop").symlink_to("loop")
    for arguments in (("catvae-infer", "a.png", "-q", "--copy-to", "loop"), ("catvae-generate", "-n", "1", "-o", "loop/x.png")):
        result = run(*arguments)
        assert (result.returncode, len(result.stderr.splitlines())) == (5, 1), result.stderr


def test_15_an_empty_folder_and_one_of_bad_files(run, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("catvae-infer", "empty")
    assert (result.returncode, result.stdout) == (0, b"")
    assert b"no images found" in result.stderr
    (tmp_path / "empty" / "bad.png").write_text("text")
    assert run("catvae-infer", "empty").returncode == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory of a process from /proc")
def test_16_a_long_list_needs_no_memory(png, tmp_path):
    """60,000 paths: memory stays what a short list needs.

    Two equal runs differ by up to 30 MB (onnxruntime 1.17: 81 to 112); pixels or rows that were kept would add more than 60 MB.
    """
    png("a.png")
    code = (
        "import sys; from catvae.runtime.commands.command import run_command; from catvae.runtime.commands.infer_command import infer;"
        "code = run_command(infer, 'catvae-infer', sys.argv[1:]);"
        "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1], file=sys.stderr)"
    )
    peaks = []
    for count in (2_000, 60_000):  # the first is long enough for every thread and buffer to exist
        arguments = [sys.executable, "-c", code, "--files-from", "-", "--format", "csv", "--quiet"]
        result = subprocess.run(arguments, input=b"a.png\n" * count, capture_output=True, cwd=tmp_path, timeout=120)
        assert result.stdout.count(b"\n") == count + 1
        peaks.append(int(result.stderr.split()[-1]))
    assert peaks[1] < peaks[0] + 40_000  # kB
    assert peaks[1] < 256_000  # what a small container has; onnxruntime 1.17 takes 175 MB of it


def test_17_a_reader_that_leaves(png, tmp_path):
    png("a.png")
    (tmp_path / "list").write_text("a.png\n" * 20_000)
    command = f"{INFER} --files-from list --format jsonl | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 141
    assert result.stdout.count(b"\n") == 1
    assert b"Traceback" not in result.stderr
    assert b"Exception" not in result.stderr


def test_18_a_slow_reader_holds_the_work_back(png, tmp_path):
    """Nobody reads: the process fills its pipe and waits, instead of decoding the whole list into memory."""
    png("a.png")
    reader, writer = os.pipe()
    process = subprocess.Popen([INFER, "--files-from", "-"], stdin=subprocess.PIPE, stdout=writer, cwd=tmp_path, bufsize=0)
    os.close(writer)
    os.set_blocking(process.stdin.fileno(), False)
    sent = 0
    try:
        took, deadline = time.monotonic(), time.monotonic() + 120
        while time.monotonic() < min(took + 3, deadline):  # until it has taken nothing for three seconds
            more = 0
            with contextlib.suppress(BlockingIOError):
                more = process.stdin.write(b"a.png\n" * 1000) or 0
            if more:
                took, sent = time.monotonic(), sent + more
            time.sleep(0.01)
            if not select.select([reader], [], [], 0)[0]:
                took = time.monotonic()  # it has not begun
        assert process.poll() is None
        assert time.monotonic() < deadline, "it takes whatever it is given"
        assert sent < 6 * 30_000  # two full pipes hold 64 KiB of names and as much of rows, what is under way a few blocks
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        os.close(reader)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_19_a_full_disk(png, tmp_path):
    png("a.png")
    (tmp_path / "list").write_text("a.png\n" * 500)
    with open("/dev/full", "wb") as full:
        result = subprocess.run([INFER, "--files-from", "list"], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60)
    assert result.returncode == 5
    assert b"No space left" in result.stderr
    assert b"Traceback" not in result.stderr


def test_19_a_full_disk_behind_standard_error(png, tmp_path):
    """What is said gets lost; rows and exit codes do not."""
    png("a.png")
    calls = [(["a.png"], 1, 0), (["a.png", "gone.png"], 2, 1), (["-b", "nowhere", "a.png"], 0, 3), (["--shard", "x", "a.png"], 0, 2)]
    with open("/dev/full", "w") as full:
        for arguments, lines, code in calls:
            result = subprocess.run([INFER, *arguments], stdout=subprocess.PIPE, stderr=full, cwd=tmp_path)
            assert (result.stdout.count(b"\n"), result.returncode) == (lines, code)
    closed = ["sh", "-c", f'exec {shlex.quote(INFER)} "$0" 2>&-', os.fsencode("\udcff.png")]
    result = subprocess.run(closed, stdout=subprocess.PIPE, cwd=tmp_path)
    assert result.returncode == 1
    assert rows(result)[0]["error"]["code"] == "missing"


def test_19_a_disk_that_fills_while_rows_are_written(run, png, tmp_path):
    """A limit on the size of files stands for the disk: the write fails in the middle of the rows, and `--resume` ends the work."""
    png("a.png")
    (tmp_path / "list").write_text("a.png\n" * 500)
    limited = "import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000,) * 2); os.execv(sys.argv[1], sys.argv[1:])"
    words = ["--files-from", "list", "-o", "rows.jsonl"]
    result = subprocess.run([sys.executable, "-c", limited, INFER, *words], capture_output=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 5, result.stderr
    assert b"rows.jsonl.part" in result.stderr
    assert b"--resume" in result.stderr
    assert b"Traceback" not in result.stderr
    assert not (tmp_path / "rows.jsonl").exists()
    assert run("catvae-infer", *words, "--resume").returncode == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == run("catvae-infer", "--files-from", "list", "--format", "jsonl").stdout


@pytest.mark.parametrize("target", ["/proc/nothing/rows.jsonl", "folder", "link"])
def test_19_targets_that_cannot_be_written(run, png, tmp_path, target):
    png("a.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    result = run("catvae-infer", "a.png", "-o", target)
    assert result.returncode == 5
    assert b"Traceback" not in result.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_streams_that_a_caller_closed(run, png, tmp_path):
    """Whatever is closed, rows and complaints do not end up in each other's place, and nothing is a traceback."""
    path, infer = png(), shlex.quote(str(Path(sys.executable).parent / "catvae-infer"))
    for words, code in ((f"{path} missing.png 2>&-", 1), ("- <&-", 1), (f"{path} -o rows.jsonl >&-", 0), (f"{path} >&- 2>&- <&-", 0)):
        done = subprocess.run(f"{infer} {words}", shell=True, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == code, (words, done.stderr)
        assert all(json.loads(line) for line in done.stdout.splitlines())
        assert "Traceback" not in done.stderr
    assert (tmp_path / "rows.jsonl").read_text().count("\n") == 1


def test_an_image_on_standard_input_has_a_largest_size(run):
    result = run("catvae-infer", "-", stdin=bytes(40 * 2**20))
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"]["code"] == "too_large"


def test_what_cannot_be_searched_is_a_row(tmp_path, png):
    names = [str(png("b/1.png")), str(png("b/2.png"))]
    assert list(expand([str(tmp_path / "b"), str(tmp_path / "scan[1].png")])) == [*names, str(tmp_path / "scan[1].png")]
    closed = tmp_path / "b" / "closed"
    closed.mkdir()
    with mock.patch("os.scandir", side_effect=lambda path, scan=os.scandir: scan(path) if "closed" not in str(path) else _refused(path)):
        assert list(expand([str(tmp_path / "b")])) == [*names, str(closed)]


def _refused(path):
    raise PermissionError(13, "Permission denied", str(path))


def test_a_dash_in_a_list_is_a_file(tmp_path):
    (tmp_path / "list").write_text("-\na.png\n")
    assert list(read_list(str(tmp_path / "list"))) == [os.path.join(".", "-"), "a.png"]


def test_22_closed_standard_input(png, tmp_path):
    result = subprocess.run([INFER, "-"], stdin=subprocess.DEVNULL, capture_output=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"]["code"] == "not_an_image"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONOPTIMIZE": "1"},
        {"PYTHONWARNINGS": "error"},
        {"LC_ALL": "C"},
        {"HOME": "/nowhere", "XDG_CACHE_HOME": "/nowhere"},
    ],
    ids=lambda e: next(iter(e)),
)
def test_39_odd_environments(run, png, environment):
    png("ü.png")
    plain = run("catvae-infer", "ü.png")
    odd = run("catvae-infer", "ü.png", env=environment)
    assert odd.returncode == 0, odd.stderr
    assert odd.stdout == plain.stdout
    assert odd.stderr == plain.stderr


def test_39_no_socket_is_opened(png, tmp_path):
    """Any attempt at a socket ends the process."""
    png("a.png")
    code = (
        "import sys\n"
        "def no_network(event, args):\n"
        "    if event.startswith('socket.'): raise SystemExit('a socket: ' + event)\n"
        "sys.addaudithook(no_network)\n"
        "from catvae.runtime.commands.command import run_command; from catvae.runtime.commands.infer_command import infer\n"
        "sys.exit(run_command(infer, 'catvae-infer', ['a.png']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 0, result.stderr


def test_onnxruntime_is_told_not_to_report(run, png, tmp_path):
    """It keeps a number for this machine in the home folder where it reports; it never does where it takes itself to be tested."""
    home, path = tmp_path / "home", png("a.png")
    home.mkdir()
    quiet = {name: value for name, value in os.environ.items() if name not in REPORTING}
    infer = str(Path(sys.executable).parent / "catvae-infer")
    result = subprocess.run([infer, str(path)], capture_output=True, env={**quiet, "HOME": str(home)}, timeout=60)
    assert result.returncode == 0, result.stderr
    assert list(home.rglob("*")) == []


REPORTING = {
    *("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "TRAVIS", "JENKINS_URL"),
    *("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"),
}
"""What would keep onnxruntime from reporting, or from keeping its number in the home folder."""


def test_libraries_that_print_do_not_reach_standard_output(png, tmp_path):
    """From Python and from C alike: what is printed while rows are written goes to standard error."""
    png("a.png")
    code = (
        "import os, sys; from catvae.runtime.bundles import bundle; from catvae.runtime.commands.command import run_command\n"
        "from catvae.runtime.commands.infer_command import infer\n"
        "real = bundle.Bundle.examine\n"
        "def noisy(self, *a, **k):\n"
        "    os.write(1, b'EP Error from C\\n'); print('Falling back'); return real(self, *a, **k)\n"
        "bundle.Bundle.examine = noisy\n"
        "sys.exit(run_command(infer, 'catvae-infer', ['a.png']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path, timeout=60)
    assert json.loads(result.stdout)["ok"] is True
    assert b"EP Error" in result.stderr
    assert b"Falling back" in result.stderr


@pytest.mark.parametrize("parts", [1, 3])
def test_shards_cover_everything_once(run, png, parts):
    for i in range(12):
        png(f"d/{i}.png", 20 * i)
    whole = rows(run("catvae-infer", "d"))
    found = [row for i in range(parts) for row in rows(run("catvae-infer", "d", "--shard", f"{i + 1}/{parts}"))]
    assert sorted(row["path"] for row in found) == [row["path"] for row in whole]
    assert all(row in whole for row in found)


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_shard_that_makes_no_sense(run, png, shard):
    png("a.png")
    result = run("catvae-infer", "a.png", "--shard", shard)
    assert result.returncode == 2
    assert b"expected i/n" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes are otherwise there")
def test_a_list_on_a_pipe_that_does_not_wait_is_read_to_its_end(png, tmp_path):
    """A program that shares the pipe may have set it so; "nothing yet" is not the end."""
    png("a.png")
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with subprocess.Popen([INFER, "--files-from", "-"], stdin=reader, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        for _ in range(3):
            time.sleep(0.4)
            os.write(writer, b"a.png\n")
        os.close(writer)
        os.close(reader)
        assert len(process.stdout.readlines()) == 3
    assert process.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="pipes are otherwise there")
def test_rows_on_a_pipe_that_does_not_wait_are_whole(png, tmp_path):
    """More than a pipe holds, before anybody reads."""
    png("a.png")
    (tmp_path / "list.txt").write_text("a.png\n" * 1500)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen([INFER, "-q", "--files-from", "list.txt"], stdout=writer, cwd=tmp_path) as process:
        os.close(writer)
        time.sleep(3)
        with os.fdopen(reader) as lines:
            assert len([json.loads(line) for line in lines]) == 1500
    assert process.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="no such streams there")
def test_streams_opened_the_wrong_way_round(run, png, tmp_path):
    png("a.png")
    shell = ["sh", "-c", f'exec {shlex.quote(INFER)} - 0>"made"']
    result = subprocess.run(shell, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 1
    assert json.loads(result.stdout)["error"]["code"] == "unreadable"
    shell = ["sh", "-c", f"exec {shlex.quote(INFER)} a.png 1</dev/null"]
    result = subprocess.run(shell, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=60)
    assert (result.returncode, "Traceback" in result.stderr) == (5, False)
