"""The agreement suite in training: each backend step by step beside the reference, and training resumed by another."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from backends import Adam, AdamW, Architecture, Backend, Optimiser, Pixels, RMSProp, parameters
from backends.optimisers import AVERAGE
from backends.parameters import Parameters
from bench.agreement.agree import ARTICLE, ARTICLE_NOISE, Check, Setting, Stream, initial_weights, make, train
from bench.measures.likelihood import DEQUANTISED

LOCKSTEP_TOLERANCE = 1e-11
"""The largest relative difference in float64 after any of 100 steps, of losses and of the whole parameter vector."""

LARGEST_TOLERANCE = 1e-9
"""The largest difference of one parameter over the largest parameter. Adam divides by √v̂ + ε: where a gradient is
below ε = 10⁻⁷, its rounding error is multiplied by lr/ε = 10⁴ in every step. A sum of terms of size 10 has an error of
10⁻¹⁵, so that 100 steps may move such a parameter 10⁻⁹ apart, while the vector as a whole stays together."""

LOCKSTEP = {"loss": LOCKSTEP_TOLERANCE, "parameters": LOCKSTEP_TOLERANCE, "largest parameter": LARGEST_TOLERANCE}
"""Quantity → what its error may be in float64."""

LOCKSTEPS: dict[str, tuple[str, Optimiser, Pixels, int]] = {
    # case: architecture, optimiser, pixels, steps an epoch. Steps of one epoch each let every step be looked at; longer
    # epochs are what shows a schedule that runs by the epoch instead of by the step.
    "article, Adam": ("article", Adam(), ARTICLE, 1),
    "paper, RMSProp": ("paper", RMSProp(), DEQUANTISED, 1),
    "article, noise, Adam, epochs of 4": ("article", Adam(), ARTICLE_NOISE, 4),
    "paper, RMSProp, epochs of 4": ("paper", RMSProp(), DEQUANTISED, 4),
    # Warmed up within the first steps, and with an average that follows the weights as closely.
    "recipe, AdamW": ("paper", AdamW(1e-3, epochs=100, warmup_steps=4, average=0.9), DEQUANTISED, 1),
}


def lockstep(
    setting: Setting, chosen: Sequence[str], precision: str, device: str, cases: Sequence[str] = tuple(LOCKSTEPS)
) -> Iterator[Check]:
    """Train each backend beside the reference; one check a case, backend and quantity, the worst step standing for all.

    In float64 the tolerance is the project's; in other precisions trajectories part, and the check, without a tolerance
    (infinite), is a record of how far.
    """
    for case in cases:
        name, optimiser, pixels, steps = LOCKSTEPS[case]
        architecture = setting.architectures[name]
        initial = initial_weights(setting, name, architecture)
        stream = Stream(setting, pixels, steps)
        epochs = setting.steps // steps
        models = {
            variant: make(variant, architecture, initial, device, precision)
            for variant in chosen
            if variant != "numpy" or precision != "float64"
        }
        reference = make("numpy", architecture, initial, "cpu", "float64")
        errors: dict[str, list[tuple[float, float, float]]] = {variant: [] for variant in models}
        runs = {variant: model.train(stream.images, optimiser, stream, epochs) for variant, model in models.items()}
        for expected in reference.train(stream.images, optimiser, stream, epochs):
            vector = _vector(reference)
            for variant, run in runs.items():
                loss = float(np.abs(next(run).losses / expected.losses - 1).max())
                apart = _vector(models[variant]) - vector
                norm = float(np.linalg.norm(apart) / np.linalg.norm(vector))
                errors[variant].append((loss, norm, float(np.abs(apart).max() / np.abs(vector).max())))
        for variant, steps_off in errors.items():
            for (quantity, allowed), series in zip(LOCKSTEP.items(), np.transpose(steps_off).tolist(), strict=True):
                tolerance = allowed if precision == "float64" else np.inf
                rms = float(np.sqrt(np.mean(np.square(series))))
                yield Check("lockstep", case, variant, precision, "", quantity, float(np.max(series)), rms, tolerance)
                for epoch, error in enumerate(series, start=1) if steps == 1 else ():
                    yield Check("lockstep", case, variant, precision, "", quantity, error, np.nan, tolerance, epoch)


def _vector(model: Backend) -> NDArray[np.float64]:
    """All that is trained, and its average where the optimiser keeps one."""
    state = model.training_state()
    arrays = [state.parameters, *([state.moments[AVERAGE]] if AVERAGE in state.moments else [])]
    vectors = [each[name].ravel() for each in arrays for name in model.architecture.trainable_shapes]
    return np.concatenate(vectors).astype(np.float64)


RESUMED: dict[str, Optimiser] = {
    "article": Adam(),
    "paper": RMSProp(momentum_epoch=2),
    "article, shuffle": AdamW(1e-3, epochs=2, warmup_steps=2, average=0.9),
}
"""Case, which is an architecture's name → what it is trained by."""


def resume(
    setting: Setting, chosen: Sequence[str], device: str, cases: Sequence[str] = tuple(RESUMED)
) -> Iterator[Check]:
    """Six steps by the reference; or three by one backend, whose state another one resumes for three more."""
    for case in cases:
        optimiser = RESUMED[case]
        architecture = setting.architectures[case]
        initial = parameters.astype(initial_weights(setting, case, architecture), "float64")
        stream = Stream(setting, DEQUANTISED, steps=3)

        def start(variant: str, start: Parameters = initial, architecture: Architecture = architecture) -> Backend:
            return make(variant, architecture, start, device, "float64")

        vector = _vector(train(start("numpy"), optimiser, stream, 2))
        for first, second in zip(chosen, [*chosen[1:], *chosen[:1]], strict=True):
            resumed = start(second)
            train(resumed, optimiser, stream, 2)  # so that nothing that is trained or counted is the state's by chance
            resumed.resume(train(start(first), optimiser, stream).training_state())
            error = np.abs(_vector(train(resumed, optimiser, stream)) - vector) / np.abs(vector).max()
            rms = float(np.sqrt((error**2).mean()))
            pair = f"{first} → {second}"
            yield Check("resume", case, pair, "float64", "", "parameters", float(error.max()), rms, LOCKSTEP_TOLERANCE)
