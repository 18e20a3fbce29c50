"""The worker as the regression check starts it: on the cores that are named.

    python -m bench.regression.check_worker CORE,CORE,…

Cores are counted from 0 among those that this process may use; it has as many threads.

A narrow network gains nothing from a second thread, and loses much where the cores have other work to do. Only the
training is measured: the check reads nothing else.
"""

import os
import sys
from collections.abc import Sequence


def main(cores: Sequence[int]) -> int:
    """Work as `bench.running.worker` does."""
    # Before NumPy or any framework is imported: they count the cores that they may use once.
    if hasattr(os, "sched_setaffinity"):  # elsewhere JAX and TensorFlow take all cores, whatever they are asked
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[core] for core in cores})
    os.environ["OMP_NUM_THREADS"] = str(len(cores))
    from bench.running import worker

    return worker.main(training_only=True)


if __name__ == "__main__":
    sys.exit(main([int(core) for core in sys.argv[1].split(",")]))
