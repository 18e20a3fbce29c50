"""The agreement suite at given weights: every backend and every ordered pair against the reference, and samples."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

import backends
from backends import Architecture, Backend, TrainingState, UnavailableError, parameters
from backends.parameters import Parameters
from bench.agreement.agree import Check, Setting, make, weights_of
from bench.agreement.rounding_model import RoundingModel
from bench.errors import BenchError
from bench.inputs.streams import pixels_to_x
from bench.measures.likelihood import DEQUANTISED
from bench.measures.rounding import Rounding


def matrix(setting: Setting, chosen: Sequence[str], precisions: Sequence[str], device: str) -> Iterator[Check]:
    """Every backend, precision, architecture, at initial and trained weights."""
    for case, architecture in setting.architectures.items():
        weights = weights_of(setting, case, architecture)
        x = pixels_to_x(setting.images[: setting.batch], DEQUANTISED, setting.seed)
        for name, given in weights.items():
            yield from _ported(case, architecture, name, given, chosen, device)
        expected = {name: Expected(architecture, given, x) for name, given in weights.items()}
        for variant in chosen:
            for precision in precisions:
                try:
                    model = make(variant, architecture, weights["initial"], device, precision)
                except UnavailableError:
                    continue
                yield from expected["initial"].compare(model, case, variant, "initial")
                # Into the same model, since a new one would compile everything anew.
                model.resume(TrainingState(parameters.rounded(weights["trained"], precision)))
                yield from expected["trained"].compare(model, case, variant, "trained")


def _ported(
    case: str, architecture: Architecture, weights: str, given: Parameters, chosen: Sequence[str], device: str
) -> Iterator[Check]:
    """Every ordered pair of backends: given to the first, asked back, given to the second, asked back.

    In float64 every number is one that float32 can't hold, so that a passage through it would show.
    """
    for precision in ("float64", "float32"):
        held = parameters.astype(given, precision)
        if precision == "float64":
            floats = {name: array for name, array in held.items() if array.dtype.kind == "f"}
            held |= {name: np.where(a == 0, 2.0**-20, a) * (1 + 2.0**-40) for name, a in floats.items()}
        expected = parameters.digest(held)
        models = {name: make(name, architecture, held, device, precision) for name in chosen}
        for first in chosen:
            asked_back = models[first].parameters()
            for second in chosen:
                again = make(second, architecture, asked_back, device, precision)
                differ = parameters.digest(again.parameters()) != expected or parameters.digest(asked_back) != expected
                error = float(differ)
                yield Check("matrix", case, f"{first} → {second}", precision, weights, "parameters", error, np.nan, 0.0)


class Expected:
    """What the reference says at given weights and inputs, and how large the terms are that it adds up."""

    def __init__(self, architecture: Architecture, given: Parameters, x: NDArray[np.float64]) -> None:
        self.architecture, self.x = architecture, x
        reference = backends.create("numpy", architecture, parameters.astype(given, "float64"), precision="float64")
        self.z, self.log_det = reference.encode(x)
        self.log_prob, self.decoded = reference.log_prob(x), reference.decode(self.z)
        model = RoundingModel(architecture, given, "float64", seed=0)
        model.encode(x)
        self.settled = x[model.nearest_zero > Rounding(architecture, "float32", len(x)).chain]
        if not len(self.settled):
            raise BenchError("no gradient can be compared: float32 might switch a ReLU in every row; take more rows")
        self.at_settled, self.at_all = reference.gradients(self.settled), reference.gradients(x)
        self.score_at_settled, self.score_at_all = reference.score(self.settled), reference.score(x)
        s = given["log_scale"].astype(np.float64)
        # z = exp(s) · h: where h is a small difference of larger terms, exp(s) makes its rounding error large too.
        h = float(np.abs(self.z * np.exp(-s)).max())
        self.size_z = float(np.exp(s).max()) * max(1.0, h)
        self.size_decoded = max(1.0, h)
        self.size_log_det = float(np.abs(s).sum()) or 1.0
        slope = self.z if architecture.prior == "gaussian" else np.tanh(self.z / 2)
        squares = np.sqrt(((slope * np.exp(s)) ** 2).sum(axis=1)) * max(1.0, h)
        constant = architecture.dim * (0.5 * np.log(2 * np.pi) if architecture.prior == "gaussian" else 2 * np.log(2))
        self.size_log_prob = float(squares.max() + np.abs(self.log_prob).max() + self.size_log_det + constant)
        self.amplified = max(1.0, self.size_z / float(np.abs(self.z).max()))

    def compare(self, model: Backend, case: str, variant: str, weights: str) -> Iterator[Check]:
        """Each quantity of a model at the same weights."""
        rounding = Rounding(self.architecture, model.precision, len(self.x))

        def check(quantity: str, error: NDArray, size: float, tolerance: float) -> Check:
            relative = np.abs(error.astype(np.float64)) / size
            errors = float(relative.max()), float(np.sqrt((relative**2).mean()))
            return Check("matrix", case, variant, model.precision, weights, quantity, *errors, tolerance)

        z, log_det = model.encode(self.x)
        yield check("z", z - self.z, self.size_z, rounding.chain)
        yield check("log_det", log_det - self.log_det, self.size_log_det, rounding.log_det)
        yield check("log_prob", model.log_prob(self.x) - self.log_prob, self.size_log_prob, rounding.log_prob)
        yield check("decode", model.decode(self.z) - self.decoded, self.size_decoded, rounding.chain)
        rows, (exact_loss, exact) = (self.x, self.at_all) if rounding.coarse else (self.settled, self.at_settled)
        score = self.score_at_all if rounding.coarse else self.score_at_settled
        off_score = model.score(rows) - score
        if rounding.coarse:
            size = self.amplified * float(np.linalg.norm(score))
            yield check("score norm", np.asarray(np.linalg.norm(off_score)), size, rounding.gradient_norm)
        else:
            yield check("score", off_score, self.amplified * float(np.abs(score).max()), rounding.score)
        loss, gradients = model.gradients(rows)
        yield check("loss", np.asarray(loss - exact_loss), self.size_log_prob, rounding.log_prob)
        if not rounding.coarse:
            errors = [(gradients[n] - its) / (np.abs(its).max() or 1.0) for n, its in exact.items()]
            flat = np.concatenate([error.ravel() for error in errors])
            yield check("gradient", flat, self.amplified, rounding.gradient)
            return
        norm = np.sqrt(sum(float((its**2).sum()) for its in exact.values()))
        off = np.sqrt(sum(float(((gradients[n] - its) ** 2).sum()) for n, its in exact.items()))
        yield check("gradient norm", np.asarray(off), self.amplified * norm, rounding.gradient_norm)


def sampling(setting: Setting, chosen: Sequence[str], device: str) -> Iterator[Check]:
    """Mean and mean square of the latents of samples, against the prior's, in standard errors (tolerance 5)."""
    temperature, count = 0.5, 400
    for case in ("article", "paper"):
        architecture = setting.architectures[case]
        given = parameters.astype(weights_of(setting, case, architecture)["trained"], "float64")
        # Second and fourth moments of the standard normal, and of the logistic density with scale 1.
        second, fourth = (1.0, 3.0) if architecture.prior == "gaussian" else (np.pi**2 / 3, 7 * np.pi**4 / 15)
        for name in chosen:
            model = make(name, architecture, given, device, "float64")
            z = model.encode(model.sample(count, temperature=temperature, seed=1))[0] / temperature
            for quantity, off, deviation in (
                ("mean of latents", z.mean(), np.sqrt(second)),
                ("mean square of latents", (z**2).mean() - second, np.sqrt(fourth - second**2)),
            ):
                error = abs(float(off)) * np.sqrt(z.size) / deviation
                yield Check("sampling", case, name, "float64", "trained", quantity, float(error), np.nan, 5.0)
