"""Types of the compiled extension module (cffi API mode)."""

from typing import Any

ffi: Any
lib: Any
