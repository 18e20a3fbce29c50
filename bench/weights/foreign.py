"""Weights that another program trained, as canonical parameters: proved by a probe or declared in full, never guessed.

A file of weights leaves choices open (`readings`). A probe, a few inputs and what that program makes of them, settles
them: every reading is tried, and the one that gives the probe's values to rounding is taken. Without a probe each
choice has to be stated by the user, or be the only one that the file allows.

Couplings whose order of dimensions is none of an architecture's own get stored permutations. Numbers of the networks
are moved, never changed.
"""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import backends
from backends import Architecture, ParameterError, parameters
from backends.architecture import Index, bias_name, kernel_name, permutation_name
from backends.parameters import Parameters
from bench.errors import BenchError
from bench.inputs.streams import uniforms
from bench.measures.agreement import relative
from bench.weights import networks
from bench.weights.files import Content
from bench.weights.networks import Choices, Parts
from bench.weights.probes import COUPLING, END, HOW, Probe, Space, prove
from bench.weights.readings import OPTIONS, Reading, halved, layouts


def parse_options(given: Sequence[str]) -> Choices:
    """KEY=VALUE → {key: value}; keys are those of `readings.OPTIONS`.

    Raises:
        BenchError: an unknown key, a key twice, or a value that the key can't have.
    """
    options: Choices = {}
    for entry in given:
        key, equals, value = entry.partition("=")
        if not equals or key not in OPTIONS or key in options:
            raise BenchError(f"--option {entry!r}: expected KEY=VALUE, each KEY once and one of {', '.join(OPTIONS)}")
        if OPTIONS[key] and value not in OPTIONS[key]:
            raise BenchError(f"--option {entry!r}: expected one of {'; '.join(OPTIONS[key])}")
        if not OPTIONS[key] and not value.isdecimal():
            raise BenchError(f"--option {entry!r}: expected a positive integer")
        options[key] = value
    return options


def fit(content: Content, given: Sequence[str] = (), probe: Path | None = None) -> tuple[Architecture, Parameters, str]:
    """Express what a file holds as an architecture and its canonical parameters, in the dtype of the file.

    What the user states is `given` as KEY=VALUE. The line that comes last says how the reading was settled.

    Raises:
        BenchError: choices that stay open, or statements that the file or the probe contradicts.
        ParameterError: weights or a probe that can't be used, or a reading that no architecture can express.
    """
    options = parse_options(given)
    if probe is None and content.between:
        raise BenchError(
            f"{content.source}: what {', '.join(dict.fromkeys(content.between))} compute isn't in the file, so only a "
            f"probe shows it.\n{HOW['keras']}"
        )
    parts = networks.find(content)
    if probe is None and parts.unordered:
        raise BenchError(
            f"{content.source}: {' and '.join(parts.unordered[0])} differ in a word, which says no order; expected "
            f"numbers, or a probe.\n{HOW['keras' if content.keras else 'torch']}"
        )
    spaces = _spaces(content, parts, options)
    if probe is None:
        reading = _declared(content, parts, spaces, options)
        x = uniforms(0, "inputs", 0, (8, parts.scale.size))
        how = "stated by --option, or the only one that the file allows"
    else:
        loaded = Probe.load(probe, parts.scale.size)
        x = loaded.x.astype(np.float64)
        reading = prove(content.source, spaces, options, loaded)
        how = f"proved by {probe} ({len(loaded.x)} inputs; {' and '.join(loaded.outputs)} agree to rounding)"
    if named := reading.inexpressible:
        raise ParameterError(f"{content.source}: is a flow with {' and '.join(named)}, which no architecture here has")
    architecture, arrays = _canonical(reading)
    parameters.check(architecture, arrays, source=content.source)
    _check(content.source, reading, architecture, arrays, x)
    return architecture, arrays, f"{how}: {reading.name()}"


def _spaces(content: Content, parts: Parts, options: Choices) -> list[Space]:
    """What names, shapes and contents allow of the couplings, less what contradicts the options."""
    found = []
    for choices, division in parts.divisions:
        if all(options.get(key, value) == value for key, value in choices.items()):
            ordered = layouts(parts, division, choices, options)
            if ordered:
                found.append(Space(choices, division, ordered, parts.scale))
    if not found:
        held = "; ".join(
            ", ".join(f"{key}={value}" for key, value in choices.items()) for choices, _ in parts.divisions
        )
        more = f", {len(parts.masks)} masks" * bool(parts.masks)
        more += f", {len(parts.permutations)} permutations" * bool(parts.permutations)
        stated = " ".join(f"--option {key}={value}" for key, value in options.items())
        raise BenchError(f"{content.source}: holds {held}{more}; that contradicts {stated or 'every order known here'}")
    return found


def _declared(content: Content, parts: Parts, spaces: list[Space], options: Choices) -> Reading:
    """The one reading that file and options leave; or a refusal that lists what stays open."""
    values: dict[str, list[str]] = {key: list(OPTIONS[key]) for key in (*COUPLING, *END)}
    for space in spaces:
        for choices in (space.choices, *(layout.choices for layout in space.layouts)):
            for key, value in choices.items():
                values.setdefault(key, []).append(value)
    open_ = {key: list(dict.fromkeys(some)) for key, some in values.items() if key not in options}
    open_ = {key: some for key, some in open_.items() if len(some) > 1 or key in parts.unproved}
    if open_:
        listed = "\n".join(f"    {key}: {'; '.join(some)}" for key, some in open_.items())
        raise BenchError(
            f"{content.source}: doesn't say what it computes. Prove it by --probe, or state each of these by "
            f"--option KEY=VALUE:\n{listed}\n{HOW['keras' if content.keras else 'torch']}"
        )
    space, layout = spaces[0], spaces[0].layouts[0]
    return Reading(space.choices | layout.choices | options, space.networks, layout, parts.scale)


def _canonical(reading: Reading) -> tuple[Architecture, Parameters]:
    layout, choices = reading.layout, reading.choices
    stacks = [halved(network, *places) for network, places in zip(reading.networks, layout.places, strict=True)]
    order = {key: choices[key] for key in ("reorder", "permutation", "permute", "split")}
    permutations: list[Index] = []
    if not layout.plain:
        order, permutations = _stored_order(layout.steps, layout.exit)
        if len(permutations) > len(stacks):  # a coupling that adds 0, so that z comes in its order
            stacks.append([(np.zeros_like(kernel), np.zeros_like(bias)) for kernel, bias in stacks[0]])
    exact = {"exp(s)": reading.scale, "exp(-s)": -reading.scale}
    log_scale = exact[choices["scale"]] if choices["scale"] in exact else np.log(reading.multiplier)
    arrays = {"log_scale": log_scale.astype(reading.scale.dtype)}
    for k, stack in enumerate(stacks):
        for i, (kernel, bias) in enumerate(stack):
            arrays[kernel_name(k, i)], arrays[bias_name(k, i)] = np.array(kernel, order="C"), np.array(bias)
    arrays.update({permutation_name(k): p.astype(np.int32) for k, p in enumerate(permutations)})
    fields = order | {key: choices[key] for key in ("sign", "output", "prior")}
    sizes = (layout.exit.size, len(stacks), len(stacks[0]) - 1, stacks[0][0][0].shape[1])
    return Architecture(*sizes, **fields), arrays  # type: ignore[arg-type]


def _stored_order(steps: Index, exit_: Index) -> tuple[Choices, list[Index]]:
    """Permutations before or after each coupling that bring what it reads to where the split finds it.

    Before each coupling, the last one leaves z as it is; after each, x begins as it is. Where neither fits, one more
    permutation than couplings is returned.
    """
    in_order = np.arange(exit_.size)
    for permute, split in product(("before", "after"), ("interleaved", "halves")):
        orders = (steps.mT if split == "interleaved" else steps).reshape(len(steps), -1)
        if permute == "before" and np.array_equal(orders[-1], exit_):
            stages = [in_order, *orders]
            break
        if permute == "after" and np.array_equal(orders[0], in_order):
            stages = [*orders, exit_]
            break
    else:
        split, permute, stages = "halves", "before", [in_order, *orders, exit_]
    moves = [np.argsort(held)[wanted] for held, wanted in pairwise(stages)]
    return {"reorder": "none", "permutation": "shuffle", "permute": permute, "split": split}, moves


def _check(source: str, reading: Reading, architecture: Architecture, arrays: Parameters, x: NDArray) -> None:
    """Hold what the reference makes of the canonical parameters against the reading."""
    model = backends.create("numpy", architecture, parameters.astype(arrays, "float64"), precision="float64")
    expected = reading.outputs(x, "float64")
    errors = relative(model.encode(x)[0], expected["z"]), relative(model.log_prob(x), expected["log_prob"])
    if not max(errors) < 64 * np.finfo(reading.scale.dtype).eps:  # the logarithm of a scale is rounded
        raise BenchError(f"{source}: the reference gives other numbers than the reading {reading.name()}; not written")
