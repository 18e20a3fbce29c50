"""The runs of `nice-bench profile`: the runner, with workers that trace."""

from dataclasses import replace

from bench.errors import BenchError
from bench.inputs.protocol import Protocol, validate
from bench.records import Record
from bench.running.runner import Request, run
from bench.running.variant import Listener


def profile(request: Request, steps: int, listener: Listener) -> list[Record]:
    """Trace `steps` training steps of each backend.

    Args:
        request: what to train; its folder gets the records and the frameworks' traces, a subfolder a backend and mode.
        steps: how many.
        listener: notified of every event.

    Returns:
        One record a backend and mode.

    Raises:
        BenchError: nothing can be run, or the folder holds a profile already.
    """
    present = [label for label in request.variants() if (request.folder / label).exists()]
    if present:
        raise BenchError(f"{request.folder / present[0]}: exists; choose another --output")

    def command(label: str, interpreter: str) -> list[str]:
        return [interpreter, "-m", "bench.profiling.worker", str(steps), str(request.folder / label)]

    short = shortened(request.protocol, steps)
    return run(replace(request, kind="profile", protocol=short, command=command), listener)


def shortened(protocol: Protocol, steps: int) -> Protocol:
    """Return a profile's protocol: the same network, optimiser and batch, one epoch of a few embedded images."""
    entries = protocol.model_dump()
    entries["caption"] = f"{steps} training steps of protocol {protocol.name}, batch {protocol.training.batch}"
    entries["data"] |= {"dataset": "mnist-subset", "train": steps * protocol.training.batch, "select": "test"}
    entries["data"]["validation"] = 0
    if entries["initial"]["log_scale"] == "data":  # reads data.train images, which may be more than there are
        entries["initial"]["log_scale"] = "zeros"
    entries["training"] |= {"epochs": 1, "parts": 1, "rounds": 1, "target_loss": None, "keep": "last"}
    return validate(entries, source=f"protocol {protocol.name}")
