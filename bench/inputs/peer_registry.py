"""Which peers there are: the usual libraries, each on its framework."""

from dataclasses import dataclass

OURS = "this harness"
"""What the harness' own backend is called among the peers, in its default mode."""

FRAMEWORKS = ("torch", "tensorflow", "jax")


@dataclass(frozen=True)
class Entry:
    """A peer: its name in the tables, the package whose version is recorded, its "module:class" below `bench.peers`."""

    name: str
    framework: str
    package: str
    location: str


KERAS = {"keras fit": "keras_peers:KerasFit", "keras train_on_batch": "keras_peers:KerasTrainOnBatch"}

REGISTRY = (
    *(Entry(name, framework, "keras", place) for framework in FRAMEWORKS for name, place in KERAS.items()),
    Entry("zuko", "torch", "zuko", "torch_peers:Zuko"),
    Entry("nflows", "torch", "nflows", "torch_peers:NFlows"),
    Entry("normflows", "torch", "normflows", "torch_peers:NormFlows"),
    Entry("FrEIA", "torch", "FrEIA", "torch_peers:FrEIA"),
    Entry("flowjax", "jax", "flowjax", "jax_peers:FlowJax"),
    Entry("distrax", "jax", "distrax", "jax_peers:Distrax"),
    Entry("tensorflow-probability", "tensorflow", "tensorflow-probability", "tensorflow_peers:TensorFlowProbability"),
)


def our_mode(mode: str) -> str:
    """Return the name of the harness' own backend in another mode than its default one, among the peers."""
    return f"{OURS}: {mode}"


def of_framework(framework: str) -> list[Entry]:
    """Return the peers on a framework, in the order of the tables."""
    return [entry for entry in REGISTRY if entry.framework == framework]
