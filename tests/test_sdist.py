"""The source distribution: whatever the tests and nox need is in it."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"


def test_a_source_distribution_has_every_file_of_a_clone(tmp_path):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    files = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    if not files:
        pytest.skip("this is no clone")
    for name in files:
        (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / "clone" / name)
    subprocess.run([sys.executable, "-c", BUILD, tmp_path], cwd=tmp_path / "clone", check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in files - found if not name.startswith(".git")} == set()
