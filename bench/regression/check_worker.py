"""The worker as the regression check starts it: on so many threads, and with a fault planted if one is named.

    python -m bench.regression.check_worker BACKEND THREADS [FAULT]

A narrow network gains nothing from a second thread, and loses much where the cores have other work to do. Only the
training is measured: the check reads nothing else.
"""

from __future__ import annotations

import os
import sys


def main(backend: str, threads: int, fault: str | None = None) -> int:
    """Work as `bench.worker` does."""
    # Before NumPy or any framework is imported: they count the cores that they may use once.
    if hasattr(os, "sched_setaffinity"):  # elsewhere JAX and TensorFlow take all cores, whatever they are told
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from bench import worker

    if fault is None:
        return worker.main(training_only=True)
    from bench.agreement.mutations import planted
    from bench.regression.mutants_check import FAULTS

    with planted(FAULTS[fault], backend):
        return worker.main(training_only=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
