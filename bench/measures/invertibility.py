"""Invertibility: how far a round trip lands from where it started.

x → z → x and z → x → z, one, three and nine times in a row, on test images and on inputs far from them. Errors are in
grey levels (1/255) for x, and in ULP of the largest value of the input; for z, which has no grey levels, the same unit
is used so that columns can be read together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends import Architecture, Backend
from backends.architecture import bias_name, kernel_name, permutation_name
from backends.parameters import Parameters
from bench.inputs.streams import uniforms
from bench.records import Measurement

TRIPS = (1, 3, 9)
GREY_LEVEL = 1 / 255


class Flow(Protocol):
    """The methods that a round trip needs of a backend."""

    dtype: np.dtype

    def encode(self, x: Any) -> tuple[NDArray, NDArray]:
        """Return z [N, D] and log|det| [N]."""

    def decode(self, z: Any) -> NDArray:
        """Return x [N, D]."""

    def log_prob(self, x: Any) -> NDArray:
        """Return log p [N], nats."""


def measure(model: Flow, x: NDArray[np.float64], weights: str, seed: int) -> Iterator[Measurement]:
    """Yield the errors of round trips of the whole flow, from test images x [N, D] and from inputs far from them."""
    noise = uniforms(seed, "inputs", 0, x.shape)
    for inputs, start in (
        ("test", x),
        ("uniform noise", noise),
        ("10 times out of range", 10 * noise),
        ("100 times out of range", 100 * noise),
    ):
        context: dict[str, Any] = {"weights": weights, "inputs": inputs}
        first = start.astype(model.dtype)
        z = model.encode(first)[0]
        for direction, origin, trip in (("x-z-x", first, _x_z_x), ("z-x-z", z, _z_x_z)):
            arrived = origin
            for trips in range(1, max(TRIPS) + 1):
                arrived = trip(model, arrived)
                if trips in TRIPS:
                    yield from _errors(origin, arrived, **context, direction=direction, trips=trips)
        change = float(np.abs(model.log_prob(model.decode(z)).astype(np.float64) - model.log_prob(first)).max())
        context |= {"direction": "x-z-x", "trips": 1}
        yield Measurement.of("invertibility", "log_prob_change", change, "nats", **context)


def measure_couplings(model: Backend, x: NDArray[np.float64], weights: str) -> Iterator[Measurement]:
    """Yield the errors of one round trip from x [N, D] through each coupling by itself."""
    parameters = model.parameters()
    for k in range(model.architecture.couplings):
        architecture, own = coupling_alone(model.architecture, parameters, k)
        alone = type(model)(architecture, own, device=model.device, precision=model.precision, mode=model.mode)
        yield from measure_coupling(alone, x, weights, k)


def measure_coupling(alone: Flow, x: NDArray[np.float64], weights: str, k: int) -> Iterator[Measurement]:
    """Yield the errors of one round trip from x [N, D] through a flow that is coupling k alone."""
    first = x.astype(alone.dtype)
    arrived = _x_z_x(alone, first)
    yield from _errors(first, arrived, weights=weights, inputs="test", direction="x-z-x", trips=1, coupling=k)


def coupling_alone(
    architecture: Architecture, parameters: Mapping[str, NDArray], k: int
) -> tuple[Architecture, Parameters]:
    """Return coupling k of a flow as a flow of its own, without the scale."""
    layers = range(architecture.hidden_layers + 1)
    names = [name for i in layers for name in (kernel_name(k, i), bias_name(k, i))]
    if architecture.permutation == "shuffle":
        names.append(permutation_name(k))
    alone = {name.replace(f"coupling.{k}.", "coupling.0."): parameters[name] for name in names}
    return replace(architecture, couplings=1), alone | {"log_scale": np.zeros_like(parameters["log_scale"])}


def _x_z_x(model: Flow, x: NDArray) -> NDArray:
    return model.decode(model.encode(x)[0])


def _z_x_z(model: Flow, z: NDArray) -> NDArray:
    return model.encode(model.decode(z))[0]


def _errors(origin: NDArray, arrived: NDArray, **context: Any) -> Iterator[Measurement]:
    error = np.abs(arrived.astype(np.float64) - origin)
    largest, rms = float(error.max()), float(np.sqrt((error**2).mean()))
    ulp = float(np.spacing(np.abs(origin).max()))
    yield Measurement.of("invertibility", "max_error", largest / GREY_LEVEL, "grey levels", **context)
    yield Measurement.of("invertibility", "rms_error", rms / GREY_LEVEL, "grey levels", **context)
    yield Measurement.of("invertibility", "ulp_error", largest / ulp, "ULP", **context)
