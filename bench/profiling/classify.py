"""The name of an operation → what kind of work it is.

Names of four kinds of thing pass here: torch's operators, TensorFlow's operation types, HLO opcodes and the kernels of
CUDA libraries. The patterns are for all of them; the first that fits decides, that of updates first, since a fused
update is one kernel whatever else its name says.
"""

import re

from bench.profiling.events import Category

OPTIMISER = r"adam|rms_?prop|optimi[sz]er|_foreach_|multi_tensor_apply"
"""The operations that update parameters. Nothing but the paper's RMSProp uses torch's _foreach_ operators."""

PRODUCTS = (
    r"gemm|gemv|matmul|einsum|(^|[^a-z])(add|b|badd)?mm($|[^a-z])|(^|[^a-z])dot($|[^a-z])|mkl_linear|convolution|"
    r"nvjet|cutlass|xmma|splitk"
)
"""Matrix products; the last four are families of cuBLAS' kernels, and what adds up the parts of a divided one."""

COPIES = (
    r"cop(y|ies)|memcpy|memset|transpose|gather|scatter|index|concat|(^|[^a-z])cat($|[^a-z])|catarray|split|slice|stack|"
    r"pack|pad(_|$)|fill|zero|ones|permut|reverse|broadcast|convert|(^|[^a-z])cast|identity|readvariable|clone|"
    r"contiguous|reshape|tile"
)
"""The operations that move numbers, repeat them or change their type."""

PATTERNS = {Category.OPTIMISER: OPTIMISER, Category.PRODUCTS: PRODUCTS, Category.COPIES: COPIES}

LAUNCH = re.compile(r"^(cu|cuda|hip)(Launch|GraphLaunch|Memcpy\w*Async|Memset\w*Async)")
"""Calls by which a host starts work on a GPU."""

WAIT = re.compile(r"^(cu|cuda|hip)\w*Synchronize|BlockHostUntilDone")
"""Calls in which a host waits for a GPU."""


def category_of(name: str) -> Category:
    """Return what kind of work an operation is, by its name; elementwise arithmetic and sums are `OTHER`."""
    return next((category for category, pattern in PATTERNS.items() if re.search(pattern, name, re.I)), Category.OTHER)
