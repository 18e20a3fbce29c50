"""Settings of the test session. What the tests share is in `factories`.

`NICE_BENCH_TEST_BACKENDS=torch,jax` tests only these backends (and the NumPy reference). Without it all are tested, and
one that can't be imported here is a failure, not a skip.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
