"""Words for settings that do not fit: what one is called, what its type expects, which known one an unknown one resembles."""

import difflib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

NUMBERS_ON_THE_COMMAND_LINE = {
    "clusters",
    "max_clusters",
    "delta",
    "lambda",
    "epochs",
    "batch_size",
    "learning_rate",
    "seed",
    "label_weight",
}
TYPES = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a list of numbers"}
"""What each type of setting is to somebody who writes a configuration file."""


def called(name: str) -> str:
    """As its option is called, or, without one, as configuration files call it."""
    name = {"lam": "lambda"}.get(name, name)
    return "--" + name.replace("_", "-") if name in NUMBERS_ON_THE_COMMAND_LINE else name


def misfit(structure: type[msgspec.Struct], values: Mapping[str, Any]) -> str:
    """What is wrong with the first value that is not of its field's type; empty where all are."""
    for field in msgspec.structs.fields(structure):
        value = values.get(field.encode_name, field.default)
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError:
            return f"{called(field.name)} is {value!r}, expected {_expected(field.type)}"
    return ""


def nearest(key: str, known: Sequence[str]) -> str:
    """The known name that an unknown one resembles, else all of them."""
    near = difflib.get_close_matches(str(key), known, 1)
    return f", did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"


def _expected(kind: Any) -> str:
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{', '.join(others)} or {last}" if others else last
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return " or ".join(map(_expected, get_args(kind)))
    return TYPES[get_origin(kind) or kind]
