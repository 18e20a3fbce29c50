"""Errors meant for the person at the keyboard: one or two lines that say what, where and what was expected."""

from __future__ import annotations


class BenchError(Exception):
    """Something the user can mend; the command line prints it without a traceback and exits with 1."""
