"""The command line and files: which records it reads, and what it says of those it can't."""

import os
import re
from pathlib import Path

import pytest
from PIL import Image
from record_factories import record, seconds

from bench.errors import BenchError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NICE_BENCH_DATA", str(tmp_path / "mnist"))


def test_advice_after_a_run_names_the_folder_that_it_wrote_to(nice_bench, talkers):
    nice_bench("run", "--protocol", "smoke", "--device", "cpu")
    err = nice_bench("tables").err
    assert err == "nice-bench: no records in results; name the folder of a run, or results/runs for all runs\n"
    assert nice_bench("tables", "results/runs").code == 0


def test_a_check_of_an_empty_folder_says_that_it_has_no_records(nice_bench):
    Path("empty").mkdir()
    assert "no records in empty" in nice_bench("check", "empty").err


def test_tables_of_a_folder_with_two_runs_are_of_both(nice_bench, talkers):
    for seed in (1, 2):
        done = nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out", "--seed", seed)
    assert "Above: the 2 records of this run; in the files: all 4 in its folder." in done.out
    speed = Path("out/tables/speed.csv").read_text()
    assert speed.count("numpy") == 1
    assert ",2,2," in speed  # two runs, two seeds


@pytest.fixture
def unprivileged():
    """Without the rights of root, who may read everything."""
    before = os.geteuid()
    if before == 0:
        Path().resolve().chmod(0o777)
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["tables", "closed"], "closed"),
        (["tables", "closed/record.json"], "closed/record.json"),
        (["tables", "open"], "open/closed"),
        (["tables", "--into", "text.md"], "text.md"),
        (["run", "--protocol", "closed.toml"], "closed.toml"),
        (["campaign", "closed.toml", "--output", "out"], "closed.toml"),
        (["compare", "closed", "open"], "closed"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(nice_bench, unprivileged, arguments, name):
    for folder in ("closed", "open/closed"):
        Path(folder).mkdir(parents=True)
        Path(folder).chmod(0)
    for file in ("closed.toml", "text.md"):
        Path(file).write_text("")
        Path(file).chmod(0)
    done = nice_bench(*arguments)
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(rf"nice-bench: (left out: )?{re.escape(name)}: .*Permission denied\n", done.err)
    with pytest.raises((BenchError, OSError)):
        nice_bench(*arguments, "--verbose")


@pytest.mark.parametrize("arguments", [["run", "--protocol", "bytes.toml"], ["tables", "--into", "bytes.toml"]])
def test_a_text_that_is_not_utf_8_is_named(nice_bench, arguments):
    Path("bytes.toml").write_bytes(b"\xff\xfe")
    done = nice_bench(*arguments)
    assert (done.code, len(done.err.splitlines()), "nice-bench: bytes.toml: not " in done.err) == (1, 1, True)


def test_a_folder_whose_name_is_not_utf_8_is_as_good_as_any(nice_bench):
    folder = Path(os.fsdecode(b"r\xe9sultats"))
    folder.mkdir()
    assert "no records in r�sultats" in nice_bench("tables", folder).err
    (folder / "one.json").write_text(record("torch", measurements=seconds(2.0)).model_dump_json())
    Image.new("L", (8, 8)).save(folder / "picture.png")
    for arguments in (["tables", folder, "--write", folder], ["plots", folder, "--write", folder]):
        assert nice_bench(*arguments).code == 0
    done = nice_bench("report", folder, "--output", folder / "page.html")
    assert (done.code, "page.html" in done.out) == (0, True)


def test_a_picture_too_large_for_any_memory_is_refused_before_it_is_drawn(nice_bench):
    done = nice_bench("sample", "w.safetensors", "--rows", 3000)
    assert (done.code, done.err) == (1, "nice-bench: --rows is 3000; expected 100 at most\n")
