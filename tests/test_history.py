"""Steps over revisions: which are found, how often by chance, and what the command says and ends with."""

import json
from functools import partial

import numpy as np
import pytest
from record_factories import XEON, likelihood, measurement, record, seconds
from test_cli_compare import git

from bench import records
from bench.comparison.history import history, latest, steps
from bench.comparison.revisions import Side

NOISE = 0.06  # of one round, as in results/
SLOWER = np.log(1.1)
SERIES = 100

pytestmark = pytest.mark.usefixtures("elsewhere")


# Steps


def simulated(at, generator, drift=0.0):
    """The mean of log seconds of 30 revisions of five rounds, 10 % slower from `at` on; they drift by `drift`."""
    rounds = generator.normal(0, NOISE, (30, 5)) + generator.normal(0, drift, (30, 1))
    return rounds.mean(axis=1) + SLOWER * (np.arange(30) >= at)


@pytest.mark.parametrize(("at", "drift"), [(5, 0.0), (15, 0.0), (25, 0.0), (15, 0.02)])
def test_ten_percent_more_is_found_within_two_revisions_19_times_out_of_20(at, drift):
    generator = np.random.default_rng(at)
    found = [steps(simulated(at, generator, drift)) for _ in range(SERIES)]
    assert np.mean([any(abs(step - at) <= 2 for step in its) for its in found]) >= 0.95
    assert np.mean([len(its) > 1 for its in found]) <= 0.05


@pytest.mark.parametrize("drift", [0.0, 0.03])
def test_of_equal_revisions_none_is_a_step_19_times_out_of_20(drift):
    generator = np.random.default_rng(1)
    assert np.mean([bool(steps(simulated(30, generator, drift))) for _ in range(SERIES)]) <= 0.05


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([1.0], []),
        ([1.0] * 20, []),
        ([1.0] * 4 + [2.0] * 5, [4]),
        ([1.0] * 3 + [2.0] * 4, []),  # by chance in one of 18
        ([1.0] * 19 + [2.0], []),  # one alone
        ([1.0] * 8 + [2.0] * 8 + [1.0] * 8, [8, 16]),
        ([0.1 * i for i in (1, 2, 1, 2, 1, 2, 1, 2, 9, 8, 9, 8, 9, 8, 9, 8)], [8]),
    ],
)
def test_steps_of_plain_series(values, expected):
    assert steps(values) == expected


# Series


def revision(name, *values, run=None, **about):
    return Side(name, [record(run=run or name, measurements=seconds(*values), **about)])


def timed(factors, **about):
    spread = (0.99, 1.0, 1.01)
    return [revision(f"r{i}", *(factor * each for each in spread), **about) for i, factor in enumerate(factors)]


def test_a_step_is_compared_as_compare_does_it_and_so_is_the_last_revision():
    (series,) = history(timed([10.0, 10.1, 9.9, 10.0, 10.1, 12.0, 12.1, 11.9, 12.0, 12.05]), ["speed"])
    assert [point.revision.name for point in series if point.step] == ["r5"]
    step, last = latest(series)
    assert (step.pair.a_name, step.pair.b_name, step.verdict, step.noise, step.n) == (
        "r0",
        "r5",
        "worse",
        "runs",
        (5, 5),
    )
    assert np.exp(step.estimate.value) == pytest.approx(1.2, rel=0.01)
    assert (last.pair.a_name, last.pair.b_name, last.verdict) == ("r5", "r9", "same")


def test_what_is_not_comparable_is_not_put_on_one_line():
    machines = [*timed([10.0, 11.0]), *timed([20.0], machine=XEON)]
    others = [*timed([10.0], precision="float64"), *timed([10.0], mode="jit"), *timed([10.0], protocol_digest="ab")]
    assert sorted(map(len, history([*machines, *others], ["speed"]))) == [1, 1, 1, 1, 2]


def test_a_disturbed_revision_is_no_step_and_the_last_one_is_not_judged():
    busy = measurement("disturbance", "others_share", 0.9, "share")
    revisions = timed([10.0] * 12)
    for at in (5, 6, 7, 11):
        made = revisions[at].records[0]
        slow = [*seconds(20.0, 20.1, 20.2), busy]
        revisions[at] = Side(f"r{at}", [made.model_copy(update={"measurements": slow})])
    (series,) = history(revisions, ["speed"])
    assert not any(point.step for point in series)
    (last,) = latest(series)
    assert last.pair.reason == "disturbed by other processes"
    assert last.a == pytest.approx(10.0, rel=0.01)


# The command


@pytest.fixture
def call(nice_bench):
    return partial(nice_bench, "history")


def put(folder, factor=1.0, name="torch", **about):
    made = record(name, measurements=seconds(*(factor * each for each in (9.9, 10.0, 10.1, 10.05, 9.95))), **about)
    return records.save(made, folder)


@pytest.fixture
def repository(elsewhere):
    """A commit a day that adds a run; from the eleventh on it takes 30 % more. A README changes in between."""
    git("init", "-q", "-b", "main")
    for day in range(1, 15):
        for path in (elsewhere / "results").glob("*.json") if day % 2 else []:
            path.unlink()  # older ones stay, are replaced, or go
        put("results", 1.3 if day > 10 else 1.0, run=f"day{day}")
        git("add", "-A")
        git("commit", "-qm", f"Day {day}")
        (elsewhere / "README").write_text(str(day))
        git("add", "-A")
        git("commit", "-qm", "README")


def test_the_step_is_told_with_its_commit_and_fails(call, repository):
    done = call("--fail-if", "speed worse by 10%")
    assert done.code == 1
    steps = [line for line in done.out.splitlines() if line.startswith("Step: ")]
    assert len(steps) == 1
    assert "torch, s/epoch (article, float32, AMD EPYC, 2 cores): slower: × 1.30" in steps[0]
    assert steps[0].endswith("Day 11")
    assert "speed worse by 10%: fails" in done.err
    assert call("--fail-if", "speed worse by 50%").code == 0


def test_a_range_begins_anew_and_a_record_counts_where_it_was_added(call, repository):
    data = [line.split(",") for line in call("--format", "csv").out.splitlines()]
    assert len(data) == 1 + 14
    assert [line[-1] for line in data[1:]] == [f"Day {day}" for day in range(1, 15)]
    done = call("HEAD~6..HEAD", "--fail-if", "speed worse by 10%")
    assert done.code == 0
    assert "No step in 1 of 1 figures; the longest has" in done.out


def test_runs_in_a_folder_are_put_in_order_by_their_dates(call):
    for day in (2, 3, 1):  # the files are in another order than the days
        made = record(run=f"day{day}", measurements=seconds(10.0 + day, 10.1 + day))
        records.save(made.model_copy(update={"created": f"2026-01-0{day}T00:00:00+00:00"}), "out")
    lines = call("out", "--format", "csv").out.splitlines()[1:]
    assert [f"2026-01-0{day}" in line for day, line in enumerate(lines, 1)] == [True] * 3


def test_a_failure_in_the_last_revision_is_no_pass(call, repository):
    failed = record(run="later", status="failed", reason="it broke")
    records.save(failed, "results")
    git("add", "-A")
    git("commit", "-qm", "Failed")
    done = call("HEAD~6..HEAD", "--fail-if", "speed worse by 10%")
    assert done.code == 3
    assert "it broke" in done.err


def test_a_damaged_record_in_the_last_revision_is_no_pass(call, repository, elsewhere):
    (elsewhere / "results" / "bad.json").write_text("{")
    git("add", "-A")
    git("commit", "-qm", "Damaged")
    done = call("HEAD~6..HEAD", "--fail-if", "speed worse by 10%")
    assert done.code == 3
    assert "bad.json" in done.err


def test_dashboards_take_the_last_revision(call):
    rates = [measurement("likelihood", "images_per_second", 500.0, "images/s", 400.0, 625.0, batch=16)]
    for run, factor in (("a", 1.0), ("b", 2.0)):
        made = record(run=run, measurements=[*seconds(factor, factor), *rates, *likelihood(1800.0, 0.5)])
        records.save(made.model_copy(update={"created": f"2026-01-0{factor:.0f}T00:00:00+00:00"}), "out")
    name = "AMD EPYC, 2 cores, cpu, run article 01234567, float32, torch"
    low, high = (pytest.approx(1800 + sign * 2.262157163 * 0.5, abs=1e-6) for sign in (-1, 1))  # t at 97.5 %, 10 draws
    assert json.loads(call("out", "--format", "bencher").out) == {
        name: {
            "s/epoch": {"value": 2.0, "lower_value": 2.0, "upper_value": 2.0},
            "test log-likelihood": {"value": 1800.0, "lower_value": low, "upper_value": high},
        },
        f"{name} batch 16": {"log p": {"value": 500.0, "lower_value": 400.0, "upper_value": 625.0}},
    }
    assert json.loads(call("out", "--format", "github").out) == [
        {"name": f"{name}, s/epoch", "unit": "s", "value": 2.0, "range": "± 0"},
        {"name": f"{name} batch 16, log p", "unit": "s/images", "value": 0.002, "range": "± 0.000450"},
        {"name": f"{name}, test log-likelihood", "unit": "nats, negated", "value": -1800.0, "range": "± 1.13"},
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--topics", "sped"], "--topics 'sped': expected some of speed"),
        (["--fail-if", "speed slower"], 'expected "TOPIC worse by N%"'),
        (["nowhere"], "nowhere: no folder, and no git revisions that touch records in results"),
        (["a", "--topics", "memory"], "no figures of memory in 1 revisions"),
    ],
)
def test_bad_input_is_one_error(call, arguments, told):
    put("a")
    done = call(*arguments)
    assert done.code == 1
    assert told in done.err
    assert len(done.err.splitlines()) == 1
