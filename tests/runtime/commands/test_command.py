"""What every command shares: empty paths, signals that were ignored, failures that nobody foresaw, what may reach a terminal."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import click
import pytest

from catvae.runtime.commands import command
from catvae.runtime.interruption import Signals, stop_on_signals


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("catvae-infer", ["a.png", "--copy-to", ""]),
        ("catvae-infer", ["a.png", "-b", ""]),
        ("catvae-infer", ["a.png", "-o", ""]),
        ("catvae-infer", ["--files-from", ""]),
        ("catvae-generate", ["-o", ""]),
        ("catvae-report", [""]),
        ("catvae-label", [""]),
        ("catvae-doctor", ["-b", ""]),
        ("catvae-train", ["", "-o", "run"]),
    ],
)
def test_an_empty_path_is_no_folder(run, tmp_path, name, arguments):
    result = run(name, *arguments)
    assert (result.returncode, b"is empty" in result.stderr) == (2, True), result.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_of_rows(run, png):
    png("a.png")
    for resume in ([], ["--resume", "--format", "jsonl"]):
        result = run("catvae-infer", "a.png", "-o", ".", *resume)
        assert (result.returncode, b"not a regular file" in result.stderr) == (5, True), result.stderr


@pytest.mark.parametrize("error", [RuntimeError("what is this"), MemoryError(), OSError("no number")])
def test_what_nobody_foresaw_has_an_exit_code_of_its_own(error, capsys):
    @click.command()
    def fails() -> None:
        raise error

    assert command.run_command(fails, "catvae-x", []) == 70
    said = capsys.readouterr().err
    assert "not enough memory" in said if isinstance(error, MemoryError) else "please report it" in said and "Traceback" in said


def test_what_is_said_cannot_move_the_cursor(capsys):
    command.say("left out \x1b]0;x\x07 \ud800")
    assert capsys.readouterr().err == "left out \\x1b]0;x\\x07 \\ud800\n"


def test_signals_that_are_ignored_stay_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for context in (stop_on_signals(), Signals().installed()):
            with context:
                assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_background_job_survives_what_ends_the_foreground_one(png, tmp_path):
    png("a.png")
    infer = Path(sys.executable).parent / "catvae-infer"
    arguments = ["catvae-infer", "--files-from", "-", "--batch-size", "1"]
    ignoring = f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv({str(infer)!r}, {arguments!r})"
    with subprocess.Popen(
        [sys.executable, "-c", ignoring], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path
    ) as process:
        process.stdin.write(b"a.png\n")
        process.stdin.flush()
        assert b'"ok":true' in process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.2)
        rest, _ = process.communicate(b"a.png\n", timeout=60)
        assert b'"ok":true' in rest
    assert process.returncode == 0


def test_nothing_is_written_into_a_bundle(run, png, tmp_path):
    """It would hold what its manifest does not name, and be refused from then on; files of file managers are none of that."""
    import shutil

    from catvae.runtime.bundles.bundle_files import PRETRAINED

    bundle = tmp_path / "b"
    shutil.copytree(PRETRAINED / "digits", bundle)
    png("a.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    for arguments in (
        ("catvae-report", "b", "-o", "b/report.html"),
        ("catvae-generate", "-b", "b", "-o", "b/generated.png"),
        ("catvae-infer", "-b", "b", "a.png", "-o", "b/rows.jsonl"),
        ("catvae-infer", "-b", "b", "a.png", "--copy-to", "b/sorted"),
        ("catvae-export", "-b", "b", "--web", "b/page"),
        ("catvae-export", "-b", "b", "--triton", "b/models"),
        ("catvae-label", "b", "--name", "0=zero", "-o", "b/renamed"),
        ("catvae-infer", "a.png", "-o", "b/rows.jsonl"),  # in another than the one that is used
        ("catvae-generate", "-o", "b/generated.png"),
        ("catvae-report", "run", "-o", "b/report.html"),
    ):
        result = run(*arguments)
        assert (result.returncode, b"lies in the bundle" in result.stderr) == (2, True), result.stderr
    inside = run("catvae-report", ".", cwd=bundle)  # whose default is report.html, here
    assert (inside.returncode, b"choose a place outside" in inside.stderr) == (2, True)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (bundle / name).write_bytes(b"")
    assert run("catvae-infer", "-b", "b", "a.png").returncode == 0


ENDLESS = """
import click
from catvae.runtime.commands.command import run_command
from catvae.runtime.interruption import Signals
from catvae.runtime.commands.stdout import rows_stream

@click.command()
def rows():
    signals = Signals()
    with rows_stream() as stream, signals.installed():
        while True:
            with signals:
                stream.write("x" * {size} + "\\n")

raise SystemExit(run_command(rows, "rows", []))
"""


def wait_until_full(pipe) -> None:
    """Until what lies in it, unread, is no longer becoming more: its writer waits."""
    before, deadline = 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
        if 0 < now == before:
            return
        before = now
    raise AssertionError("the pipe did not fill")


@pytest.mark.parametrize("size", [100, 5_099, 12_000, 300_000])
def test_a_second_signal_does_not_wait_for_a_reader_that_stalls(size):
    """Of writes smaller than the stream's buffer some is left there, which closing it would write."""
    process = subprocess.Popen([sys.executable, "-c", ENDLESS.format(size=size)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until_full(process.stdout)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # it ends with a whole row, once the reader goes on
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
    assert said == b"rows: interrupted\n"


def test_a_working_folder_that_is_gone_is_named(tmp_path):
    (tmp_path / "gone").mkdir()
    infer = Path(sys.executable).parent / "catvae-infer"
    call = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && {infer} a.png -o rows.jsonl"
    result = subprocess.run(["sh", "-c", call], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (
        3,
        "catvae-infer: the working folder does not exist any more: change to another one",
    )
