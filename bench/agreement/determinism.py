"""Determinism: does the same training give the same bits again?

In one process, in another one, and on another number of threads, against a first training in a process of its own:
digests of the final weights are compared, and where they differ, by how much the weights do. A CPU adds up in one
order as long as the number of threads stays, so there the same bits are demanded. How a sum is divided among threads
is not promised, and on a GPU it may differ from one run to the next (cuBLAS, XLA's autotuning): there the
difference is reported, not judged.

This module is also the program of those processes: what to train on standard input, weights into a file.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from backends import Adam, Architecture, backend_class, parameters
from backends.parameters import Parameters
from bench.agreement import agree
from bench.agreement.agree import ARTICLE, Check, Setting, Stream
from bench.errors import BenchError
from bench.running.worker_io import RUNNER, end_with_runner

STEPS = 20
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
TIMEOUT = 1800.0


def determinism(setting: Setting, chosen: Sequence[str], device: str) -> Iterator[Check]:
    """Train each variant in float32 four times; a check's error is 0 where every bit is that of the first time."""
    cores = len(os.sched_getaffinity(0))
    for variant in chosen:
        if "float32" not in backend_class(agree.parts(variant)[0]).precisions(device):
            continue
        first, again = _trainings(setting, variant, device, cores, times=2)
        (other,) = _trainings(setting, variant, device, cores, times=1)
        repetitions = {"again in the process": again, "in another process": other}
        if cores > 1:
            (repetitions["on 1 thread"],) = _trainings(setting, variant, device, 1, times=1)
        for quantity, found in repetitions.items():
            promised = device == "cpu" and quantity != "on 1 thread"
            tolerance = 0.0 if promised else np.inf
            error = _difference(first, found)
            yield Check("determinism", "article, Adam", variant, "float32", "", quantity, error, np.nan, tolerance)


def _difference(first: Parameters, found: Parameters) -> float:
    """The largest difference over the largest weight; 0 only where every bit is the same."""
    if parameters.digest(first) == parameters.digest(found):
        return 0.0
    largest = max(float(np.abs(array).max()) for array in first.values())
    apart = max(float(np.abs(found[name].astype(np.float64) - array).max()) for name, array in first.items())
    return max(apart / largest, float(np.finfo(np.float64).tiny))


def _trainings(setting: Setting, variant: str, device: str, threads: int, times: int) -> list[Parameters]:
    """Final weights of trainings one after the other in a fresh process that has so many threads."""
    with tempfile.TemporaryDirectory(prefix="nice-bench-") as folder:
        images = Path(folder, "images.npy")
        np.save(images, setting.images)
        outputs = [str(Path(folder, f"{time}.safetensors")) for time in range(times)]
        order = {
            "architecture": setting.architectures["article"].to_dict(),
            "variant": variant,
            "device": device,
            "images": str(images),
            "batch": setting.batch,
            "seed": setting.seed,
            "threads": threads,
            "outputs": outputs,
        }
        try:
            process = subprocess.run(
                [sys.executable, "-m", "bench.agreement.determinism"],
                input=json.dumps(order),
                env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {RUNNER: str(os.getpid())},
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"determinism: {variant} on {threads} threads took more than {TIMEOUT:g} s") from error
        if process.returncode:
            last = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise BenchError(f"determinism: {variant} on {threads} threads ended with {process.returncode}: {last}")
        return [parameters.load(output)[1] for output in outputs]


def main() -> None:
    """Train as standard input says, once for each output."""
    order = json.load(sys.stdin)
    end_with_runner()
    # Before any framework is imported: JAX has as many threads as the process has cores, and no variable for it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: order["threads"]])
    architecture = Architecture.from_dict(order["architecture"])
    setting = Setting(np.load(order["images"]), {"article": architecture}, STEPS, order["batch"], order["seed"])
    initial = agree.initial_weights(setting, "article", architecture)
    for output in order["outputs"]:
        model = agree.make(order["variant"], architecture, initial, order["device"], "float32")
        agree.train(model, Adam(), Stream(setting, ARTICLE, STEPS))
        parameters.save(output, architecture, model.parameters())


if __name__ == "__main__":
    main()
