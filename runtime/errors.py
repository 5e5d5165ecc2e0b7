"""The failures a user can meet, each with the exit code its command ends with.

Messages are one line and say what was found, what was expected, which file or option, and how to mend it.
"""


class CatVAEError(Exception):
    """Base of every failure this project raises on purpose; as it stands, of memory that is not enough."""

    exit_code = 70


class UsageError(CatVAEError):
    """The command or call was put together wrongly."""

    exit_code = 2


class DataError(CatVAEError):
    """A model, manifest or data file is missing, corrupt or of a wrong version."""

    exit_code = 3


class DeviceError(CatVAEError):
    """The requested device or inference engine is not available here."""

    exit_code = 4


class OutputError(CatVAEError):
    """A result cannot be written."""

    exit_code = 5


class NumericError(CatVAEError):
    """Training was stopped because its numbers are no longer finite."""

    exit_code = 6


class ImageError(CatVAEError):
    """One image cannot be read; `code` is stable and machine-readable."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
