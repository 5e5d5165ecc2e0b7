"""What every `catvae-*` command shares: one line per failure on standard error, exit codes, and options that suggest a near match.

Exit codes: 0 all well; 1 finished with failed rows, or doctor found something broken; 2 wrong usage; 3 model or data missing or corrupt; 4
device not available; 5 output cannot be written; 6 training stopped by the numeric guard; 130 and 143 interrupted; 141 the reader of our
output went away; 70 memory was not enough, or something that nobody foresaw.
"""

import contextlib
import errno
import gc
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from ..errors import CatVAEError, DataError, OutputError
from ..interruption import Interrupted
from ..processors import NO_BLAS_THREADS
from ..wording import one_line, say

UNEXPECTED = CatVAEError.exit_code
"""Exit code of errors that nobody foresaw and of too little memory: what was written by then is incomplete."""


class FilePath(click.Path):
    """A file or folder, as a `Path`; with `dash`, - stands for a standard stream and stays text. An unset variable is none.

    Whether it may be read is found by who reads it: click would call a bundle that may not a mistake in typing.
    """

    def __init__(self, *, dash: bool = False, readable: bool = True):
        super().__init__(allow_dash=dash, path_type=None if dash else Path, readable=readable)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty: name a file or folder, or leave the option out", param, ctx)
        if value == "-" and not self.allow_dash:
            self.fail("- would be a standard stream, expected a file or folder (./- where one is called so)", param, ctx)
        return super().convert(value, param, ctx)


def bundle_option(name: str = "bundle_path", what: str = "Bundle folder.") -> Callable[[Any], Any]:
    """The option that names a bundle."""
    words = f"{what} [default: $CATVAE_BUNDLE, else the packaged digits]"
    return click.option("-b", "--bundle", name, type=FilePath(readable=False), help=words)


class SourceText(click.ParamType):
    """Images as they are named: a path, a pattern or -, but not the nothing that an unset variable leaves."""

    name = "text"

    def __init__(self, empty: str = "an image's path is empty: name a file, a folder or a pattern"):
        self.empty = empty

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "":
            self.fail(self.empty, param, ctx)
        return value


class Choice(click.Choice):
    """A choice that names the nearest valid value when it does not know the given one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value not in self.choices:
            import difflib  # only a mistake needs it

            near = difflib.get_close_matches(value, list(self.choices), 1, cutoff=0.3)
            hint = f", did you mean '{near[0]}'?" if near else ""
            self.fail(f"'{value}' is not one of {', '.join(self.choices)}{hint}", param, ctx)
        return super().convert(value, param, ctx)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While modules and models are loaded: garbage is not looked for, among a hundred thousand objects that stay, nor among them later.

    Each look costs time and finds nothing: `benchmarks/infer.py` reads what a cold start takes. What the user has set stands.
    """
    for name, value in NO_BLAS_THREADS.items():
        os.environ.setdefault(name, value)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def command_entry(command: click.Command, name: str, *, at_once: bool = False) -> Callable[[], NoReturn]:
    """The console script of `command`: runs it, turns every expected failure into one line and the right exit code.

    `at_once` ends the process without taking the interpreter and its modules apart, which a cold start would wait for: for commands that
    have closed what they opened.
    """

    def main() -> NoReturn:
        code = run_command(command, name, sys.argv[1:])
        if not at_once:
            gc.freeze()  # the interpreter looks for garbage three times more on its way out
            sys.exit(code)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)

    main.__doc__ = f"Entry point of `{name}`."
    return main


def run_command(command: click.Command, name: str, arguments: Sequence[str]) -> int:
    """Run `command` and return its exit code; never raises for bad input."""
    _usable_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name of a cluster or file may hold letters that its encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, about metadata in images and the like: standard error is for our own lines
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGTERM, _end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
            signal.signal(signal.SIGINT, _end)
    try:
        # Not command.main: it turns a closed pipe into exit code 1 before we can see it.
        with command.make_context(name, list(arguments)) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        say(f"{name}: interrupted")
        return 130
    except Interrupted as error:
        say(f"{name}: {'interrupted' if error.signum == signal.SIGINT else 'terminated'}")
        return 128 + error.signum
    except click.ClickException as error:
        say(f"{name}: {one_line(error.format_message())} (see {name} --help)")
        return 2
    except CatVAEError as error:
        say(f"{name}: {one_line(str(error))}")
        return error.exit_code
    except (BrokenPipeError, ConnectionResetError):
        # The reader is gone; without this Python complains again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except MemoryError:
        say(f"{name}: not enough memory: ask for less at a time")
        return UNEXPECTED
    except OSError as error:
        if error.filename is not None:  # a folder that may not be looked into, or a name too long for a file
            say(f"{name}: cannot open {one_line(os.fsdecode(error.filename))}: {error.strerror}")
            return DataError.exit_code
        if error.errno == errno.ENOENT and not _working_folder():
            say(f"{name}: the working folder does not exist any more: change to another one")
            return DataError.exit_code
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF):  # the last: opened for reading
            return _unexpected(name)
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        say(f"{name}: cannot write to standard output: {error.strerror}")
        return OutputError.exit_code
    except Exception:
        return _unexpected(name)


def _working_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _unexpected(name: str) -> int:
    """Show the exception that is being handled, for a report of it."""
    import traceback  # only a fault needs it

    traceback.print_exc()
    say(f"{name}: this should not have happened: please report it, with the lines above")
    return UNEXPECTED


def _usable_streams() -> None:
    """Standard streams as programs expect them: open, since the next file would else become standard output, and waiting for data.

    A program that shares a pipe or terminal with us may have set it not to wait; Python then takes "nothing yet" for the end. That it waits
    holds for the other program too, as after any program that uses a terminal.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        with contextlib.suppress(OSError, AttributeError):  # what cannot wait, and Windows before Python 3.12
            os.set_blocking(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False, errors="backslashreplace" if mode == "w" else None))


def _end(number: int, frame: object) -> NoReturn:
    raise Interrupted(number)
