"""Stopping on SIGINT and SIGTERM where nothing is left half done: between two training steps, between two rows."""

import contextlib
import os
import signal
from collections.abc import Iterator


class Interrupted(BaseException):
    """A signal asked to stop; `signum` says which. No `Exception`: whatever damaged images and libraries raise is caught as those."""

    def __init__(self, signum: int, *, cut: bool = False):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.cut = cut
        """Whether it came in the middle of a write, which is left unfinished."""


@contextlib.contextmanager
def stop_on_signals(words: str = "", *, patient: bool = False) -> Iterator[list[int]]:
    """A list that receives the first SIGINT or SIGTERM; a second one acts at once. Outside the main thread signals are left alone.

    Parameters
    ----------
    words : str
        Said on standard error when the first comes: what is under way may take its time.
    patient : bool
        Only note a second signal: torchrun forwards what the terminal has already sent to every process, so it is no sign of impatience.
    """
    seen: list[int] = []
    previous = {}

    def note(signum: int, _frame: object) -> None:
        seen.append(signum)
        if patient:
            return
        signal.signal(signum, previous[signum])
        if words:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{words}\n".encode())  # not print: the signal may have come while something printed

    try:
        for signum in _heeded():
            previous[signum] = signal.getsignal(signum)  # first: the signal may come between this line and the next
            signal.signal(signum, note)
    except ValueError:
        previous.clear()
    try:
        yield seen
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _heeded() -> list[signal.Signals]:
    """The two signals, but for what the caller has us ignore: a shell's background jobs are not ended by what ends the foreground one."""
    return [signum for signum in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(signum) is not signal.SIG_IGN]


class Signals:
    """SIGINT and SIGTERM raise `Interrupted` at once, but not within ``with signals:``: there they wait for its end.

    A signal in the middle of a write would leave Python's buffers in doubt about what has gone out. A second signal does not wait: the
    reader of a pipe may have stopped reading.
    """

    def __init__(self) -> None:
        self._writing = False
        self._waiting: int | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle signals inside; outside the main thread they are left alone."""
        previous = {}
        try:
            for signum in _heeded():
                previous[signum] = signal.signal(signum, self._handle)
        except ValueError:
            previous.clear()
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def __enter__(self) -> None:
        self._writing = True

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._writing = False
        if self._waiting is not None and not failure:
            raise Interrupted(self._waiting)

    def _handle(self, signum: int, _frame: object) -> None:
        if self._writing and self._waiting is None:
            self._waiting = signum
        else:
            raise Interrupted(signum, cut=self._writing)
