"""Who may import whom: an import never reaches back up, and reading never starts a process."""

import ast
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
SOURCES = {path.relative_to(BENCH.parent).as_posix(): path.read_text(encoding="utf-8") for path in BENCH.rglob("*.py")}
READING = ("tables", "figures", "comparison", "report")
STARTING = ("running", "sweeps", "peers")
MOST_LOOSE = 4


def folder(module):
    """The folder of bench/ that a module or file lies in; "" for what lies loose."""
    parts = module.removesuffix(".py").replace("/", ".").split(".")
    return parts[1] if len(parts) > 2 or (len(parts) == 2 and (BENCH / parts[1]).is_dir()) else ""


def edges(sources):
    """Folder → the folders that its files import from."""
    found = {}
    for path, text in sources.items():
        own = found.setdefault(folder(path), set())
        for node in ast.walk(ast.parse(text)):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "bench":
                names = [node.module] if node.module != "bench" else [f"bench.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith("bench.")]
            own |= {folder(name) for name in names} - {folder(path)}
    return {one: others - {""} for one, others in found.items() if one}


def breaches(sources):
    """A sentence for each rule that is broken."""
    found, told = edges(sources), []
    if "agreement" in found["measures"]:
        told.append("measures imports agreement")
    told += [f"{a} imports {b}" for a in READING for b in STARTING if b in found[a]]
    while ends := [one for one, others in found.items() if not others & set(found)]:
        for one in ends:
            del found[one]
    if found:
        told.append(f"a cycle among {', '.join(sorted(found))}")
    return told


def test_at_most_four_modules_lie_loose():
    loose = [path.name for path in BENCH.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    assert len(loose) <= MOST_LOOSE, loose


def test_no_import_runs_back_up():
    assert breaches(SOURCES) == []


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("bench/measures/floor/__init__.py", "from bench.agreement import agree", "measures imports agreement"),
        ("bench/tables/pivot.py", "from bench.running.runner import run", "tables imports running"),
        ("bench/report/page.py", "import bench.sweeps.sweep", "report imports sweeps"),
        ("bench/comparison/compare.py", "from bench import peers", "comparison imports peers"),
        ("bench/figures/plots.py", "from bench import running", "figures imports running"),
        ("bench/records/micro.py", "from bench.tables import frame", "a cycle among"),
    ],
)
def test_an_import_the_wrong_way_is_found(file, line, told):
    assert any(told in sentence for sentence in breaches(SOURCES | {file: f"{line}\n{SOURCES[file]}"}))
