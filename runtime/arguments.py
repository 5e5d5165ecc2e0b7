"""Arguments of Python calls: what a caller can get wrong is a `UsageError` with what was found and what was expected."""

import operator
from typing import Any

from .errors import UsageError


def whole_number(value: Any, what: str, least: int = 0) -> int:
    """`value` as an int; numpy's integers are welcome, booleans are not."""
    expected = f"{what} is {value!r}, expected a whole number from {least} on"
    if isinstance(value, bool):
        raise UsageError(expected)
    try:
        number = operator.index(value)
    except TypeError as error:
        raise UsageError(expected) from error
    if number < least:
        raise UsageError(expected)
    return number
