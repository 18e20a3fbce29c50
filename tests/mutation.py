"""Mutation testing of what is measured: `nox -s mutation -- FOLDER_OR_FILE...`, by default of all that is set up.

mutmut changes one thing at a time (an operator, a number, an argument) and runs the tests that reach it. A change
that no test notices has to be in mutation.toml, with the reason why that is no fault of the tests. Where one is not, or
where fewer than `LEAST` of those that change what the program does are noticed, the exit status is 1.

mutmut leaves decorated functions and classes alone, which are most of what measures: so in the copy that it works on, a
decorator is called below what it decorates. Constants of a module and defaults of fields it leaves alone in any case.
Which tests are run says pyproject.toml. NumPy is the only backend: a process with a framework in it can't be forked.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import libcst as cst

ROOT = Path(__file__).parent.parent
COPIED = ("backends", "bench", "tests", "results", "noxfile.py", "pyproject.toml", "README.md")
LEAST = 0.95
NOTICED = ("killed", "timeout", "segfault")
SURVIVED = ("survived", "no tests", "suspicious")


class Change(NamedTuple):
    """What a mutant changes: where, and the lines without and with it."""

    file: str
    function: str
    old: str
    new: str


class Undecorated(cst.CSTTransformer):
    """Calls each decorator below what it decorates: `f = decorator(f)`."""

    def leave_FunctionDef(self, original_node, updated_node):  # noqa: N802 (named by libcst)
        return undecorated(updated_node)

    def leave_ClassDef(self, original_node, updated_node):  # noqa: N802
        return undecorated(updated_node)


def main(arguments=None):
    """Test each target; exit status 1 if a mutant survived that is not listed, or too many of those that are."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", help="folders or files (default: all in pyproject.toml)")
    parser.add_argument(
        "--again", action="store_true", help="by the present tests, what survived the last time or was not reached"
    )
    given = parser.parse_args(arguments)
    tests_of = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["nice-bench"]["mutation"]
    known = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    failed = False
    for target in [each for asked in given.targets or [""] for each in expanded(asked.rstrip("/"), tests_of)]:
        tests, files = tests_of[nearest(target, tests_of)], files_of(target, tests_of)
        work = ROOT / ".mutation" / target.replace("/", "-")
        lay_out(files, tests, work, again=given.again)
        failed |= not passes(target, *tested(files, work, known, again=given.again), known)
    sys.exit(int(failed))


def expanded(asked, tests_of):
    """The folders and files with tests of their own in what is asked for; or itself, in a folder that has some."""
    if (ROOT / asked).exists():
        if found := [name for name in tests_of if f"{name}/".startswith(f"{asked}/".removeprefix("/"))]:
            return found
        if asked.endswith(".py") and nearest(asked, tests_of):
            return [asked]
    sys.exit(f"{asked}: expected some of {', '.join(tests_of)}, or a file in one of them")


def nearest(target, tests_of):
    """The name by which a target has its tests: its own, or that of the folder that it is in; None for neither."""
    return next((name for name in (target, target.rpartition("/")[0]) if name in tests_of), None)


def files_of(target, tests_of):
    """The one file, or those of a folder, but for its folders and what has tests of its own."""
    if (ROOT / target).is_file():
        return [target]
    return sorted(file for path in (ROOT / target).glob("*.py") if (file := f"{target}/{path.name}") not in tests_of)


def lay_out(files, tests, work, *, again):
    """Copy the tree to where mutmut works on it, with its settings for these files; `again`: the tests alone.

    With other settings mutmut would begin anew.
    """
    if not again:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    subprocess.run(["cp", "-r", *(("tests",) if again else COPIED), str(work)], cwd=ROOT, check=True)
    if again:
        return
    for name in files:
        source = cst.parse_module((work / name).read_text(encoding="utf-8"))
        (work / name).write_text(source.visit(Undecorated()).code, encoding="utf-8")
    own = {"only_mutate": files, "pytest_add_cli_args_test_selection": tests}
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in own.items())
    settings = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").replace("[tool.mutmut]\n", f"[tool.mutmut]\n{lines}")
    )
    (work / "pyproject.toml").write_text(settings, encoding="utf-8")


def tested(files, work, known, *, again):
    """Run mutmut; mutant → what came of it, and mutant → what it changes.

    mutmut takes the tests in which a function was called. What a fixture or a cache holds for many tests was called in
    the first of them alone: so what survives is tested again, by all tests of the files that have one that called it.
    """
    variables = os.environ | {"NICE_BENCH_TEST_BACKENDS": "numpy", "PYTHONDONTWRITEBYTECODE": "1"}
    variables |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OPENBLAS_NUM_THREADS": "1"}  # half the time of a mutant

    def mutmut(*arguments):
        command = [sys.executable, "-m", "mutmut", *arguments]
        return subprocess.run(command, cwd=work, env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout

    def results():
        return dict(re.findall(r"^\s*(\S+): (.+?)\s*$", mutmut("results", "--all", "true"), re.MULTILINE))

    missing = [name for name, what in results().items() if what == "not checked"] if again else []
    if missing or not again:
        mutmut("run", "--max-children", "1", *missing)
    changes, found = changes_of(files, work), results()
    doubtful = [name for name, what in found.items() if what in SURVIVED and listed(changes[name], known) == "unlisted"]
    if doubtful:
        widen(work / "mutants" / "mutmut-stats.json")
        mutmut("run", "--max-children", "1", *doubtful)
        found = results()
    if not found or not set(found.values()) <= {*NOTICED, *SURVIVED}:
        sys.exit(f"{files}: mutmut came to no end ({dict(Counter(found.values()))}); its work is in {work}")
    return found, changes


def widen(path):
    """Name for each function all tests of the files that have one which calls it."""
    stats = json.loads(path.read_text(encoding="utf-8"))
    every = {test: test.partition("::")[0] for test in stats["duration_by_test"]}
    for function, tests in stats["tests_by_mangled_function_name"].items():
        files = {test.partition("::")[0] for test in tests}
        stats["tests_by_mangled_function_name"][function] = [test for test, file in every.items() if file in files]
    path.write_text(json.dumps(stats), encoding="utf-8")


def passes(target, found, changes, known):
    """Print the score of a target and the survivors that are not listed; return whether that is good enough."""
    counts = Counter()
    for mutant, what in sorted(found.items()):
        kind = "killed" if what in NOTICED else listed(changes[mutant], known)
        counts[kind] += 1
        if kind == "unlisted":
            change = changes[mutant]
            print(f"{mutant}: {what}; {change.function} in {change.file}\n    - {change.old}\n    + {change.new}")
    matter = len(found) - counts["text"] - counts["equivalent"]
    score = counts["killed"] / max(matter, 1)
    print(f"{target}: {len(found)} mutants: {dict(counts)}; {100 * score:.1f} % of {matter} that matter were killed")
    return not counts["unlisted"] and score >= LEAST


def listed(change, known):
    """Why a mutant may survive: "text", "equivalent" or "accepted"; "unlisted" where it may not."""
    for kind, *its in known["survivors"].get(change.file, ()):
        if its[:3] == [change.function, change.old, change.new]:
            return kind
    for rule in known["rules"]:
        pattern = re.compile(rule.get("pattern", r"(.*)"))
        old, new = (pattern.sub(lambda match: "" if match.lastindex else match[0], each) for each in change[2:])
        if old == new and re.search(rule.get("new", ""), change.new):
            return rule["kind"]
    return "unlisted"


def changes_of(files, work):
    """Mutant, by mutmut's name → what it changes."""
    found = {}
    for file in files:
        text = (work / "mutants" / file).read_text(encoding="utf-8")
        lines, versions = text.splitlines(), {}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (match := re.fullmatch(r"(\w+?)__mutmut_(orig|\d+)", node.name)):
                body = [line.strip().replace(node.name, "") for line in lines[node.lineno - 1 : node.end_lineno]]
                versions.setdefault(match[1], {})[match[2]] = body
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name, bodies in versions.items():
            function = ".".join(part for part in re.split("ǁ", name.removeprefix("x_").removeprefix("x")) if part)
            original = bodies.pop("orig")
            for which, body in bodies.items():
                found[f"{module}.{name}__mutmut_{which}"] = Change(file, function, *differing(original, body))
    return found


def differing(old, new):
    """The lines in which two texts differ, from the first to the last of them, each as one line."""
    while old and new and old[0] == new[0]:
        old, new = old[1:], new[1:]
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return tuple(" ".join(lines).replace(", )", ")") for lines in (old, new))  # an argument left out leaves its comma


def undecorated(node):
    """A function or class without its decorators, and the calls of them, unless they are those that mutmut knows."""
    names = {getattr(each.decorator, "value", None) for each in node.decorators}
    if names <= {"classmethod", "staticmethod"}:
        return node
    call = node.name
    for each in reversed(node.decorators):
        call = cst.Call(each.decorator, [cst.Arg(call)])
    below = cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(node.name)], call)])
    return cst.FlattenSentinel([node.with_changes(decorators=[]), below])


if __name__ == "__main__":
    main()
