"""Errors meant for the person at the keyboard: one or two lines that say what, where and what was expected."""

from __future__ import annotations


class BenchError(Exception):
    """Something the user can mend; the command line prints it without a traceback and exits with 1."""


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


class DisagreesError(RuntimeError):
    """The model isn't the reference's: whatever else was measured of it is of something else."""
