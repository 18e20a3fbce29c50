"""Agreement with the float64 reference: the same weights and inputs, the largest difference over the largest value.

What a model computes at its initial weights, and how a few training steps move them, also says whether it is the model
that was to be measured at all: `refuse` ends a run whose figures would be those of something else.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

import backends
from backends import Backend, Optimiser, Pixels
from backends.parameters import Parameters, astype
from bench.errors import DisagreesError
from bench.inputs.streams import TrainingStream
from bench.measures.rounding import Rounding
from bench.records import Measurement

TRAINING_TOLERANCE = 0.02
"""The largest relative error of a few steps' updates, in float64 and float32.

Rounding changes the sign of gradients near zero, which Adam divides by their own size; that explains 2e-4 at full size.
A learning rate that is 5 % off gives 0.05.
"""


def relative(found: NDArray, reference: NDArray) -> float:
    """Return max |found − reference| / max |reference|; 0 where both are 0."""
    scale = float(np.abs(reference).max())
    difference = float(np.abs(found.astype(np.float64) - reference).max())
    return difference / scale if scale else (0.0 if difference == 0 else float("inf"))


def compare(model: Backend, x: NDArray[np.float64], weights: str) -> Iterator[Measurement]:
    """Yield the errors of z, log_det, log p, decode and the gradient at x [N, D], at the reference's weights."""
    reference = backends.create(
        "numpy", model.architecture, astype(model.parameters(), "float64"), device="cpu", precision="float64"
    )
    (z, log_det), (z_reference, log_det_reference) = model.encode(x), reference.encode(x)
    gradients, exact = model.gradients(x)[1], reference.gradients(x)[1]
    found = {
        "z": relative(z, z_reference),
        "log_det": relative(log_det, log_det_reference),
        "log_prob": relative(model.log_prob(x), reference.log_prob(x)),
        "decode": relative(model.decode(z_reference), reference.decode(z_reference)),
        # Not max(): it passes over what is not a number.
        "gradient": float(np.max([relative(gradients[name], exact[name]) for name in exact])),
    }
    for quantity, value in found.items():
        yield Measurement.of("agreement", quantity, value, "relative", weights=weights)


def trajectory(
    model: Backend, initial: Parameters, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels, seed: int
) -> Iterator[Measurement]:
    """Yield the errors of a short training: a new model like `model` against the reference, from the same start.

    The images are uint8 [steps, batch, D]; optimiser, pixels and seed are those of the run's own training.
    """
    steps, batch, dim = images.shape
    stream = TrainingStream(seed, steps * batch, dim, batch, pixels)
    same = {name: getattr(model, name) for name in ("device", "precision", "mode", "replicas", "nodes")}
    models = (
        type(model)(model.architecture, initial, **same),
        backends.create("numpy", model.architecture, astype(initial, "float64"), device="cpu", precision="float64"),
    )
    # To the end of each training: on several nodes it ends only when none still reads the last sum from another.
    reports, reports_reference = (list(each.train(images.reshape(-1, dim), optimiser, stream, 1)) for each in models)
    losses, losses_reference = reports[0].losses, reports_reference[0].losses
    after, after_reference = (each.training_state().parameters for each in models)
    # The updates are compared, not the weights: a step moves them so little that an error in it would hide.
    moved, moved_reference = (
        {name: after_[name].astype(np.float64) - initial[name] for name in model.architecture.trainable_shapes}
        for after_ in (after, after_reference)
    )
    loss, update = relative(losses, losses_reference), _rms(moved, moved_reference)
    yield Measurement.of("agreement", "trajectory_loss", loss, "relative", n=steps, weights="initial")
    yield Measurement.of("agreement", "trajectory_update", update, "relative", n=steps, weights="initial")


def refuse(found: Iterable[Measurement], rounding: Rounding) -> None:
    """End a run whose model, by `compare` and `trajectory` at its start, isn't the reference's within rounding.

    Raises:
        DisagreesError: z or decode is farther off, or, where products are as precise as sums, the training steps.
    """
    allowed = {"z": rounding.chain, "decode": rounding.chain}
    if not rounding.coarse:
        allowed["trajectory_update"] = TRAINING_TOLERANCE
    for m in found:
        if m.quantity in allowed and not (m.value is not None and m.value <= allowed[m.quantity]):
            off = "not a number" if m.value is None else f"{m.value:.1e}"
            raise DisagreesError(
                f"{m.quantity} at the initial weights is off by {off} from the float64 reference, "
                f"more than the {allowed[m.quantity]:.1e} that rounding explains"
            )


def _rms(found: Mapping[str, NDArray], reference: Mapping[str, NDArray]) -> float:
    """Return the root mean square of the difference over that of the reference, all arrays taken as one vector."""
    squares = sum(float(((found[name] - reference[name]) ** 2).sum()) for name in reference)
    return float(np.sqrt(squares / sum(float((reference[name] ** 2).sum()) for name in reference)))
