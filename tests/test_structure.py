"""Who may import whom: an import never reaches back up, and reading never starts a process."""

import ast
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
SOURCES = {path.relative_to(BENCH.parent).as_posix(): path.read_text(encoding="utf-8") for path in BENCH.rglob("*.py")}
READING = ("tables", "figures", "comparison", "report")
STARTING = ("running", "sweeps", "peers")
MOST_LOOSE = 4
FRAMEWORKS = {"torch", "tensorflow", "jax"}
ABOUT_OTHERS = ("bench/peers/", "bench/weights/", "bench/inputs/peer_registry.py")  # libraries and files, not backends


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
    found, broken = edges(sources), []
    if "agreement" in found["measures"]:
        broken.append("measures imports agreement")
    broken += [f"{a} imports {b}" for a in READING for b in STARTING if b in found[a]]
    while ends := [one for one, others in found.items() if not others & set(found)]:
        for one in ends:
            del found[one]
    if found:
        broken.append(f"a cycle among {', '.join(sorted(found))}")
    return broken


def test_at_most_four_modules_lie_loose():
    loose = [path.name for path in BENCH.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    assert len(loose) <= MOST_LOOSE, loose


def test_no_import_runs_back_up():
    assert breaches(SOURCES) == []


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("bench/measures/floor/__init__.py", "from bench.agreement import agree", "measures imports agreement"),
        ("bench/tables/pivot.py", "from bench.running.runner import run", "tables imports running"),
        ("bench/report/page.py", "import bench.sweeps.sweep", "report imports sweeps"),
        ("bench/comparison/compare.py", "from bench import peers", "comparison imports peers"),
        ("bench/figures/plots.py", "from bench import running", "figures imports running"),
        ("bench/records/micro.py", "from bench.tables import frame", "a cycle among"),
    ],
)
def test_an_import_the_wrong_way_is_found(file, line, message):
    assert any(message in sentence for sentence in breaches(SOURCES | {file: f"{line}\n{SOURCES[file]}"}))


def lists_of_frameworks(text):
    """The line of each list, tuple, set or dictionary in a program's text that names more than one framework."""
    found = []
    for node in ast.walk(ast.parse(text)):
        parts = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        if len({part.value for part in parts if isinstance(part, ast.Constant)} & FRAMEWORKS) > 1:
            found.append(node.lineno)
    return found


def test_nothing_in_the_harness_lists_the_frameworks():
    ours = {name: text for name, text in SOURCES.items() if not name.startswith(ABOUT_OTHERS) and "mutant" not in name}
    assert {name: found for name, text in ours.items() if (found := lists_of_frameworks(text))} == {}
    assert lists_of_frameworks('A = {"torch": 1, "jax": 2}\nB = f(x, ["jax"], ("torch", "jax"))') == [1, 2]
