"""A worker's end of the line: what it says goes out as JSON lines, and however it ends, that is said too.

The other end is `bench.running.supervisor`.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from typing import TextIO

from pydantic import BaseModel

from bench.records import Status
from bench.running.failures import reason_of, status_of
from bench.running.messages import Finished


def take_standard_output() -> TextIO:
    """What standard output was; from here on whatever is printed goes to standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def tell(events: Iterable[BaseModel], out: TextIO) -> Status:
    """Write events as they happen, the last one a `Finished`; an exception becomes one that says what it was."""

    def emit(event: BaseModel) -> None:
        out.write(event.model_dump_json() + "\n")
        out.flush()

    try:
        for event in events:
            emit(event)
        return "ok"
    except Exception as error:
        status = status_of(error)
        if status == "failed":
            traceback.print_exc()
        emit(Finished(status=status, reason=reason_of(error)))
        return status
