"""`catvae-infer`: the cluster of every image, one row each, in the order given."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from .command import Choice, FilePath, command_entry, loading, say
from .errors import DataError, UsageError
from .interruption import Interrupted, Signals

if TYPE_CHECKING:  # numpy and Pillow wait until the options are known to be good
    from .bundle import Bundle
    from .copies import Copies
    from .drift import Tally
    from .rows import Row, Writer


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("-b", "--bundle", "bundle_path", type=FilePath(), help="Bundle folder. [default: $CATVAE_BUNDLE, else digits]")
@click.option(
    "--files-from",
    type=FilePath(dash=True),
    metavar="LIST",
    help="Also the paths in this file, a line each; - reads them from standard input.",
)
@click.option(
    "--format",
    "format_",
    type=Choice(["auto", "table", "jsonl", "csv"]),
    default="auto",
    help="auto: csv for -o NAME.csv, table on a terminal, else jsonl.",
)
@click.option("-o", "--output", type=FilePath(), help="Write the rows to this file.")
@click.option(
    "--copy-to",
    "copy_to",
    type=FilePath(),
    metavar="DIR",
    help="Also copy each image into DIR, into a folder per cluster; nothing is moved or written over.",
)
@click.option("--embed", is_flag=True, help="Add the posterior mean to each row (jsonl).")
@click.option("--score", is_flag=True, help="Add how well the model explains the image, in nats; cluster -1 where it does not.")
@click.option("--invert", is_flag=True, help="Swap black and white first: for dark ink on white, when the model saw white on black.")
@click.option("--resume", is_flag=True, help="Go on with the rows an interrupted call left beside -o.")
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts of the images, by a hash of the path.")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=64, show_default=True, help="Images per run of the model.")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of the model. [default: usable processors, at most 4]")
@click.option(
    "--device",
    type=Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="cuda fails where CUDA does not start.",
)
@click.option("--tf32", is_flag=True, help="On CUDA: faster products of about three digits.")
@click.option("--self-test", "testing", is_flag=True, help="Replay the bundle's golden inputs on this machine, then stop.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing but warnings on standard error.")
def infer(
    sources: tuple[str, ...],
    bundle_path: Path | None,
    files_from: str | None,
    format_: str,
    output: Path | None,
    copy_to: Path | None,
    embed: bool,
    score: bool,
    invert: bool,
    resume: bool,
    shard: str | None,
    batch_size: int,
    threads: int | None,
    device: str,
    tf32: bool,
    testing: bool,
    quiet: bool,
) -> int:
    """Sort images into clusters.

    SOURCE is an image file, a folder (searched for images), a pattern in quotes, or - for one image on standard input.

    Rows go to standard output; everything else to standard error. A file that cannot be read becomes an error row and the exit code 1.
    """
    from .decoder_process import MANY, second_process
    from .files import refuse_special_target
    from .sources import at_least, expand, parse_shard, read_list, shard_of

    part = parse_shard(shard) if shard else None
    if testing and (sources or files_from or output or copy_to):
        raise UsageError("--self-test replays the images in the bundle itself: give it no others, and no -o or --copy-to")
    others = {"--embed": embed, "--score": score, "--invert": invert, "--resume": resume, "--shard": shard, "--format": format_ != "auto"}
    if testing and any(others.values()):
        raise UsageError(f"--self-test replays the bundle's own images as they are: leave out {next(filter(others.get, others))}")
    if tf32 and device == "cpu":
        raise UsageError("--tf32 is for CUDA: leave it out with --device cpu")
    if output is not None:
        refuse_special_target(output)
    if not testing:
        _require_sources(sources, files_from)
    helper = second_process() if not testing and at_least(MANY, sources, files_from) else None  # it gets ready meanwhile
    from .rows import resolve_format, row_writer
    from .stdout import rows_stream

    format_ = resolve_format(format_, output, embed=embed)
    if resume and (output is None or format_ != "jsonl"):
        raise UsageError("--resume goes on with a file of JSON Lines: give the -o NAME.jsonl of the interrupted call")
    with rows_stream() as stdout:
        with loading():
            from .bundle import Bundle
            from .bundle_files import refuse_inside
            from .drift import Tally
            from .pipeline import Options, classify_stream, prepared
            from .processors import default_threads

            if helper and threads is None:
                threads = max(1, default_threads() - 1)  # the processor that decodes is not the model's
            bundle = Bundle.load(bundle_path, device=device, threads=threads, tf32=tf32)
            paths = expand(sources, lambda line: say(f"catvae-infer: {line}"))
            paths = paths if files_from is None else read_list(files_from, paths)
            if part:
                paths = shard_of(paths, *part)
            live = files_from == "-" and batch_size == 1
            options = Options(batch_size, embed, score, invert, ahead=not live)
            decoding = prepared(bundle, options, helper)
            if not resume and files_from != "-":  # some may be answered already; a list that still grows is not waited for
                decoding.begin(paths)
            bundle.session("classifier")
        if testing:
            return _self_test(bundle, stdout)
        for option, place in {"-o": output, "--copy-to": copy_to}.items():
            if place is not None:
                refuse_inside(bundle.path, place, option)
        if not quiet:
            _say_beforehand(bundle, default=bundle_path is None and "CATVAE_BUNDLE" not in os.environ, score=score, device=device)
        copies = _copies(copy_to, bundle, sources) if copy_to else None
        tally = Tally(bundle.manifest)
        blocks = classify_stream(bundle, paths, options, decoding)
        if output is None:
            write = row_writer(format_, stdout, score=score)
            _write_rows(blocks, _at_once(write, stdout) if live else write, tally, copies)
            return _conclude(tally, copies, quiet=quiet)
        from .row_file import complete_rows_of, growing_file, is_complete, part_of, skip_answered

        if resume and is_complete(output):
            for row in complete_rows_of(output, paths, bundle.names, {"--embed": ("embedding", embed), "--score": ("score", score)}):
                _count(row, tally, copies)
            if copies is not None:
                say(copies.summary, quiet=quiet)
            say(f"catvae-infer: {output} is complete; nothing to resume", quiet=quiet)
            return 1 if tally.failed else 0
        made_with = {"bundle": bundle.fingerprint, "embed": embed, "score": score, "invert": invert, "shard": shard}
        with growing_file(output, made_with, resume=resume, resumable=format_ == "jsonl") as growing:
            for row in skip_answered(growing.earlier(), paths, part_of(output)):
                _count(row, tally, copies)
            try:
                _write_rows(blocks, row_writer(format_, growing.stream, score=score), tally, copies)
            except Interrupted:
                goes_on = "the same call with --resume goes on" if format_ == "jsonl" else "only JSON Lines can be gone on with"
                say(f"catvae-infer: rows so far are in {part_of(output)}: {goes_on}", quiet=quiet)
                raise
        return _conclude(tally, copies, quiet=quiet)


def _require_sources(sources: tuple[str, ...], files_from: str | None) -> None:
    if not sources and files_from is None:
        raise UsageError("no image given: name files, folders or patterns, - for standard input, or --files-from LIST")
    if files_from == "-" and "-" in sources:
        raise UsageError("standard input cannot be both an image (-) and a list of paths (--files-from -)")


def _say_beforehand(bundle: Bundle, *, default: bool, score: bool, device: str) -> None:
    """What the user may not have meant."""
    if default and sys.stderr.isatty():
        say("catvae-infer: no -b given: sorting with the digits that come with the package")
    if score and bundle.manifest.scoring is None:
        say("catvae-infer: this bundle has no reject thresholds: scores are shown, nothing is called unknown")
    if device == "auto" and bundle.provider == "cpu":
        _say_fallback()


def _conclude(tally: Tally, copies: Copies | None, *, quiet: bool) -> int:
    """How the images came out, on standard error; returns the exit code."""
    if not tally.total:
        say("catvae-infer: no images found; nothing to do", quiet=quiet)
    for line in [f"catvae-infer: {warning}" for warning in tally.warnings()] if quiet else tally.summary():
        say(line)
    if copies is not None:
        say(copies.summary, quiet=quiet)
    if tally.failed:
        say(f"catvae-infer: {tally.failed:,} of {tally.total:,} images could not be read", quiet=quiet)
    return 1 if tally.failed else 0


def _copies(folder: Path, bundle: Bundle, sources: tuple[str, ...]) -> Copies:
    from .copies import Copies

    copies = Copies(folder, bundle.names)
    copies.require_apart(sources)
    return copies


def _write_rows(blocks: Iterable[list[Row]], write: Writer, tally: Tally, copies: Copies | None) -> None:
    signals = Signals()
    with signals.installed():
        for rows in blocks:
            if copies is not None:  # first: an image whose row is there has been copied
                for row in rows:
                    copies.add(row)
            with signals:
                write(rows)
            for row in rows:
                tally.add(row)


def _count(row: Row, tally: Tally, copies: Copies | None) -> None:
    """A row of an earlier call; its image is copied where that call was not asked to."""
    if copies is not None:
        copies.add(row)
    tally.add(row)


def _at_once(write: Writer, stream: TextIO) -> Writer:
    """`write`, and hand on what was written: somebody waits for each row."""

    def write_through(rows: list[Row]) -> None:
        write(rows)
        stream.flush()

    return write_through


def _say_fallback() -> None:
    """One line where a CUDA build of onnxruntime is installed and the CPU answers nevertheless."""
    from .cuda import installed_wheels, obstacles

    if "onnxruntime-gpu" in installed_wheels():
        say(f"catvae-infer: on the CPU: {'; '.join(obstacles()) or 'CUDA did not start'}")


def _self_test(bundle: Bundle, stdout: TextIO) -> int:
    """Print each check; exit code 3 when one fails."""
    from .self_test import self_test

    checks = self_test(bundle)
    for check in checks:
        verdict = "ok" if check.passed else "FAILED"
        stdout.write(
            f"{check.output:<24} {check.provider:<5} difference {check.difference:.1e}, at most {check.tolerance:.0e}: {verdict}\n"
        )
    failed = [check.output for check in checks if not check.passed]
    if failed:
        raise DataError(
            f"{bundle.path} answers otherwise here than where it was exported ({', '.join(failed)}): do not use it on this machine"
        )
    return 0


main = command_entry(infer, "catvae-infer", at_once=True)
