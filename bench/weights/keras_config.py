"""What the configuration of a Keras 3 model says about a flow: activations, and how its layers are connected.

The layers of the article's own classes (Shuffle, SplitVector, AddCouple, ConcatVector, Scale) are code that isn't in
the file. Their arguments `mode` and `isinverse` are read as the article means them, and the connections between them
show where dimensions are permuted and which half a network reads.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from backends import ParameterError

LayerConfig = dict[str, Any]

PASSIVE = ("InputLayer", "Dropout", "GaussianNoise", "GaussianDropout")  # the identity, but in training
STRUCTURE = ("Functional", "Sequential", "Lambda", "Reshape", "Concatenate", "Subtract", "Add", "Identity")
RELU_DEFAULTS = {"max_value": None, "negative_slope": 0, "threshold": 0}


def catalogue(config: dict[str, Any]) -> dict[str, LayerConfig]:
    """Group in the weights file → configuration of the layer, in the model's order; empty if it lists none."""
    found: dict[str, LayerConfig] = {}

    def add(model: Any, prefix: str) -> None:
        layers = model.get("layers") if isinstance(model, dict) else None
        used: Counter[str] = Counter()
        for layer in layers if isinstance(layers, list) else []:
            kind = _snake_case(layer["class_name"])
            path = f"{prefix}/layers/{kind}" + (f"_{used[kind]}" if used[kind] else "")
            used[kind] += 1
            found[path] = layer
            add(layer.get("config"), path)

    add(config.get("config"), "")
    return found


def name(layer: LayerConfig) -> str:
    """The name that the user sees."""
    return str(layer["config"]["name"])


def has_own(layers: dict[str, LayerConfig]) -> bool:
    """Whether there are layers of classes that aren't Keras' own, or Lambda layers."""
    return any(not _is_built_in(layer) or layer["class_name"] == "Lambda" for layer in layers.values())


def starts(layers: dict[str, LayerConfig], path: str) -> bool:
    """Whether a Dense layer of the model itself takes something else than a Dense layer's output."""
    by_name = {name(layer): layer for layer in layers.values()}
    inputs = _inputs(layers[path], 0)
    while len(inputs) == 1 and by_name[inputs[0][0]]["class_name"] in ("Activation", "ReLU", *PASSIVE[1:]):
        inputs = _inputs(by_name[inputs[0][0]], inputs[0][1])
    return len(inputs) != 1 or by_name[inputs[0][0]]["class_name"] != "Dense"


def check(source: str, layers: dict[str, LayerConfig], dense: list[str]) -> dict[str, str]:
    """Refuse what no architecture can express; return the fields of the architecture that the configuration states.

    Args:
        source: the file, for messages.
        layers: as `catalogue` returns them.
        dense: groups of all Dense layers of the networks, in order.

    Raises:
        ParameterError: an activation, layer, mode or connection that no architecture has.
    """
    nested = [parent for parent in dict.fromkeys(_parent(path) for path in dense) if parent]
    first = [
        starts(layers, path) if not _parent(path) else _parent(path) != _parent(before)
        for before, path in zip(["", *dense], dense, strict=False)
    ]
    heads = [layers[_parent(path) or path] for path, begins in zip(dense, first, strict=True) if begins]
    ends = [path for path, next_begins in zip(dense, [*first[1:], True], strict=True) if next_begins]
    found = _activations(source, layers, nested)
    outputs = {found[path] for path in ends}
    for path in dense:
        allowed = ("relu", "linear") if path in ends else ("relu",)
        if found[path] not in allowed:
            raise ParameterError(
                f"{source}: layer {name(layers[path])} has activation {found[path]}; expected {' or '.join(allowed)}"
            )
    if len(outputs) > 1:
        raise ParameterError(f"{source}: some networks end with relu and some linear; expected all alike")
    return {"output": outputs.pop()} | _arguments(source, layers) | _connections(source, layers, heads)


def _activations(source: str, layers: dict[str, LayerConfig], networks: list[str]) -> dict[str, str]:
    """Group of each Dense layer → its activation, one in a layer of its own after it included."""
    found: dict[str, str] = {}
    last = ""
    for path, layer in layers.items():
        kind, settings = layer["class_name"], layer["config"]
        if not _is_built_in(layer):
            if _parent(path) in networks:
                raise ParameterError(f"{source}: layer {name(layer)} is a {kind}; expected Dense layers in a network")
        elif kind == "Dense":
            if len(layer.get("inbound_nodes", ())) > 1:
                raise ParameterError(f"{source}: layer {name(layer)} is used more than once; expected once")
            found[path], last = _activation(settings), path
        elif kind == "Activation" or (
            kind == "ReLU" and all(settings.get(key, value) == value for key, value in RELU_DEFAULTS.items())
        ):
            after = "relu" if kind == "ReLU" else _activation(settings)
            if not last or _parent(last) != _parent(path) or found[last] not in ("linear", after):
                raise ParameterError(f"{source}: layer {name(layer)} ({after}) doesn't follow a linear Dense layer")
            found[last] = after
        elif kind not in PASSIVE and (kind not in STRUCTURE or _parent(path) in networks):
            raise ParameterError(f"{source}: layer {name(layer)} is a {kind}; no architecture here has one")
    return found


def _activation(settings: dict[str, Any]) -> str:
    activation = settings.get("activation")
    return activation if isinstance(activation, str) else "linear" if activation is None else str(activation)


def _arguments(source: str, layers: dict[str, LayerConfig]) -> dict[str, str]:
    """What `mode` of a Shuffle and `isinverse` of an AddCouple say."""
    says: dict[str, str] = {}
    for layer in layers.values():
        settings = layer["config"]
        if _is_built_in(layer):
            continue
        if "mode" in settings:
            if settings["mode"] != "reverse":
                raise ParameterError(
                    f"{source}: layer {name(layer)} has mode {settings['mode']!r}, and its order is not among the "
                    "weights; expected 'reverse'"
                )
            says["permutation"] = "reverse"
        if "isinverse" in settings:
            sign = "add" if settings["isinverse"] else "subtract"
            if says.setdefault("sign", sign) != sign:
                raise ParameterError(f"{source}: some couplings add and some subtract; expected all alike")
    return says


def _connections(source: str, layers: dict[str, LayerConfig], heads: list[LayerConfig]) -> dict[str, str]:
    """Where the connections show a permutation: a layer with one input between merge (or input) and split."""
    by_name = {name(layer): layer for path, layer in layers.items() if not _parent(path)}
    permuted = []
    for head in heads:
        inputs = _inputs(head, 0)
        if len(head.get("inbound_nodes", ())) > 1:
            raise ParameterError(f"{source}: {name(head)} is used more than once; expected weights of its own each")
        if len(inputs) != 1 or inputs[0][0] not in by_name:
            return {}  # a Sequential model, say: no connections
        producer, node, part = inputs[0]
        if part != 0:
            raise ParameterError(
                f"{source}: {name(head)} reads part {part} of what layer {producer} gives; expected part 0, x₁"
            )
        before = _inputs(by_name[producer], node)
        if len(before) != 1:
            return {}
        permuted.append(len(_inputs(by_name[before[0][0]], before[0][1])) == 1 and not _is_noise(by_name[before[0][0]]))
    if all(permuted):
        return {"permute": "before"}
    if len(permuted) > 1 and not any(permuted):
        return {"permutation": "none"}
    if len(permuted) > 1 and all(permuted[1:]):
        return {"permute": "after"}
    if len(permuted) > 1:
        raise ParameterError(f"{source}: dimensions are permuted at some couplings only; expected all alike")
    return {}


def _inputs(layer: LayerConfig, node: int) -> list[tuple[str, int, int]]:
    """(layer, node, output) of each tensor that one call of a layer takes."""
    found: list[tuple[str, int, int]] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                producer, index, part = value["config"]["keras_history"]
                found.append((str(producer), int(index), int(part)))
            else:
                for entry in value.values():
                    collect(entry)
        elif isinstance(value, list):
            for entry in value:
                collect(entry)

    nodes = layer.get("inbound_nodes", [])
    if node < len(nodes):
        collect(nodes[node])
    return found


def _is_built_in(layer: LayerConfig) -> bool:
    module = layer.get("module")
    return isinstance(module, str) and (module == "keras" or module.startswith("keras."))


def _is_noise(layer: LayerConfig) -> bool:
    return layer["class_name"] in (*PASSIVE, "Lambda", "Identity")


def _parent(path: str) -> str:
    return path.rpartition("/layers/")[0]


def _snake_case(kind: str) -> str:
    """Keras' rule for the name of a layer's group."""
    kind = re.sub(r"\W+", "", kind)
    kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()
