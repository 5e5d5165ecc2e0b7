"""Decoding ahead: order, laziness, who decodes, and a second process that may be slow, damaged or gone."""

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catvae.runtime.images import decoder_process, decoding, image_files
from catvae.runtime.images.decoder_process import DecoderProcess, _enlarge, _pipe_size
from catvae.runtime.images.decoding import AHEAD, HELD, Decoding
from catvae.runtime.images.image_files import decode_all
from catvae.runtime.images.preprocess import Preprocess

fcntl = pytest.importorskip("fcntl")  # where there are no such pipes, there is no second process
RULES = Preprocess(height=28, width=28, channels=1)
LONG = 30.0
"""Seconds after which waiting has failed."""
pytestmark = pytest.mark.skipif(not hasattr(decoder_process.select, "poll"), reason="no second process on this system")


@pytest.fixture
def helper():
    found = DecoderProcess()
    yield found
    found.close()


def until(condition) -> bool:
    deadline = time.monotonic() + LONG
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def sources(names, tmp_path):
    """Images among files that are none, under names that are hard to carry."""
    (tmp_path / "torn.png").write_bytes(Path(names[0]).read_bytes()[:60])
    odd = os.fsencode(str(tmp_path)) + b"/\xff\n.png"
    Path(os.fsdecode(odd)).write_bytes(Path(names[1]).read_bytes())
    return [*names[:5], str(tmp_path / "torn.png"), os.fsdecode(odd), str(tmp_path / "gone.png"), *names[5:]]


def told(blocks):
    """What blocks hold, in a form that compares."""
    return [(block.paths, [getattr(frame, "code", frame) for frame in block.decoded.frames], block.decoded.pixels) for block in blocks]


@pytest.fixture
def expected(sources):
    parts = [sources[i : i + 4] for i in range(0, len(sources), 4)]
    return told([decoding.Block(part, decode_all(part, RULES)) for part in parts])


def test_a_block_decoded_there_is_the_block_decoded_here(helper, sources):
    assert until(helper.has_room)
    assert helper.ask(sources, RULES)
    frames, pixels = helper.answer()
    wanted, wanted_pixels = decode_all(sources, RULES)
    assert pixels == wanted_pixels
    assert [(getattr(frame, "code", frame), str(frame)) for frame in frames] == [
        (getattr(frame, "code", frame), str(frame)) for frame in wanted
    ]


def test_threads_give_blocks_in_order_whoever_finishes_first(sources, expected, monkeypatch):
    gate = threading.Event()
    decode = decoding.decode_all

    def slow_second(paths, rules, unwanted):
        if sources[4] in paths:
            gate.wait(5)
        elif sources[0] not in paths:
            gate.set()
        return decode(paths, rules, unwanted)

    monkeypatch.setattr(decoding, "decode_all", slow_second)
    assert told(Decoding(RULES, 4, threads=3).blocks(iter(sources))) == expected


def test_an_interrupt_waits_for_the_images_in_hand_alone(sources, monkeypatch):
    """Not for the blocks that they are in, which may take seconds each."""
    stream, begun, real = Decoding(RULES, 8, threads=2), [], image_files.decode_image

    def until_unwanted(source, rules):
        if source in sources[16:]:
            begun.append(source)
            until(lambda: stream._unwanted)
        return real(source, rules)

    monkeypatch.setattr(image_files, "decode_image", until_unwanted)
    blocks = stream.blocks(iter(sources))
    next(blocks), next(blocks)
    blocks.close()
    assert len(begun) <= 2, begun


def quick_blocks(sources, monkeypatch, helper=None):
    """Blocks of images that pass as quick."""
    monkeypatch.setattr(decoding, "QUICK", 100.0)
    work = Decoding(RULES, 4, helper=helper)
    try:
        yield from work.blocks(iter(sources))
    finally:
        work.close()


def test_the_second_process_takes_part_and_changes_nothing(helper, sources, expected, monkeypatch):
    answers = []
    answer = helper.answer
    monkeypatch.setattr(helper, "answer", lambda: answers.append(answer()) or answers[-1])
    assert until(helper.has_room)
    assert told(quick_blocks(sources, monkeypatch, helper)) == expected
    assert answers


def test_a_long_stream_starts_one_itself_and_a_short_one_does_not(sources, expected, monkeypatch):
    started = []

    class Counted(DecoderProcess):
        def __init__(self):
            started.append(self)
            super().__init__()

    monkeypatch.setattr(decoder_process, "DecoderProcess", Counted)
    monkeypatch.setattr(decoder_process, "default_threads", lambda: 2)
    assert told(quick_blocks(sources, monkeypatch)) == expected
    assert not started
    monkeypatch.setattr(decoding, "MANY", 8)
    assert told(quick_blocks(sources, monkeypatch)) == expected
    assert len(started) == 1
    monkeypatch.setattr(decoder_process, "default_threads", lambda: 1)
    assert told(quick_blocks(sources, monkeypatch)) == expected
    assert len(started) == 1


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
@pytest.mark.parametrize("wanted", [None, "3"])
def test_its_matrix_library_starts_no_threads_unless_the_user_says_so(wanted, monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if wanted:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", wanted)
    helper = DecoderProcess()
    try:
        assert until(helper.has_room)
        settings = Path(f"/proc/{helper.pid}/environ").read_bytes().split(b"\0")
        assert f"OPENBLAS_NUM_THREADS={wanted or 1}".encode() in settings
    finally:
        helper.close()


def test_it_can_be_started_before_numpy_is_imported():
    code = (
        "import sys; from catvae.runtime.images.decoder_process import second_process;"
        "import catvae.runtime.commands.rows, catvae.runtime.images.sources;"
        "helper = second_process(); print(sorted({'numpy', 'PIL', 'onnxruntime'} & set(sys.modules))); helper and helper.close()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.stdout.strip() == "[]", result.stderr


def test_it_decodes_without_numpy(names):
    code = (
        "import sys; from catvae.runtime.images.decoder_program import Preprocess, decode_all;"
        "frames, _ = decode_all(sys.argv[1:], Preprocess(height=5, width=8, channels=3));"
        "print('numpy' in sys.modules if frames == [1, 1] else frames)"
    )
    result = subprocess.run([sys.executable, "-c", code, *names[:2]], capture_output=True, text=True, cwd="/")
    assert result.stdout.strip() == "False", result.stderr


def begun(sources, helper, *, size=4):
    """A decoding that has begun, and what is left of the sources."""
    left, work = iter(sources), Decoding(RULES, size, helper=helper)
    work.begin(left)
    return work, left


def test_what_has_begun_is_decoded_while_the_caller_is_busy(helper, sources, expected, monkeypatch):
    """Ready or not when it is asked: all but the first block, whose time tells who decodes, are answered by the second process."""
    monkeypatch.setattr(decoding, "QUICK", 100.0)
    here, decode = [], decoding.decode_all
    work, left = begun(sources, helper)
    assert next(left, None) is None  # so few are all taken
    assert until(helper.answered)
    monkeypatch.setattr(decoding, "decode_all", lambda paths, *others: here.extend(paths) or decode(paths, *others))
    assert told(work.blocks(left)) == expected
    assert here == sources[:4]


def test_no_more_is_begun_than_is_held(helper, sources, monkeypatch):
    monkeypatch.setattr(decoding, "HELD", 3)
    _, left = begun(sources, helper)
    assert next(left) == sources[12]


def test_what_has_begun_with_one_that_never_gets_ready_is_decoded_here(useless, sources, expected, monkeypatch):
    monkeypatch.setattr(decoding, "QUICK", 100.0)
    work, left = begun(sources, useless)
    assert told(work.blocks(left)) == expected


def test_standard_input_is_read_in_the_order_of_the_sources(helper, names, monkeypatch):
    """The second process cannot be asked for it: what has begun ends there."""
    monkeypatch.setattr(decoding, "QUICK", 100.0)
    image = Path(names[0]).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(image)))
    sources = [*names[:5], "-", *names[5:20], "-"]
    work, left = begun(sources, helper)
    assert next(left) == sources[8]
    frames = [frame for block in work.blocks(itertools.chain([sources[8]], left)) for frame in block.decoded.frames]
    assert [getattr(frame, "code", frame) for frame in frames] == [*[1] * 21, "not_an_image"]


@pytest.mark.parametrize(("size", "held"), [(4, HELD), (4096, 6), (1 << 20, AHEAD)])
def test_fewer_large_blocks_are_held(size, held):
    assert Decoding(Preprocess(height=28, width=96, channels=1), size).held == held


def test_killed_after_it_has_begun_it_costs_no_block(helper, sources, expected, monkeypatch):
    monkeypatch.setattr(decoding, "QUICK", 100.0)
    work, left = begun(sources, helper)
    assert helper.pid
    os.kill(helper.pid, signal.SIGKILL)
    assert told(work.blocks(left)) == expected


def test_what_has_begun_and_is_slow_is_for_threads(helper, sources, expected, monkeypatch):
    monkeypatch.setattr(decoding, "QUICK", 0.0)
    work, left = begun(sources, helper)
    assert told(work.blocks(left)) == expected
    assert helper.pid is None


def test_requests_that_do_not_fit_are_decoded_here(names, monkeypatch):
    """Before the process reads at all: whoever went on writing would wait for it to start."""
    monkeypatch.setattr("catvae.runtime.images.decoder_process._pipe_size", lambda _handle: 4096)
    monkeypatch.setattr(decoding, "QUICK", 100.0)
    long = [os.path.join(os.path.dirname(name), "./" * 60 + os.path.basename(name)) for name in names]
    helper = DecoderProcess()
    try:
        work, left = begun(long, helper)
        rest = list(left)
        assert rest == long[12:]  # the first, one that is asked for, one that is refused
        parts = [long[i : i + 4] for i in range(0, len(long), 4)]
        assert told(work.blocks(iter(rest))) == told([decoding.Block(part, decode_all(part, RULES)) for part in parts])
    finally:
        helper.close()


def test_killed_while_it_works_it_costs_no_block(helper, sources, expected, monkeypatch):
    assert until(helper.has_room)
    blocks = quick_blocks(sources, monkeypatch, helper)
    first = [next(blocks), next(blocks)]
    os.kill(helper.pid, signal.SIGKILL)
    assert told([*first, *blocks]) == expected


@pytest.fixture(params=["/nowhere/python", "/bin/false", "exec sleep 1000", "echo nonsense; exec sleep 1000"])
def useless(request, tmp_path, monkeypatch):
    """One that cannot be started, ends at once, says nothing, or says the wrong thing."""
    program = request.param
    if " " in program:
        script = tmp_path / "program"
        script.write_text(f"#!/bin/sh\n{program}\n")
        script.chmod(0o755)
        program = str(script)
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr(decoder_process, "START", 0.5)
    found = DecoderProcess()
    time.sleep(0.2)
    yield found
    found.close()


def test_one_that_never_gets_ready_is_never_asked(useless, sources, expected, monkeypatch):
    assert told(quick_blocks(sources, monkeypatch, useless)) == expected


def test_a_frozen_program_starts_no_copy_of_itself(sources, expected, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    helper = DecoderProcess()
    assert helper.pid is None
    assert told(quick_blocks(sources, monkeypatch, helper)) == expected


def test_requests_never_fill_a_pipe_while_answers_wait(helper, names, tmp_path):
    """Large requests beside large answers: whoever only wrote would wait for ever."""
    rules = Preprocess(height=200, width=200, channels=3)
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    path = deep / "a.png"
    path.write_bytes(Path(names[0]).read_bytes())
    assert until(helper.has_room)
    request = [f"{deep}{'/' * i}a.png" for i in range(1, 601)]
    assert helper.ask(request, rules)
    time.sleep(0.3)
    assert not helper.ask(request, rules)
    assert rules.as_images(helper.answer().pixels).shape == (600, 200, 200, 3)
    assert helper.ask(request, rules)


def test_a_small_pipe_is_not_filled_either(sources, expected, monkeypatch):
    """A user who holds many pipes is given small ones: requests together stay far below what one takes."""
    monkeypatch.setattr("catvae.runtime.images.decoder_process._pipe_size", lambda _handle: 4096)
    small = DecoderProcess()
    try:
        assert until(small.has_room)
        names = [f"{'./' * 40}{i}.png" for i in range(8)]
        assert small.ask(names, RULES)  # the first is read at once
        assert not small.ask(names, RULES)
        assert small.answer() is not None
        assert small.ask(names, RULES)
    finally:
        small.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a question of Linux")
def test_the_size_of_a_pipe():
    reading, writing = os.pipe()
    try:
        assert _pipe_size(writing) in {4096, 8192, 65536}
        _enlarge(writing, 1 << 19)
        enlarged = _pipe_size(writing)
        try:
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 19)
        except OSError:
            pytest.skip("this user holds too many pipes")
        assert enlarged == 1 << 19
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("size", [1, 4])
def test_slow_images_are_for_threads(helper, sources, expected, monkeypatch, size):
    used = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads, **options):
            used.append(threads)
            super().__init__(threads, **options)

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", Pool)
    monkeypatch.setattr(decoding, "default_threads", lambda: 3)
    monkeypatch.setattr(decoding, "QUICK", 0.0)
    found = told(Decoding(RULES, size, helper=helper).blocks(iter(sources)))
    for part in range(3):  # the same paths, frames and pixels, whatever the blocks
        assert [x for block in found for x in block[part]] == [x for block in expected for x in block[part]]
    assert used == [3]
    assert not helper.has_room()  # closed: nothing for it to do


@pytest.mark.parametrize(("quick", "most"), [(0.0, 4 * (3 + AHEAD + 2)), (100.0, 4 * (3 + HELD))])
def test_sources_are_not_read_far_ahead(names, monkeypatch, quick, most):
    taken = []

    def endless():
        for name in itertools.cycle(names):
            taken.append(name)
            yield name

    monkeypatch.setattr(decoding, "QUICK", quick)
    monkeypatch.setattr(decoding, "default_threads", lambda: 2)
    blocks = Decoding(RULES, 4).blocks(endless())
    for _ in range(3):
        next(blocks)
    blocks.close()
    assert len(taken) <= most


def running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_who_started_it(number):
    code = (
        "from catvae.runtime.images.decoder_process import DecoderProcess; import time; p = DecoderProcess();"
        "\nfor _ in range(6000):\n  if p.has_room(): break\n  time.sleep(0.01)\nprint(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.send_signal(number)
        parent.wait(LONG)
    assert until(lambda: not running(pid))
