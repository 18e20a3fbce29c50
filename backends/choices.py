"""Devices, precisions and modes: what may be asked for, and the refusal of what isn't known or isn't there."""

from collections.abc import Callable, Sequence

PRECISIONS = ("float64", "float32", "tf32", "bfloat16")
DEVICES = ("cpu", "gpu")


class UnavailableError(RuntimeError):
    """A framework, device, precision or mode that can't be had here; the message says what is there instead."""


def choose_device(backend: str, asked: str, present: Sequence[str], why_no_gpu: Callable[[], str]) -> str:
    """The device that `asked` means; "auto" is a GPU where the backend sees one.

    `why_no_gpu` gives the framework's own reason, where it has one.

    Raises:
        ValueError: there is no device of that name.
        UnavailableError: it isn't `present` here.
    """
    if asked == "auto":
        return "gpu" if "gpu" in present else "cpu"
    if asked not in DEVICES:
        raise ValueError(f"device is {asked!r}; expected one of {('auto', *DEVICES)}")
    if asked not in present:
        reason = why_no_gpu() if asked == "gpu" else ""
        because = f" ({reason})" if reason else ""
        raise UnavailableError(f"{backend}: no {asked} is visible to it here{because}; it has {', '.join(present)}")
    return asked


def choose_replicas(backend: str, device: str, asked: int, present: int) -> None:
    """Refuse a number of devices side by side that can't be had.

    Raises:
        ValueError: it is no number of devices.
        UnavailableError: there are fewer, or the backend trains on one alone.
    """
    if asked < 1:
        raise ValueError(f"devices is {asked}; expected at least 1")
    if asked > present:
        raise UnavailableError(f"{backend}: trains on at most {present} {device} here; {asked} were asked for")


def choose(backend: str, what: str, asked: str, known: Sequence[str], present: Sequence[str], device: str) -> str:
    """A precision or a mode that the backend knows and has on its device.

    Raises:
        ValueError: it doesn't know it.
        UnavailableError: it isn't `present` on that device.
    """
    if asked not in known:
        raise ValueError(f"{what} is {asked!r}; {backend} has {known}")
    if asked not in present:
        raise UnavailableError(f"{backend}: no {what} {asked} on device {device}; it has {', '.join(present)}")
    return asked


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
