"""Stopping on SIGINT and SIGTERM between two steps, so that the state on disk is whole."""

import contextlib
import signal
from collections.abc import Iterator


class Interrupted(Exception):
    """A signal asked training to stop; `signum` says which."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextlib.contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """A list that receives the first SIGINT or SIGTERM; a second one acts at once. Outside the main thread signals are left alone."""
    seen: list[int] = []
    previous = {}

    def note(signum: int, _frame: object) -> None:
        seen.append(signum)
        signal.signal(signum, previous[signum])

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            previous[signum] = signal.signal(signum, note)
    except ValueError:
        previous.clear()
    try:
        yield seen
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
