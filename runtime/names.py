"""Names of classes and clusters: which can be given, and what stands in for those that cannot."""

import itertools
from collections import Counter
from collections.abc import Collection, Sequence

from .errors import UsageError
from .wording import printable

LONGEST_NAME = 255
"""Characters that a name may have."""
LONGEST_TEXT = 100
"""Characters of a data set's class that are shown: some are whole sentences."""
UNKNOWN_NAME = "unknown"
"""What rows call an image that is unlike all clusters; no cluster may be called that."""


def is_name(text: str) -> bool:
    """Whether terminals, tables and lists of one name a line show it as it is."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def refusal(name: str) -> str:
    """Why no cluster can be given this name; empty where it can."""
    if not is_name(name):
        return f"{name[:50]!r} cannot name a cluster: expected 1 to {LONGEST_NAME} printable characters"
    if name == UNKNOWN_NAME:
        return f"'{UNKNOWN_NAME}' is what rows call an image that is unlike all clusters: choose another name"
    return ""


def unnamed(cluster: int, taken: Collection[str]) -> str:
    """What a cluster is called that no class gives a name: ``cluster 3``, or ``cluster 3 (2)`` where a class is called that."""
    names = itertools.chain([f"cluster {cluster}"], (f"cluster {cluster} ({i})" for i in itertools.count(2)))
    return next(name for name in names if name not in taken)


def class_names(values: Sequence[str]) -> tuple[str, ...]:
    """Class names of a data set, made fit to name clusters: cut to `LONGEST_TEXT`, unprintable characters escaped, and numbered where two
    would be alike or one is ``unknown``."""
    shown = [printable(value)[:LONGEST_TEXT] or "(none)" for value in values]
    times, found = Counter(shown), list[str]()
    for i, name in enumerate(shown):
        if times[name] > 1 or name == UNKNOWN_NAME:
            numbered = (f"{name} ({number})" for number in itertools.count(i))
            name = next(text for text in numbered if text not in times and text not in found)
        found.append(name)
    return tuple(found)


def distinct(names: Sequence[str]) -> list[str]:
    """Names to tell clusters apart by in a picture: one that several share comes with each one's number."""
    shared = Counter(names)
    return [f"{name} ({cluster})" if shared[name] > 1 else name for cluster, name in enumerate(names)]


def find_cluster(text: str, names: list[str]) -> int:
    """The cluster of a name, or of a number where no cluster has that name; ``#3`` is the number, whatever clusters are called.

    Raises
    ------
    UsageError
        When there is none, or several clusters share the name.
    """
    number = text.removeprefix("#")
    counted = number.isdecimal() and len(number) <= 9 and int(number) < len(names)  # Python refuses to read thousands of digits
    if text.startswith("#") and counted and text not in names:
        return int(number)
    found = [i for i, name in enumerate(names) if name == text]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise UsageError(f"the clusters {', '.join(map(str, found))} are all named '{text}': give the number of one, #{found[0]} say")
    if counted:
        return int(number)
    named = "" if names == [str(i) for i in range(len(names))] else f", or one of {', '.join(names)}"
    raise UsageError(f"there is no cluster '{text}': expected 0 to {len(names) - 1}{named}")
