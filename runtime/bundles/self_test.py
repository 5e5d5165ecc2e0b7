"""The golden inputs of a bundle, replayed on this machine: does it answer as PyTorch did where the model was exported?"""

import io
from typing import NamedTuple, TextIO

import numpy as np

from ..errors import DataError
from .bundle import Bundle
from .manifest import Role


class Check(NamedTuple):
    """One output of one graph."""

    output: str
    difference: float
    """Largest absolute difference, relative where the expected value is above 1; NaN when either holds one."""
    tolerance: float
    provider: str

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # NaN fails


def self_test(bundle: Bundle) -> list[Check]:
    """Replay every golden input through every graph.

    Raises
    ------
    DataError
        When `golden.npz` is not the file the manifest names, or cannot be read.
    """
    where, stored_bytes = bundle.path / bundle.manifest.golden.name, bundle.golden()
    try:
        with np.load(io.BytesIO(stored_bytes), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # of zipfile, zlib and numpy, whatever the bytes provoke
        raise DataError(f"{where} is not a golden file: {error}") from error
    checks = []
    roles: tuple[Role, ...] = ("classifier", "encoder", "decoder")
    for role in roles:
        session, record = bundle.session(role), bundle.manifest.graphs[role]
        kind = "cuda-tf32" if session.tf32 else session.provider
        tolerance = bundle.manifest.tolerances.get(kind, bundle.manifest.tolerances["cpu"])
        feed = record.inputs[0].name
        names = [tensor.name for tensor in record.outputs]
        try:
            answers = session.run({feed: arrays[feed]}, names)
            for name, found in zip(names, answers, strict=True):
                checks.append(Check(f"{role}.{name}", difference(found, arrays[f"{role}.{name}"]), tolerance, session.provider))
        except KeyError as error:
            raise DataError(f"{where} lacks {error}: export the bundle again") from error
    return checks


def print_self_test(bundle: Bundle, stream: TextIO) -> None:
    """Write a line for each check; raises `DataError` when one fails."""
    checks = self_test(bundle)
    for check in checks:
        verdict = "ok" if check.passed else "FAILED"
        stream.write(
            f"{check.output:<24} {check.provider:<5} difference {check.difference:.1e}, at most {check.tolerance:.0e}: {verdict}\n"
        )
    failed = [check.output for check in checks if not check.passed]
    if failed:
        raise DataError(
            f"{bundle.path} answers otherwise here than where it was exported ({', '.join(failed)}): do not use it on this machine"
        )


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest |found - expected| / max(1, |expected|); NaN when either holds one or the shapes differ."""
    if found.shape != expected.shape:
        return float("nan")
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max(initial=0.0))
