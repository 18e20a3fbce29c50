"""Records are input: whatever is wrong with one, the five commands that read records name it or cope, and never crash.

A record is damaged at a random place and lies beside a whole one of the same kind.
"""

import contextlib
import copy
import io
import json
import re
import sys
import tempfile
from pathlib import Path

import pytest
from check_factories import apart, run_of, runs_of_all
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from record_factories import measurement
from report_records import everything, swept

from bench.commands import cli
from bench.records import MOST_BYTES, Record, RecordError, load
from bench.records.fields import LARGEST
from bench.regression import check, reference
from bench.report import page
from bench.tables.sweep_tables import scaling

VALUES = (None, 0, -1, 0.5, 1e308, -1e308, 9e39, 1e-300, 1e999, float("nan"), 2**53, 2**70)
VALUES += ("", "x", "\x1b[31m", [], {}, True, [1], {"a": 1})
COMMANDS = ("tables", "plots", "report", "compare", "check")
TRACED = ("products", "optimiser", "copies", "other", "idle")


def run():
    """A run with every quantity that a table divides by or into, and a reference to be held against."""
    found = [m for m in everything()[0].measurements if m.context.get("batch") != 1]
    seconds = {"train_step_seconds": 0.1, "train_epoch_seconds": 40.0, "products_seconds": 0.09}
    seconds |= {"bytes_seconds": 0.05, "chain_seconds": 0.11}
    found += [measurement("floor", name, value, "s", round=1) for name, value in seconds.items()]
    found += [measurement("floor", "product_rate", 1e11, "FLOP/s", round=1)]
    found += [measurement("floor", "bandwidth", 1e10, "B/s", round=1)]
    found += [measurement("floor", "forward_seconds", 0.01, "s", batch=16)]
    found += [measurement("sampling", "latency", 0.02, "s", 0.01, 0.03, 9, batch=16)]
    found += [measurement("likelihood", "images_per_second", 900.0, "images/s", batch=16)]
    found += [measurement("likelihood", "dequantised_log_likelihood", -9.0, "nats", -9.1, -8.9, 9, weights="trained")]
    found += [measurement("startup", "first_call_seconds", 1.5, "s", round=1)]
    found += [measurement("training", "others_share", 0.01, "1", round=1)]
    found += [measurement("training", "seconds_to_target", None, "s", note="not reached", round=1)]
    made = run_of("torch", losses=apart(1e-4), curve=[(-5.0, -4.0), (-6.0, None)], loss="nll", target_loss=-7.0)
    about = {"git": {"commit": "c" * 40, "dirty": False}, "gpus": [{"name": "H100", "mig": False}], "variables": {}}
    about |= {"framework": {"torch": "2.13"}}
    return made.model_copy(
        update={"measurements": [*made.measurements, *found], "environment": made.environment | about}
    )


def peers():
    found = [
        measurement("peers", "step_seconds", 0.1 * place, "s", peer=peer, round=round_)
        for place, peer in enumerate(("this harness", "zuko"), 1)
        for round_ in (1, 2)
    ]
    return run_of("torch").model_copy(update={"measurements": found, "plan": of_kind("peers"), "curve": []})


def profile():
    found = [measurement("profile", f"{part}_share", 0.2, "1") for part in TRACED]
    found += [measurement("profile", f"{part}_seconds", 0.0, "s") for part in TRACED]
    found += [measurement("profile", "step_seconds", 0.5, "s")]
    return run_of("torch").model_copy(update={"measurements": found, "plan": of_kind("profile"), "curve": []})


def of_kind(kind):
    return run_of("torch").plan.model_copy(update={"kind": kind})


RECORDS = [json.loads(made.model_dump_json()) for made in (run(), run(), swept("torch", 8e-3), peers(), profile())]


def places(value, at=()):
    """The path of everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*at, key)
        yield from places(item, (*at, key))


@st.composite
def damaged(draw):
    """A valid record and the same one with up to three things in it deleted or replaced."""
    whole = draw(st.sampled_from(RECORDS))
    broken = copy.deepcopy(whole)
    if draw(st.booleans()):  # a quantity that is missing from the whole record
        lost = draw(st.sampled_from(sorted({m["quantity"] for m in whole["measurements"]})))
        broken["measurements"] = [m for m in broken["measurements"] if m["quantity"] != lost]
    for _ in range(draw(st.integers(0, 3))):
        *parents, last = draw(st.sampled_from(list(places(broken))))
        parent = broken
        for key in parents:
            parent = parent[key]
        if draw(st.booleans()):
            del parent[last]
        else:
            parent[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    return whole, broken


def loaded(data):
    """The record that this JSON is, or the error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "record.json")
        path.write_text(json.dumps(data))
        try:
            found = load(path)
        except RecordError as error:
            found = error
    assert isinstance(found, Record) or (str(found).startswith(f"{path}: ") and "\n" not in str(found))
    return found


@settings(derandomize=True, max_examples=400, deadline=None)
@given(damaged())
def test_a_damaged_record_is_refused_by_the_field_or_has_figures_in_bounds(case):
    found = loaded(case[1])
    if isinstance(found, Record):
        figures = [m.value for m in found.measurements] + [p.seconds for p in found.curve] + found.first_epoch_losses
        assert all(value is None or abs(value) <= LARGEST for value in figures)
        assert "\x1b" not in found.model_dump_json()


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    reference.save(check.make(runs_of_all(), 2.0), folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _without_plotly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "packed", lambda _: "")  # compressing the library takes longer than everything else
        yield


def called(*arguments):
    """Call the command line: exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["nice-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    return caught.value.code or 0, out.getvalue(), err.getvalue()


def call(command, folder, references):
    """Call one of the five commands on `folder`."""
    more = {
        "plots": ["--write", folder / "plots"],
        "report": ["--output", folder / "report.html"],
        "compare": [folder / "whole.json"],
        "check": ["--backends", "torch", "--references", references],
    }
    return called(command, folder, *more.get(command, []))


@settings(derandomize=True, max_examples=8, deadline=None)
@given(damaged())
def test_all_five_commands_cope_with_what_a_record_may_lack(references, case):
    whole, broken = case
    assume(isinstance(loaded(broken), Record))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "whole.json").write_text(json.dumps(whole))
        (folder / "broken.json").write_text(json.dumps(broken))
        for command in COMMANDS:
            code, out, err = call(command, folder, references)
            assert code in (0, 1), err
            assert "\x1b" not in out + err
            assert code == 0 or len(err.splitlines()) == 1
        plots_of(folder)


@pytest.mark.parametrize("lost", sorted({m["quantity"] for data in RECORDS for m in data["measurements"]}))
def test_tables_and_compare_do_without_any_quantity(tmp_path, lost):
    (tmp_path / "lacking").mkdir()
    for place, data in enumerate(RECORDS[1:]):
        left = [m for m in data["measurements"] if m["quantity"] != lost]
        if left != data["measurements"]:
            (tmp_path / "lacking" / f"{place}.json").write_text(json.dumps(data | {"measurements": left}))
    (tmp_path / "whole.json").write_text(json.dumps(RECORDS[0]))
    for command in (["tables"], ["compare", tmp_path / "whole.json"]):
        code, _, err = called(*command, tmp_path / "lacking")
        assert (code, err) == (0, "")


def test_a_sweep_that_lacks_a_time_is_fitted_to_the_others():
    sweep = swept("torch", 8e-3)
    left = [m for m in sweep.measurements if (m.quantity, m.context["value"]) != ("seconds", 16)]
    table = scaling([sweep.model_copy(update={"measurements": left})])
    assert list(table.raw["points"]) == [4]
    assert table.raw["exponent"].notna().all()


def test_a_sweep_without_throughput_leaves_the_plots_of_the_page_whole(tmp_path, references):
    (sweep,) = [data for data in RECORDS if data["plan"]["kind"] == "sweep"]
    left = [m for m in sweep["measurements"] if m["quantity"] != "examples_per_second"]
    (tmp_path / "whole.json").write_text(json.dumps(sweep | {"measurements": left}))
    assert call("report", tmp_path, references)[0] == 0
    assert "sweep-batch-train" in str(plots_of(tmp_path))


def plots_of(folder):
    """The plots in the page of `folder`, as strict JSON."""
    boards = re.search(r'id="boards">(.*?)</script>', (folder / "report.html").read_text(), re.DOTALL)[1]
    return json.loads(boards, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


@pytest.fixture
def folder(tmp_path):
    """A good record of every kind."""
    for place, data in enumerate(RECORDS[1:]):
        (tmp_path / f"{place}.json").write_text(json.dumps(data))
    (tmp_path / "whole.json").write_text(json.dumps(RECORDS[0]))
    return tmp_path


def broken(**changes):
    """A record's JSON with some of its fields changed."""
    return json.dumps(RECORDS[0] | changes)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_record_is_named_with_its_field_and_the_rest_is_used(folder, references, command):
    (folder / "damaged.json").write_text(broken(digests={"data": 7}))
    code, out, err = call(command, folder, references)
    assert f"{folder}/damaged.json: digests.data: found 7, expected a valid string" in err
    assert "Traceback" not in err
    assert out
    assert code == (1 if command == "check" else 0)  # a run that can't be read is no pass
    assert "left out" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_where_no_record_is_left_there_is_one_line(tmp_path, references, command):
    (tmp_path / "whole.json").write_text(broken(seed=1))
    code, out, err = call(command, tmp_path, references)
    assert (code, out) == (1, "")
    assert err == f"nice-bench: {tmp_path}/whole.json: seed: found 1, expected no such field\n"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"value": 0}, "expected a value of 1e-12 s or more"),
        ({"value": -1.0}, "expected a value of 1e-12 s or more"),
        ({"value": 1e308}, "measurements.0.value: found 1e+308"),
        ({"value": float("inf")}, "not a record: expected JSON"),
        ({"low": 3.0, "value": 2.0, "high": 4.0}, "expected low ≤ value ≤ high"),
        ({"measure": "sampling"}, "measurements.0.context: found"),
        ({"context": {"round": "first"}}, "expected round to be a count"),
        ({"context": {"round": 2**60}}, "expected round to be"),
        ({"context": {"weights": 1}}, "expected weights to be a text"),
    ],
)
def test_a_figure_that_cannot_be_is_refused(changed, message):
    seconds = json.loads(measurement("training", "seconds_per_epoch", 2.0, "s", round=1).model_dump_json())
    assert message in str(loaded(RECORDS[0] | {"measurements": [seconds | changed]}))


@pytest.mark.parametrize(
    ("environment", "field"),
    [
        ({"gpus": [{}]}, "environment.gpus.0.name"),
        ({"gpus": "one"}, "environment.gpus"),
        ({"git": {"dirty": True}}, "environment.git.commit"),
        ({"packages": ["torch"]}, "environment.packages"),
        ({"cores": 0}, "environment.cores"),
    ],
)
def test_an_environment_that_tables_cannot_read_is_refused(environment, field):
    assert f"{field}: found" in str(loaded(RECORDS[0] | {"environment": environment}))


def test_a_run_that_is_there_in_two_records_is_compared(tmp_path, references):
    (tmp_path / "whole.json").write_text(json.dumps(RECORDS[0]))
    (tmp_path / "again.json").write_text(broken(reason="saved twice"))
    code, _, err = call("compare", tmp_path, references)
    assert (code, err) == (0, "")


def test_control_characters_do_not_reach_the_terminal_or_the_page(tmp_path, references):
    data = RECORDS[0] | {"status": "failed", "reason": "\x1b[2Jcleared\u202e \x07"}
    (tmp_path / "whole.json").write_text(json.dumps(data))
    _, out, _ = call("tables", tmp_path, references)
    assert "�[2Jcleared� �" in out
    call("report", tmp_path, references)
    assert "�[2Jcleared� �" in (tmp_path / "report.html").read_text()


def test_a_file_is_not_read_beyond_the_limit(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(RecordError, match=r"large\.json: larger than 64 MiB"):
        load(path)
    with pytest.raises(RecordError, match="larger than 64 MiB"):
        load("/dev/zero")


def test_the_largest_seed_can_be_tabulated(tmp_path, references):
    data = copy.deepcopy(RECORDS[0])
    data["plan"]["seed"] = 2**63 - 1
    (tmp_path / "whole.json").write_text(json.dumps(data))
    code, out, err = call("tables", tmp_path, references)
    assert (code, err) == (0, "")
    assert str(2**63 - 1) in out


def test_no_reference_is_made_of_records_of_which_some_cannot_be_read(folder, references):
    (folder / "damaged.json").write_text("{}")
    before = sorted(references.iterdir())
    code, _, err = called("check", folder, "--update", "--references", references)
    assert (code, sorted(references.iterdir())) == (1, before)
    assert "no reference is made" in err
