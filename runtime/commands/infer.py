"""A call of `catvae-infer` whose options are known to be good: from sources to rows, on standard output or in a file.

Modules are imported as the call comes to need them, so that a second process decodes while numpy and onnxruntime are loaded, and a few
images never wait for what they do without.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from ..errors import UsageError
from ..interruption import Interrupted, Signals
from ..wording import say
from .command import loading

SAY_EVERY = 60.0
"""Seconds between two lines that say how many images are answered."""
ASKED_AGAIN = 4
"""Images of a finished file that are classified again before it is taken to be this model's."""
SAME = 0.02
"""By how much a share of an assignment may differ between processors; more where the bundle's own tolerances are wider."""

if TYPE_CHECKING:
    from ..bundles.bundle import Bundle
    from ..images.decoder_process import DecoderProcess
    from .copies import Copies
    from .rows import Row, Writer


class Request(NamedTuple):
    """The options of the command."""

    sources: tuple[str, ...]
    bundle: Path | None
    files_from: str | None
    format: str
    output: Path | None
    copy_to: Path | None
    embed: bool
    score: bool
    invert: bool
    resume: bool
    shard: str | None
    part: tuple[int, int] | None
    """`shard`, parsed."""
    batch_size: int
    threads: int | None
    device: str
    tf32: bool
    testing: bool
    quiet: bool

    @property
    def live(self) -> bool:
        """Whether somebody writes paths and waits for the row of each."""
        return self.files_from == "-" and self.batch_size == 1


def answer(request: Request) -> int:
    """Write a row for every image; returns the exit code.

    Raises
    ------
    CatVAEError
        Whatever kept rows from being written, with the exit code of its kind.
    """
    from ..images.decoder_process import MANY, second_process
    from ..images.sources import at_least

    many = not request.testing and at_least(MANY, request.sources, request.files_from)
    helper = second_process() if many else None  # it gets ready meanwhile
    from .rows import resolve_format, row_writer
    from .stdout import rows_stream

    request = request._replace(format=resolve_format(request.format, request.output, embed=request.embed))
    if request.resume and (request.output is None or request.format != "jsonl"):
        raise UsageError("--resume goes on with a file of JSON Lines: give the -o NAME.jsonl of the interrupted call")
    with rows_stream() as stdout:
        bundle, paths, blocks = _opened(request, helper)
        if request.testing:
            from ..bundles.self_test import print_self_test

            print_self_test(bundle, stdout)
            return 0
        _refuse_places_inside(bundle, request)
        if not request.quiet:
            _say_beforehand(bundle, request)
        answering = _Answering(bundle, request)
        if request.output is None:
            write = row_writer(request.format, stdout, score=request.score)
            answering.written(blocks, _at_once(write, stdout) if request.live else write)
            return answering.conclude()
        from .row_file import is_complete

        if request.resume and is_complete(request.output):
            return _nothing_left(request.output, bundle, paths, request, answering)
        _grow(request.output, bundle, paths, blocks, request, answering)
        return answering.conclude()


def _opened(request: Request, helper: DecoderProcess | None) -> tuple[Bundle, Iterator[str], Iterator[list[Row]]]:
    """The bundle, the paths to answer, and what answers those that are left of them."""
    with loading():
        from ..bundles.bundle import Bundle
        from ..images.sources import expand, read_list, shard_of
        from ..processors import default_threads
        from .pipeline import Options, classify_stream, prepared

        threads = request.threads
        if helper and threads is None:
            threads = max(1, default_threads() - 1)  # the processor that decodes is not the model's
        bundle = Bundle.load(request.bundle, device=request.device, threads=threads, tf32=request.tf32)
        paths = expand(request.sources, lambda line: say(f"catvae-infer: {line}"))
        if request.files_from is not None:
            paths = read_list(request.files_from, paths)
        if request.part:
            paths = shard_of(paths, *request.part)
        options = Options(request.batch_size, request.embed, request.score, request.invert, ahead=not request.live)
        decoding = prepared(bundle, options, helper)
        if not request.resume and request.files_from != "-":  # some may be answered already; a list that still grows is not waited for
            decoding.begin(paths)
        bundle.session("classifier")
    return bundle, paths, classify_stream(bundle, paths, options, decoding)


def _refuse_places_inside(bundle: Bundle, request: Request) -> None:
    from ..bundles.bundle_files import refuse_inside

    for option, place in {"-o": request.output, "--copy-to": request.copy_to}.items():
        if place is not None:
            refuse_inside(bundle.path, place, option)


def _say_beforehand(bundle: Bundle, request: Request) -> None:
    """Warn of what the user may not have meant."""
    if request.bundle is None and not os.environ.get("CATVAE_BUNDLE"):
        say("catvae-infer: no -b given: sorting with the digits that come with the package")
    if request.score and bundle.manifest.scoring is None:
        say("catvae-infer: this bundle has no reject thresholds: scores are shown, nothing is called unknown")
    if request.device == "auto" and bundle.provider == "cpu":
        _say_fallback()
        if request.tf32:
            say("catvae-infer: --tf32 changes nothing on the CPU")


def _say_fallback() -> None:
    """One line where a CUDA build of onnxruntime is installed and the CPU answers nevertheless."""
    from ..bundles.cuda import installed_wheels, obstacles

    if "onnxruntime-gpu" in installed_wheels():
        say(f"catvae-infer: on the CPU: {'; '.join(obstacles()) or 'CUDA did not start'}")


class _Answering:
    """What is done with every row: counted for the tally, and its image copied."""

    def __init__(self, bundle: Bundle, request: Request):
        from ..bundles.drift import Tally

        self.tally, self.quiet = Tally(bundle.manifest), request.quiet
        self.silent = request.quiet or request.output is None  # rows on standard output show how far it has come
        self.copies = _copies(request.copy_to, bundle, request.sources) if request.copy_to else None

    def answered(self, row: Row) -> None:
        """A row of an earlier call; its image is copied where that call was not asked to."""
        if self.copies is not None:
            self.copies.add(row)
        self.tally.add(row)

    def written(self, blocks: Iterable[list[Row]], write: Writer) -> None:
        """Write whole rows until they end or a signal arrives."""
        signals, said = Signals(), time.monotonic()
        with signals.installed():
            for rows in blocks:
                if self.copies is not None:  # first: an image whose row is there has been copied
                    for row in rows:
                        self.copies.add(row)
                with signals:
                    write(rows)
                for row in rows:
                    self.tally.add(row)
                if time.monotonic() - said > SAY_EVERY:
                    said = time.monotonic()
                    say(f"catvae-infer: {self.tally.total:,} images so far", quiet=self.silent)

    @property
    def exit_code(self) -> int:
        return 1 if self.tally.failed else 0

    def say_copies(self) -> None:
        if self.copies is not None:
            say(self.copies.summary, quiet=self.quiet)

    def conclude(self) -> int:
        """How the images came out, on standard error; returns the exit code."""
        tally, quiet = self.tally, self.quiet
        if not tally.total:
            say("catvae-infer: no images found; nothing to do", quiet=quiet)
        for line in [f"catvae-infer: {warning}" for warning in tally.warnings()] if quiet else tally.summary():
            say(line)
        self.say_copies()
        if tally.failed:
            say(f"catvae-infer: {tally.failed:,} of {tally.total:,} images could not be read", quiet=quiet)
        return self.exit_code


def _copies(folder: Path, bundle: Bundle, sources: tuple[str, ...]) -> Copies:
    from ..files import make_folder
    from .copies import Copies

    copies = Copies(folder, bundle.names)
    copies.require_apart(sources)
    make_folder(folder)  # where that is not possible, nothing is read in vain
    return copies


def _at_once(write: Writer, stream: TextIO) -> Writer:
    """`write`, and hand on what was written: somebody waits for each row."""

    def write_through(rows: list[Row]) -> None:
        write(rows)
        stream.flush()

    return write_through


def _nothing_left(output: Path, bundle: Bundle, paths: Iterator[str], request: Request, answering: _Answering) -> int:
    """`--resume` with a finished file: whether it answers these sources, and as they would be now; returns the exit code."""
    from .row_file import complete_rows, complete_rows_of, made_otherwise

    fields = {"--embed": ("embedding", request.embed), "--score": ("score", request.score)}
    with contextlib.closing(complete_rows(output)) as rows:
        answered = (row for row in rows if row["ok"] and row["path"] != "-" and not made_otherwise(row, bundle.names, fields))
        _require_same_answers([*itertools.islice(answered, ASKED_AGAIN)], bundle, request)  # before any image is copied
    for row in complete_rows_of(output, paths, bundle.names, fields):
        answering.answered(row)
    answering.say_copies()
    say(f"catvae-infer: {output} is complete; nothing to resume", quiet=request.quiet)
    return answering.exit_code


def _require_same_answers(rows: list[Row], bundle: Bundle, request: Request) -> None:
    """Raise `UsageError` where an image gets another answer than its row in a finished file, which does not say what model gave it."""
    from .pipeline import Options, classify_stream

    blocks = classify_stream(bundle, [row["path"] for row in rows], Options(invert=request.invert, ahead=False))
    same = max(SAME, *bundle.manifest.tolerances.values())
    for row, now in zip(rows, itertools.chain.from_iterable(blocks), strict=True):
        if now["ok"] and max(abs(p - q) for p, q in zip(now["assignment"], row["assignment"], strict=True)) > same:
            raise UsageError(
                f"{request.output} is complete, but {row['path']} gets another answer now: bundle, --invert or the image itself is another"
                " one; choose another -o, or start again without --resume"
            )


def _grow(output: Path, bundle: Bundle, paths: Iterator[str], blocks: Iterator[list[Row]], request: Request, answering: _Answering) -> None:
    """Rows into a file that appears under its name once it is complete, after those that an interrupted call left."""
    from .row_file import growing_file, part_of, skip_answered
    from .rows import row_writer

    resumable = request.format == "jsonl"
    made_with = {"bundle": bundle.fingerprint} | {name: getattr(request, name) for name in ("embed", "score", "invert", "shard")}
    with growing_file(output, made_with, resume=request.resume, resumable=resumable) as growing:
        for row in skip_answered(growing.earlier(), paths, part_of(output)):
            answering.answered(row)
        try:
            write = row_writer(request.format, growing.stream, score=request.score)
            answering.written(blocks, _at_once(write, growing.stream) if request.live else write)
        except Interrupted:
            goes_on = "the same call with --resume goes on" if resumable else "only JSON Lines can be gone on with"
            say(f"catvae-infer: rows so far are in {part_of(output)}: {goes_on}", quiet=request.quiet)
            raise
