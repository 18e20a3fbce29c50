"""A probe: a few inputs, and what the program that trained the weights makes of them. It proves a reading, or none."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from backends import ParameterError
from bench.errors import BenchError
from bench.weights.files import npz
from bench.weights.networks import Choices, Network
from bench.weights.readings import EXPRESSIBLE, OPTIONS, SCALES, Layout, Reading, encode, finish

HOW = {
    "torch": """A probe in PyTorch (model: whatever maps x to z in the program that trained the weights, D wide):
    x = torch.randn(16, D)
    with torch.no_grad(): z = model(x)
    numpy.savez("probe.npz", x=x, z=z)  # and log_prob=…, if the program has it""",
    "keras": """A probe in Keras (model: whatever maps x to z in the program that trained the weights, D wide):
    x = numpy.random.randn(16, D).astype("float32")
    z = model(x)
    numpy.savez("probe.npz", x=x, z=z)  # and log_prob=…, if the program has it""",
}
LEAST_ROWS = 4
COUPLING, END = ("sign", "activation", "output"), ("scale", "prior")  # choices that no file says anything of
COARSE_ROWS, COARSE = 2, 1e-2  # what a first look takes, and the relative error up to which a second one follows


@dataclass(frozen=True)
class Probe:
    """x [B, D], and of z [B, D] and log_prob [B] (nats) what there is; in float64, whatever they were stored in."""

    x: NDArray
    outputs: dict[str, NDArray]

    @classmethod
    def load(cls, path: Path, dim: int) -> Self:
        """Read an .npz file.

        Raises:
            ParameterError: it isn't one of these arrays, or too weak to prove anything.
            FileNotFoundError: there is no such file.
        """
        arrays = npz(path)
        if "x" not in arrays or len(arrays) < 2 or not set(arrays) <= {"x", "z", "log_prob"}:
            raise ParameterError(f"{path}: holds {sorted(arrays)}; expected x, and z or log_prob or both")
        x = arrays.pop("x")
        rows = len(x) if x.ndim else 0
        for name, array in {"x": x, **arrays}.items():
            shape = (rows,) if name == "log_prob" else (rows, dim)
            if array.shape != shape:
                raise ParameterError(f"{path}: {name} has shape {array.shape}; expected {shape}")
            if array.dtype not in (np.float32, np.float64):
                raise ParameterError(f"{path}: {name} is {array.dtype}; expected float32 or float64")
            if not np.isfinite(array).all():
                raise ParameterError(f"{path}: {name} has values that aren't finite; expected none")
        if (rows := len(np.unique(x, axis=0))) < LEAST_ROWS:
            raise ParameterError(f"{path}: has {rows} different rows; expected {LEAST_ROWS} or more")
        if constant := int((np.ptp(x, axis=0) == 0).sum()):
            raise ParameterError(f"{path}: {constant} of {dim} dimensions of x are the same in all rows; expected none")
        return cls(x.astype(np.float64), arrays)

    def epsilon(self, name: str) -> float:
        """The rounding unit of an output: of float32, unless its values need float64."""
        values = self.outputs[name]
        return float(np.finfo("f4" if np.array_equal(values, values.astype("f4")) else "f8").eps)


@dataclass(frozen=True)
class Space:
    """Networks and the layouts that they can have; all else is open."""

    choices: Choices
    networks: list[Network]
    layouts: list[Layout]
    scale: NDArray


def prove(source: str, spaces: list[Space], options: Choices, probe: Probe) -> Reading:
    """The reading that gives the probe's values to rounding, whether or not an architecture can express it.

    `spaces` are what the file and the `options`, choices that the user states, allow.

    Raises:
        BenchError: none does, or several that aren't the same function.
    """
    stated = {key: (options[key],) for key in (*COUPLING, *END) if key in options}
    wide = {key: OPTIONS[key] for key in (*COUPLING, *END)} | stated
    narrow = wide | EXPRESSIBLE | stated
    fits, nearest = _fitting(spaces, narrow, probe)
    if not fits:
        fits, nearest = _fitting(spaces, wide | {"output": narrow["output"]}, probe)
    if not fits:
        error, reading = nearest
        raise BenchError(
            f"{source}: no reading gives the probe's values{' with these options' if options else ''}; the nearest is "
            f"off by {error:.1g} of their size: {reading.name() if reading else 'none is finite'}. A probe has to be "
            "of these very weights, in evaluation mode, and float32 without TF32 or half precision"
        )
    best = fits[0]
    rivals, _ = _fitting([Space(best.choices, best.networks, [best.layout], best.scale)], wide, probe)
    fresh = np.random.default_rng(0).standard_normal((64, best.scale.size)) * np.logspace(-1, 3, 64)[:, None]
    expected = best.outputs(fresh, "float64")
    tolerance = 64 * max(probe.epsilon(name) for name in probe.outputs)
    others = [
        reading
        for reading in [*fits[1:], *rivals]
        if not _same(expected, reading.outputs(fresh, "float64"), tolerance, best.multiplier)
    ]
    if others:
        differing = [
            frozenset(key for key in best.choices if r.choices.get(key, best.choices[key]) != best.choices[key])
            for r in others
        ]
        keys = min(differing, key=len)
        others = [r for r, some in zip(others, differing, strict=True) if some == keys]
        listed = "; ".join(
            f"{key}: {', '.join(dict.fromkeys(r.choices.get(key, best.choices[key]) for r in [best, *others]))}"
            for key in best.choices
            if key in keys
        )
        raise BenchError(
            f"{source}: several readings give the probe's values: {listed}. {_remedy(keys, probe)}, or state them by "
            "--option KEY=VALUE"
        )
    return best


def _remedy(keys: frozenset[str], probe: Probe) -> str:
    missing = {"z", "log_prob"} - set(probe.outputs)
    if keys == {"prior"} or missing == {"z"}:
        return f"{'z' if 'z' in missing else 'log_prob'} in the probe tells them apart"
    return "Take inputs of about 1 in size"


def _fitting(
    spaces: list[Space], values: dict[str, tuple[str, ...]], probe: Probe
) -> tuple[list[Reading], tuple[float, Reading | None]]:
    """All readings that give the probe's values to rounding; and how near the nearest comes, relative."""
    fits: list[Reading] = []
    nearest: tuple[float, Reading | None] = (float("inf"), None)
    x = probe.x[:COARSE_ROWS].astype(np.float32)
    wanted = {name: array[:COARSE_ROWS] for name, array in probe.outputs.items()}
    with np.errstate(all="ignore"):
        for space, chosen in product(spaces, product(*(values[key] for key in COUPLING))):
            coupling = dict(zip(COUPLING, chosen, strict=True))
            h = encode(x, space.networks, space.layouts, coupling)
            for scale in values["scale"]:
                multiplier = SCALES[scale](space.scale.astype(np.float64))
                some = np.arange(len(h))
                if "z" in wanted:  # the prior has no part in it, and few are near
                    errors = _relative(h * multiplier.astype(h.dtype), wanted["z"])
                    some = np.flatnonzero(errors <= max(COARSE, errors.min()))
                for prior, i in product(values["prior"], some):
                    layout = space.layouts[i]
                    choices = space.choices | layout.choices | coupling | {"scale": scale, "prior": prior}
                    reading = Reading(choices, space.networks, layout, space.scale)
                    found = finish(h[i : i + 1], multiplier, prior)
                    error = max(float(_relative(found[name], value)[0]) for name, value in wanted.items())
                    if error < nearest[0]:
                        nearest = error, reading
                    if error < COARSE and disagreement(probe, reading) <= 1:
                        fits.append(reading)
    return fits, nearest


def _relative(found: NDArray, wanted: NDArray) -> NDArray:
    """[G] how far each is from what is wanted, root mean square, in units of that; infinite if not finite."""
    axes = tuple(range(1, found.ndim))
    error = np.sqrt(np.mean(np.square(found - wanted), axis=axes)) / max(np.sqrt(np.mean(np.square(wanted))), 1e-30)
    return np.where(np.isfinite(error), error, np.inf)


def disagreement(probe: Probe, reading: Reading) -> float:
    """How many times the error that rounding explains a reading is off from the probe's values, root mean square.

    What it gives in float32 lies as far from what it gives in float64 as rounding takes it. The dimensions of z are
    divided by what the reading multiplies them by: a large one would hide what is wrong in all others.
    """

    def rms(array: NDArray) -> float:
        return float(np.sqrt(np.mean(np.square(array))))

    found, single = (reading.outputs(probe.x, dtype) for dtype in ("float64", "float32"))
    worst = 0.0
    for name, wanted in probe.outputs.items():
        epsilon, unit = probe.epsilon(name), reading.multiplier if name == "z" else 1.0
        rounding = (single[name] - found[name]) / unit * (epsilon / np.finfo("f4").eps)
        allowed = 4 * (rms(rounding) + epsilon / 2 * rms(found[name] / unit))
        error = rms((found[name] - wanted) / unit)
        worst = max(worst, error / allowed if np.isfinite(error) and np.isfinite(allowed) else np.inf)
    return worst


def _same(expected: dict[str, NDArray], found: dict[str, NDArray], tolerance: float, multiplier: NDArray) -> bool:
    """Whether z, its dimensions divided by their multiplier, and log_prob agree in every row."""
    for name, wanted in expected.items():
        error, size = np.abs(found[name] - wanted), np.abs(wanted) + expected["z"].shape[1]  # log_prob: a sum of D
        if name == "z":
            error, size = ((np.abs(array) / np.abs(multiplier)).max(axis=1) for array in (error, wanted))
        if not (error <= tolerance * size).all():
            return False
    return True
