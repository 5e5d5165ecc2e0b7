"""The seal of a manifest: a hash of all it says, so that no damaged byte of it changes an answer in silence.

It shows damage and careless edits, not forgery: whoever edits a manifest can seal it anew. Spaces and line ends do not count.
"""

import json
from typing import Any

from ..errors import DataError
from ..files import pretty_json, sha256

KEY = "seal"


def seal_of(manifest: dict[str, Any]) -> str:
    """SHA-256 of the JSON text of everything but the seal itself, keys sorted, without spaces, in ASCII."""
    fields = {key: value for key, value in manifest.items() if key != KEY}
    return sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


def sealed(manifest: Any) -> bytes:
    """The file of a manifest, a structure or what JSON made of one, with its seal."""
    fields = manifest if isinstance(manifest, dict) else json.loads(pretty_json(manifest))
    return (json.dumps(fields | {KEY: seal_of(fields)}, indent=2, ensure_ascii=False) + "\n").encode()


def require_seal(fields: dict[str, Any], where: str) -> None:
    """Raise `DataError` unless a manifest says what it said when it was written."""
    found = fields.get(KEY)
    if found != seal_of(fields):
        how = "it has no seal" if found is None else "its seal is of another text"
        raise DataError(f"{where} was changed or damaged since it was written ({how}): export the bundle again; catvae-label changes names")
