"""Points of a sweep: which operations are timed, over which sizes."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Axis = Literal["batch", "width", "depth", "couplings"]
Operation = Literal["log_prob", "sample", "train"]

AXES: tuple[Axis, ...] = get_args(Axis)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


class Point(BaseModel):
    """One point of a sweep: an operation, with one size of the protocol's network or batch in place of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    axis: Axis
    value: int = Field(gt=0)
    operation: Operation
