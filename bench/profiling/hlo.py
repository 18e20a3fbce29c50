"""What XLA compiled, by its dump: the name of an instruction → what kind of work it is.

A trace of XLA's names instructions (`fusion.3`), not what they do. XLA_FLAGS' dump of the optimised modules says what
each of them holds, and by the scopes of the framework where it came from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.profiling.classify import category_of
from bench.profiling.events import Category

INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = .*?[ )}](?P<opcode>[a-z][a-z0-9\-]*)\((?P<rest>.*)$")
HEADER = re.compile(r"^HloModule (?P<name>[^,\s]+)")
COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.\-]+) (?:\(.*)?\{$")
CALLS = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
TARGET = re.compile(r'custom_call_target="([^"]+)"')
SOURCE = re.compile(r'op_(?:name|type)="([^"]+)"')

NO_WORK = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "after-all"}
"""Instructions that move and compute nothing themselves; loops and branches hold what does."""

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
