"""What XLA compiled, by its dump: the name of an instruction → what kind of work it is.

A trace of XLA's names instructions (`fusion.3`), not what they do. XLA_FLAGS' dump of the optimised modules says what
each of them holds, and by the scopes of the framework where it came from.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from bench.profiling.events import Category, category_of

INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = .*?[ )}](?P<opcode>[a-z][a-z0-9\-]*)\((?P<rest>.*)$")
HEADER = re.compile(r"^HloModule (?P<name>[^,\s]+)")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.\-]+) (?:\(.*)?\{$")
CALLS = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
TARGET = re.compile(r'custom_call_target="([^"]+)"')
SOURCE = re.compile(r'op_(?:name|type)="([^"]+)"')

NO_WORK = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "after-all"}
"""Instructions that move and compute nothing themselves; loops and branches hold what does."""

# Of code for a GPU that is only compiled: the sequence in which a device is asked to do things, and the loops' bodies.
THUNK = re.compile(r"^(?P<indent> *)\d+: (?P<kind>k\w+)")
NO_KERNEL = re.compile("kWhile|kCommandBuffer|kSequential|kConditional|kAsyncStart|kAsyncDone|kDynamicSliceFusion")
TYPED = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = \(?(?P<type>[a-z]+[0-9]*)\[", re.MULTILINE)
PRODUCT = re.compile(r"^.* (?:dot|custom-call)\(%?(?P<operand>[\w.\-]+), .*$", re.MULTILINE)
TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
HOST = re.compile(r"S\(5\)|\b(?:send|recv|infeed|outfeed)\(|custom_call_target=\"[^\"]*callback")

Categories = dict[tuple[str, str], Category | None]


@dataclass
class Instruction:
    """One line of a computation: opcodes of its own and of what it calls, and where it came from."""

    opcode: str
    calls: list[str]
    sources: list[str]


@dataclass
class Module:
    """A compiled module: its computations, each a table of instructions."""

    name: str = ""
    computations: dict[str, dict[str, Instruction]] = field(default_factory=dict)

    def categories(self) -> dict[str, Category | None]:
        """Return instruction → kind of work, None for none; names are unique in a module."""
        return {name: self._category(i) for c in self.computations.values() for name, i in c.items()}

    def _category(self, instruction: Instruction) -> Category | None:
        if instruction.opcode in NO_WORK:
            return None
        parts = [part for part in self._parts(instruction) if part.opcode not in NO_WORK]
        kinds = {category_of(part.opcode) for part in parts}
        if Category.PRODUCTS in kinds:
            return Category.PRODUCTS
        sources = (source for part in [instruction, *parts] for source in part.sources)
        if any(category_of(source) is Category.OPTIMISER for source in sources):
            return Category.OPTIMISER
        return Category.COPIES if kinds <= {Category.COPIES} else Category.OTHER

    def _parts(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yield the instruction itself, or those of the computations that a fusion or call has."""
        called = [self.computations[name] for name in instruction.calls if name in self.computations]
        if not called or instruction.opcode not in ("fusion", "call", "custom-call"):
            yield instruction
            return
        for computation in called:
            for part in computation.values():
                yield from self._parts(part)


def parse(text: str) -> Module:
    """Read the text of an optimised module."""
    module, computation = Module(), dict[str, Instruction]()
    for line in text.splitlines():
        if found := HEADER.match(line):
            module.name = found["name"]
        elif found := INSTRUCTION.match(line):
            target = TARGET.search(found["rest"])
            opcode = f"{found['opcode']} {target[1]}" if target else found["opcode"]
            instruction = Instruction(opcode, CALLS.findall(found["rest"]), SOURCE.findall(found["rest"]))
            computation[found["name"]] = instruction
        elif found := COMPUTATION.match(line):
            computation = module.computations.setdefault(found["name"], {})
    return module


def dump_into(folder: Path) -> None:
    """Have XLA write its optimised modules into `folder`; to be called before a framework is imported."""
    flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
    os.environ["XLA_FLAGS"] = " ".join(filter(None, [os.environ.get("XLA_FLAGS"), flags]))


def categories(folder: Path) -> Categories:
    """Return (module, instruction) → kind of work, None for none, of all modules dumped into `folder`."""
    found: Categories = {}
    for path in sorted(folder.glob("*after_optimizations.txt")):
        module = parse(path.read_text(encoding="utf-8", errors="replace"))
        found |= {(module.name, name): category for name, category in module.categories().items()}
    return found


@dataclass(frozen=True)
class Demands:
    """What a compiled module asks of a GPU, in an iteration of its loop where it has one.

    Attributes:
        kernels: kernels, products of a library and copies.
        launches: what the host starts; a command buffer is one, whatever it holds.
        products: precision → number.
        trip_count: of the loop; 0 where there is none, None where the compiler doesn't know it.
        transfers: instructions that wait for the host.
    """

    kernels: int
    launches: int
    products: Counter[str]
    trip_count: int | None
    transfers: int


def demands(text: str, thunks: str) -> Demands:
    """Read the text of a module that was compiled for a GPU, and the dump of its thunk sequence.

    Raises:
        ValueError: there is nothing in the sequence, or more than one loop.
    """
    lines = _thunks(thunks)
    loops = [indent for indent, kind in lines if kind == "kWhile"]
    if not lines or len(loops) > 1:
        raise ValueError(f"a thunk sequence of {len(lines)} lines and {len(loops)} loops; expected one loop at most")
    if loops:
        lines = list(takewhile(lambda line: line[0] > loops[0], _thunks(thunks.partition("body:\n")[2])))
    launches, buffer = 0, math.inf
    for indent, kind in lines:
        if indent <= buffer:  # outside the command buffer before
            buffer = indent if kind == "kCommandBuffer" else math.inf
            launches += kind == "kCommandBuffer" or not NO_KERNEL.fullmatch(kind)
    counts = TRIP_COUNT.findall(text)
    return Demands(
        kernels=sum(not NO_KERNEL.fullmatch(kind) for _, kind in lines),
        launches=launches,
        products=_products(text),
        trip_count=(int(counts[0]) if counts else None) if loops else 0,
        transfers=len(HOST.findall(text)),
    )


def _thunks(text: str) -> list[tuple[int, str]]:
    """Return how far each line of a thunk sequence is indented, and its kind."""
    return [(len(found["indent"]), found["kind"]) for line in text.splitlines() if (found := THUNK.match(line))]


def _products(text: str) -> Counter[str]:
    """Count the products of a module by the precision that they are asked for."""
    types = {found["name"]: found["type"] for found in TYPED.finditer(text)}
    made: Counter[str] = Counter()
    for found in PRODUCT.finditer(text):
        line = found[0]
        if " custom-call(" in line and not re.search(r'custom_call_target="__cublas', line):
            continue
        exact = re.search(r"operand_precision\W+highest", line, re.IGNORECASE)
        names = {"f32": "float32" if exact else "tf32", "f64": "float64", "bf16": "bfloat16"}
        made[names.get(types[found["operand"]], types[found["operand"]])] += 1
    return made
