"""Invertibility in depth: round trips of every variant and precision, each beside what roundoff predicts of it.

The measure is `bench.measures.invertibility`; the prediction is that same measure, taken of `rounding_model`.
What exceeds it by more than `SLACK` is not rounding, and a breach. What is large and predicted is explained by it: an
error of x comes back multiplied by the slopes of the couplings passed after it and by exp(s) and exp(−s), and coarse
operands fall on another side of a boundary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from backends import Architecture, UnavailableError
from backends.parameters import Parameters, rounded
from bench.agreement.agree import Check, make
from bench.agreement.rounding_model import RoundingModel
from bench.measures.invertibility import coupling_alone, measure, measure_coupling, measure_couplings
from bench.measures.rounding import LAMBDA
from bench.records import Measurement

SLACK = LAMBDA
"""How many times one draw of the predicted errors an error may be; near 1 would do where there are many inputs."""

JUDGED = {"max_error": "max", "rms_error": "RMS", "log_prob_change": "change of log p"}


@dataclass(frozen=True)
class Trip:
    """One flow at "initial" or "trained" weights whose round trips are made, from scaled test images x, float64 [N, D].

    The seed is that of the inputs out of range and of the predicted errors.
    """

    case: str
    architecture: Architecture
    parameters: Parameters
    weights: str
    x: NDArray[np.float64]
    seed: int


def round_trips(trip: Trip, chosen: Sequence[str], precisions: Sequence[str], device: str) -> Iterator[Check]:
    """Errors in grey levels, end to end and per coupling, and the change of log p in nats.

    A check's error is the measured figure, its tolerance `SLACK` times the predicted one. Precisions that a variant
    lacks are passed over.
    """
    for precision in precisions:
        predicted: dict[str, float] = {}
        for variant in chosen:
            try:
                model = make(variant, trip.architecture, trip.parameters, device, precision)
            except UnavailableError:
                continue
            predicted = predicted or _predicted(trip, precision)
            whole = measure(model, trip.x, trip.weights, trip.seed)
            found = chain(whole, measure_couplings(model, trip.x, trip.weights))
            for quantity, error in _figures(found).items():
                tolerance = SLACK * predicted[quantity]
                about = ("invertibility", trip.case, variant, precision, trip.weights)
                yield Check(*about, quantity, error, np.nan, tolerance)


def _predicted(trip: Trip, precision: str) -> dict[str, float]:
    held = rounded(trip.parameters, precision)
    whole = RoundingModel(trip.architecture, held, precision, trip.seed)
    figures = _figures(measure(whole, trip.x, trip.weights, trip.seed))
    for k in range(trip.architecture.couplings):
        alone = RoundingModel(*coupling_alone(trip.architecture, held, k), precision, trip.seed)
        figures |= _figures(measure_coupling(alone, trip.x, trip.weights, k))
    return figures


def _figures(measurements: Iterator[Measurement]) -> dict[str, float]:
    """What was measured of what → how much; None was not a number."""
    figures = {}
    for m in measurements:
        if m.quantity in JUDGED:
            where = f", coupling {m.context['coupling']} alone" if "coupling" in m.context else ""
            times = "" if m.context["trips"] == 1 else f" × {m.context['trips']}"
            what = f"{m.context['inputs']}, {m.context['direction']}{times}{where}: {JUDGED[m.quantity]}, {m.unit}"
            figures[what] = np.nan if m.value is None else m.value
    return figures
