"""The parts of a trace, whichever framework wrote it, and what kind of work an operation is, by its name.

Names of four kinds of thing pass here: torch's operators, TensorFlow's operation types, HLO opcodes and the kernels of
CUDA libraries. The patterns are for all of them; the first that fits decides, that of updates first, since a fused
update is one kernel whatever else its name says.
"""

import re
from dataclasses import dataclass
from enum import Enum

MARK = "nice-bench profiled steps"
"""The name of the annotation that a trace holds around the steps: its ends are the ends of the window."""


class Category(Enum):
    """Kinds of work."""

    PRODUCTS = "products"
    OPTIMISER = "optimiser"
    COPIES = "copies"
    OTHER = "other"


@dataclass(frozen=True)
class Span:
    """A stretch of time, in seconds on the trace's own clock."""

    start: float
    end: float


@dataclass(frozen=True)
class Work:
    """A piece of work on the device: a kernel on a GPU's stream, an operator on a CPU's thread.

    Attributes:
        name: as the framework calls it.
        category: what kind of work.
        line: the stream or thread; pieces of one line may be nested, and then the innermost is what runs.
        span: when.
    """

    name: str
    category: Category
    line: str
    span: Span


@dataclass(frozen=True)
class Trace:
    """A few training steps.

    Attributes:
        window: from the first step's beginning to the end of the last, synchronised.
        work: what ran on the device.
        launches: when the host called the driver to start work; None where the device is the CPU itself.
        waits: when the host stood waiting for the device; None where the device is the CPU itself.
    """

    window: Span
    work: list[Work]
    launches: list[Span] | None = None
    waits: list[Span] | None = None


class TraceError(RuntimeError):
    """A trace that can't be read as expected; the message says what is missing."""


def checked(trace: Trace, device: str) -> Trace:
    """Return `trace`, after a check that it is of this device ("cpu" or "gpu").

    Raises:
        TraceError: it has no work of the GPU; what the host did would be taken for what the device did.
    """
    if device == "gpu" and trace.launches is None:
        raise TraceError("the trace holds no work of the GPU; does the framework find CUPTI?")
    return trace


def window_of(spans: list[Span]) -> Span:
    """Return the window, given the spans of all events called `MARK`.

    Raises:
        TraceError: there is none; the profiler has dropped events, or names them otherwise.
    """
    if not spans:
        raise TraceError(f"the trace holds no event {MARK!r}")
    return max(spans, key=lambda span: span.end - span.start)


# Kinds of work

OPTIMISER = r"adam|rms_?prop|optimi[sz]er|_foreach_(?!copy)|multi_tensor_apply(?!.*CopyFunctor)"
"""The operations that update parameters: also torch's on many tensors at once, but for the copy that casts kernels."""

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
