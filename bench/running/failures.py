"""Failures: what an exception of a framework means, in the words of a record."""

from backends import UnavailableError
from bench.errors import DisagreesError, DivergedError
from bench.records import Status

OUT_OF_MEMORY = ("out of memory", "out_of_memory", "resource_exhausted", "bad_alloc", "not enough memory")


def status_of(error: Exception) -> Status:
    """The status of what ended in this exception."""
    if isinstance(error, UnavailableError):
        return "unavailable"
    if isinstance(error, DivergedError):
        return "diverged"
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return "out_of_memory"
    return "failed"


def reason_of(error: Exception) -> str:
    """Its first line; headed by its type, unless its message was written for people to read."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    expected = isinstance(error, UnavailableError | DivergedError | DisagreesError)
    return first if expected else f"{type(error).__name__}: {first}"[:500]
