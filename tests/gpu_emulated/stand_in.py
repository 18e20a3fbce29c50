"""A stand-in for CUDA's graphs and streams on CPU tensors, so that torch's `cudagraph` mode runs where no GPU is.

A graph records every aten call of what is captured, and replays it into the very same storages, as CUDA does; no Python
runs in a replay. Streams do nothing but write down who waits for whom.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import backends
from backends import torch_backend, torch_graphs

WAITS: list[tuple[str, str]] = []
"""Who waited for whom, in order."""


class Stream:
    """A stream that does nothing; its name is its number since the last `reset`, "main" for the current one."""

    current: ClassVar[list[str]] = ["main"]
    made = 0

    def __init__(self, *_: Any, name: str | None = None, **__: Any) -> None:
        Stream.made += name is None
        self.name = name or f"stream {Stream.made}"

    def wait_stream(self, other: Stream) -> None:
        WAITS.append((self.name, other.name))

    def synchronize(self) -> None:
        pass


@contextmanager
def on(stream: Stream) -> Iterator[None]:
    Stream.current.append(stream.name)
    try:
        yield
    finally:
        Stream.current.pop()


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class Graph:
    calls: list[tuple[Any, ...]]

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                arguments = func._schema.arguments
                in_place = any(a.alias_info is not None and a.alias_info.is_write for a in arguments)
                if not in_place and any(r.alias_info is not None for r in func._schema.returns):
                    continue  # a view: of what the calls before have written
                new = func(*args, **kwargs)
                if not in_place:
                    for old, fresh in zip(tensors(out), tensors(new), strict=True):
                        old.detach().copy_(fresh)


@contextmanager
def capture(graph: Graph, stream: Stream | None = None) -> Iterator[None]:
    with on(stream or Stream(name="main")), Recorder() as recorder:
        yield
    graph.calls = recorder.calls


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value for t in tensors(part)] if isinstance(value, list | tuple) else []


def install(monkeypatch: Any) -> None:
    """Let the torch backend believe in a GPU, until the test is over."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # what it makes is no aten call
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: Stream(name=Stream.current[-1]))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: self.clone())  # from a GPU it is a copy
    believe(monkeypatch, torch_backend.TorchBackend)
    WAITS.clear()
    Stream.made, Stream.current = 0, ["main"]


def believe(monkeypatch: Any, kind: Any) -> None:
    monkeypatch.setattr(kind, "devices", classmethod(lambda cls: ("cpu", "gpu")))
    monkeypatch.setattr(kind, "_torch_device", property(lambda self: torch.device("cpu")))


@contextmanager
def planted(monkeypatch: Any, folder: Path, module: str, old: str, new: str) -> Iterator[Any]:
    """The torch backend's class with `old` replaced by `new` in one of its two files."""
    names = {"torch_graphs": torch_graphs, "torch_backend": torch_backend}
    changed: dict[str, Any] = {}
    for name, original in names.items():
        text = Path(str(original.__file__)).read_text(encoding="utf-8")
        if name == module:
            assert text.count(old) == 1, f"{name}: {old!r} occurs {text.count(old)} times"
            text = text.replace(old, new)
        text = text.replace("from backends.torch_graphs import", "from mutant_torch_graphs import")
        path = folder / f"mutant_{name}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        changed[name] = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(changed[name])
    kind = changed["torch_backend"].TorchBackend
    believe(monkeypatch, kind)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(backends, "backend_class", lambda name: kind)
            yield kind
    finally:
        for name in names:
            del sys.modules[f"mutant_{name}"]
