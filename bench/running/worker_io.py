"""A worker's side of its supervision: it ends with its runner, reads its plan, and sends events as JSON lines.

However it ends, that is an event too. The runner's side of this is `bench.running.supervisor`.
"""

import os
import sys
import traceback
from collections.abc import Iterable
from typing import TextIO, TypeVar

from pydantic import BaseModel

from bench.records import Status
from bench.running.failures import reason_of, status_of
from bench.running.lifeline import end_with_runner
from bench.running.messages import Finished

Plan = TypeVar("Plan", bound=BaseModel)


def begin(plan: type[Plan]) -> tuple[Plan, TextIO]:
    """Read the plan that the runner sends, and end with the runner from here on.

    Returns:
        The plan, and what standard output was, for events; whatever is printed goes to standard error.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    text = sys.stdin.readline()
    end_with_runner()
    return plan.model_validate_json(text), events


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
