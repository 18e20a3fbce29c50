"""What a comparison can tell, and how often it is wrong, by simulation with the noise of the committed records.

Rounds are log-normal. The noise from round to round is that of the short run (results/article-short-cpu: 5.8, 0.5 and
7.0 % for torch, TensorFlow and JAX, two rounds), of the long one (results/article-cpu, an hour in which the machine
drifted: 5.7, 7.9 and 5.7 %, four rounds), and of the six modes in turns (results/modes-cpu: 3.8 to 10 %, five rounds of
12 seconds). Within a round the backends are slow together: the long run and the modes have a mean correlation of 0.51
and 0.41.

A *run* is what is told apart, by its row of all backends. With 5 rounds a run that is 10 % slower is marked in 85 %
(short), 62 % (modes) and 55 % (long); 19 times out of 20 it takes 7, 10 and 11 rounds; with 2 rounds 2 to 8 % are
marked. Of runs that are the same, at least 95 % have no mark at all. A single backend with a noise of 5 to 10 % is
marked in 21 to 58 % by 5 rounds. What is not marked is said not to be told.

The *default run* (article-quick, six rounds) compares backends within its rounds. With the noise of its own record, on
a machine that was watched and quiet, 10 % between any two of three is marked in 99 %. That noise is known from six
rounds alone; pooled with the short run's, where nobody watched the machine, it is 83 %, and 95 % takes 8 rounds; with
the long run's it is 46 %, and 95 % takes 15. Of three that are equal, one in 20 runs at most marks any.
"""

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from record_factories import measurement, record, seconds

from bench.comparison.answers import fastest
from bench.comparison.compare import ALL, DRIFT, LEAST_RATIO, UNCLEAR, compare
from bench.comparison.conditions import judge, parse
from bench.comparison.matching import by, each_two, sides
from bench.comparison.observations import observations
from bench.comparison.statistics import adjusted, holm, paired, welch
from bench.inputs import protocol
from bench.records import collection
from bench.tables.labels import said

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parent.parent / "results"
BACKENDS = ("torch", "tensorflow", "jax")
SLOWER = np.log(1.1)
RUNS = 10_000
CORRELATION = 0.45


def noise(folder):
    """Standard deviation from round to round of log seconds an epoch, in float32: torch, TensorFlow, JAX, by mode."""
    found = {}
    for each in collection.load_all(RESULTS / folder):
        if each.plan.precision == "float32":
            values = [m.value for m in each.measurements if m.quantity == "seconds_per_epoch"]
            found[BACKENDS.index(each.plan.backend), each.plan.mode] = np.std(np.log(values), ddof=1)
    return np.array([found[key] for key in sorted(found)])


def simulated(folder, rounds, effect, runs=RUNS, seed=5):
    """Log seconds an epoch of A and B, each [runs, backends and modes, rounds], slow together within a round."""
    deviations = noise(folder)[:, None]
    generator = np.random.default_rng(seed)
    own = generator.standard_normal((2, runs, len(deviations), rounds))
    common = generator.standard_normal((2, runs, 1, rounds))
    draws = deviations * (np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own)
    return draws[0], draws[1] + effect


def marks(a, b):
    """What `compare` marks, in many runs at once [runs, backends and all]: 1 slower, −1 faster, 0 neither."""
    estimates = [*(welch(a[:, i], b[:, i]) for i in range(a.shape[1])), welch(a.mean(1), b.mean(1))]
    values = np.stack([each.value for each in estimates], axis=1)
    p = adjusted(np.stack([each.p for each in estimates], axis=1), axis=1)
    return np.where((p < 0.05) & (np.abs(values) > LEAST_RATIO), np.sign(values), 0)


def recorded(run, logarithms):
    """Records of one run, of log seconds an epoch [backends, rounds]."""
    return [
        record(name, run=run, measurements=seconds(*np.exp(its)))
        for name, its in zip(BACKENDS, logarithms, strict=True)
    ]


def compared(a, b):
    return compare(sides(observations(recorded("a", a)), observations(recorded("b", b))))


@pytest.mark.parametrize(("folder", "rounds"), [("article-short-cpu", 7), ("modes-cpu", 10), ("article-cpu", 11)])
def test_a_run_that_is_ten_percent_slower_is_told_from_the_same_19_times_out_of_20(folder, rounds):
    same, slower = (marks(*simulated(folder, rounds, effect)) for effect in (0.0, SLOWER))
    assert (same == 0).all(axis=1).mean() >= 0.95  # no figure of the run, and not the whole either
    assert (slower[:, -1] == 1).mean() >= 0.95
    assert (slower == -1).mean() < 1e-3


@pytest.mark.parametrize(
    ("folder", "rounds", "power"),
    [
        ("article-short-cpu", 5, 0.85),
        ("modes-cpu", 5, 0.62),
        ("article-cpu", 5, 0.55),
        ("article-short-cpu", 2, 0.08),
        ("modes-cpu", 2, 0.02),
        ("article-cpu", 2, 0.03),
    ],
)
def test_the_power_is_the_one_that_is_documented(folder, rounds, power):
    same, slower = (marks(*simulated(folder, rounds, effect)) for effect in (0.0, SLOWER))
    assert (same == 0).all(axis=1).mean() >= 0.95
    assert (slower[:, -1] == 1).mean() == pytest.approx(power, abs=0.01)


@pytest.mark.parametrize("effect", [0.0, SLOWER])
def test_these_are_the_marks_that_compare_gives(effect):
    a, b = simulated("article-short-cpu", 5, effect, runs=12)
    expected = marks(a, b)
    for run in range(len(a)):
        rows = compared(a[run], b[run])
        found = {row.pair.context or row.pair.about.backend: row.verdict for row in rows}
        numbers = {"worse": 1, "better": -1, "same": 0, "unclear": 0}
        assert [numbers[found[name]] for name in (*BACKENDS, ALL)] == expected[run].tolist()


# What the default run can tell: three backends, compared within its rounds

PAIRS = tuple(combinations(range(3), 2))
QUIET, POOLED, DRIFTING = ("article-quick-cpu",), ("article-quick-cpu", "article-short-cpu"), ("article-cpu",)


def spread_of(folders):
    """Covariance of log seconds an epoch from round to round, pooled over runs: torch, TensorFlow, JAX."""
    products, degrees = np.zeros((3, 3)), 0
    for folder in folders:
        found = {}
        for each in collection.load_all(RESULTS / folder):
            rounds = {m.context["round"]: m.value for m in each.measurements if m.quantity == "seconds_per_epoch"}
            found[each.plan.backend] = [np.log(rounds[at]) for at in sorted(rounds)]
        logarithms = np.array([found[name] for name in BACKENDS])
        products += len(logarithms[0]) * np.cov(logarithms, bias=True)
        degrees += len(logarithms[0]) - 1
    return products / degrees


def interleaved(folders, rounds, shifts, runs=RUNS, seed=5):
    """Log seconds an epoch of runs of three backends [runs, 3, rounds], whose means are `shifts`."""
    values, vectors = np.linalg.eigh(spread_of(folders))
    draws = np.random.default_rng(seed).standard_normal((runs, 3, rounds))
    return (vectors * np.sqrt(values.clip(0))) @ draws + np.reshape(shifts, (3, 1))


def marks_within(logarithms):
    """What a run ends with, of many at once [runs, pairs]: 1 the second is slower, −1 it is faster, 0 neither."""
    estimates = [paired(logarithms[:, j] - logarithms[:, i]) for i, j in PAIRS]
    values = np.stack([each.value for each in estimates], axis=1)
    p = adjusted(np.stack([each.p for each in estimates], axis=1), axis=1)
    return np.where((p < 0.05) & (np.abs(values) > LEAST_RATIO), np.sign(values), 0)


def power_within(folders, rounds):
    """The share of runs in which 10 % is marked, of the pair and the place of the third between them that have least.

    Also the share in which it is marked the wrong way round, at most.
    """
    right, wrong = [], []
    for (pair, (i, j)), third in product(enumerate(PAIRS), (0.0, 0.5, 1.0)):
        shifts = np.full(3, third * SLOWER)
        shifts[i], shifts[j] = 0.0, SLOWER
        its = marks_within(interleaved(folders, rounds, shifts))[:, pair]
        right.append((its == 1).mean())
        wrong.append((its == -1).mean())
    return min(right), max(wrong)


def test_the_default_run_tells_ten_percent_19_times_out_of_20_on_a_quiet_machine():
    rounds = protocol.load("article-quick").training.rounds
    right, wrong = power_within(QUIET, rounds)
    assert right >= 0.95
    assert wrong < 1e-3


@pytest.mark.parametrize(
    ("folders", "rounds", "power"), [(QUIET, 6, 0.996), (QUIET, 5, 0.97), (POOLED, 6, 0.83), (DRIFTING, 6, 0.46)]
)
def test_the_power_of_the_default_run_is_the_one_that_is_documented(folders, rounds, power):
    assert power_within(folders, rounds)[0] == pytest.approx(power, abs=0.01)


@pytest.mark.parametrize(("folders", "enough"), [(QUIET, 5), (POOLED, 8), (DRIFTING, 15)])
def test_so_many_rounds_would_tell_it_19_times_out_of_20_and_no_fewer(folders, enough):
    assert power_within(folders, enough)[0] >= 0.95 > power_within(folders, enough - 1)[0]


@pytest.mark.parametrize("folders", [QUIET, POOLED, DRIFTING], ids=["quiet", "pooled", "drifting"])
def test_the_default_run_calls_equal_backends_different_once_in_20_at_most(folders):
    marked = (marks_within(interleaved(folders, 6, np.zeros(3))) != 0).any(axis=1).mean()
    assert 0.03 <= marked <= 0.05  # no fewer either: that would be power given away


@pytest.mark.parametrize("shifts", [(0.0, 0.0, 0.0), (0.0, 0.03, SLOWER)])
def test_these_are_the_marks_that_a_run_ends_with(shifts):
    logarithms = interleaved(POOLED, 6, shifts, runs=25)
    for run, expected in zip(logarithms, marks_within(logarithms), strict=True):
        given = [*observations(recorded("a", run))]
        found = {(row.pair.a_name, row.pair.b_name): row.verdict for row in compare(each_two(given), runs=False)}
        names = [(BACKENDS[i], BACKENDS[j]) for i, j in PAIRS]
        assert [
            1 if found.get(its) == "worse" else -1 if found.get(its[::-1]) == "worse" else 0 for its in names
        ] == expected.tolist()
        first = int(np.argmin(run.mean(axis=1)))
        sure = all(found[pair] == "worse" for pair in found if pair[0] == BACKENDS[first])
        assert fastest(given).short == (said(BACKENDS[first]) if sure else UNCLEAR)


# How often it is wrong


def test_the_interval_of_all_backends_holds_the_truth_as_often_as_it_says():
    """With the backends of a round taken as independent it did in 78 to 86 %."""
    a, b = simulated("article-cpu", 5, SLOWER, runs=300)
    wholes = [next(row for row in compared(*run) if row.whole) for run in zip(a, b, strict=True)]
    ends = np.array([row.bounds() for row in wholes])
    assert np.mean((ends[:, 0] < SLOWER) & (ends[:, 1] > SLOWER)) >= 0.93


def test_eight_percent_more_hardly_ever_fails_a_limit_of_ten():
    """By the estimate alone it did in 27 %; 30 % more does fail."""
    condition = parse("speed worse by 10%")

    def failures(ratio):
        a, b = simulated("article-short-cpu", 8, np.log(ratio), runs=200)
        return np.mean([judge(condition, compared(*run)).answer == "fails" for run in zip(a, b, strict=True)])

    assert failures(1.08) <= 0.05
    assert failures(1.3) >= 0.95


def test_of_three_variants_that_are_the_same_none_is_called_faster_19_times_out_of_20():
    """The fastest of three differs from the slowest more often than any two: without one family it was 12 %."""
    logarithms, _ = simulated("article-cpu", 5, 0.0)
    pairs = [paired(logarithms[:, j] - logarithms[:, i]).p for i, j in combinations(range(3), 2)]
    marked = (adjusted(np.stack(pairs, axis=1), axis=1) < 0.05).any(axis=1)
    assert marked.mean() <= 0.05
    for run, expected in zip(logarithms[:40], marked, strict=False):
        found = {row.verdict for row in compare(each_two(observations(recorded("a", run))), runs=False)}
        assert bool(found & {"worse", "better"}) == expected


def test_rounds_that_are_interleaved_tell_more_as_pairs():
    """What the backends of a round have in common drops out, and the interval still holds the truth."""
    logarithms, _ = simulated("article-short-cpu", 8, 0.0, runs=300)
    logarithms[:, 2] += SLOWER
    found = []
    for run in logarithms:
        torch, _, jax = recorded("a", run)
        (row,) = compare(by(observations([torch, jax]), "backend"), runs=False)
        assert row.noise == "paired rounds"
        found.append((row.verdict == "worse", row.bounds()[0] < SLOWER < row.bounds()[1]))
    marked, inside = np.mean(found, axis=0)
    apart = welch(logarithms[:, 0], logarithms[:, 2])
    assert inside >= 0.93
    assert marked > np.mean(apart.p < 0.05) + 0.05


def test_drift_between_runs_is_in_the_interval_of_three_runs_and_that_of_one_says_it_is_not():
    """The machine drifts by 5 % from run to run: A and B, measured one after the other, differ by that and no more."""
    generator = np.random.default_rng(5)

    def side(name, runs):
        drift = generator.normal(0, 0.05, (runs, 1))
        times = np.exp(drift + generator.normal(0, 0.01, (runs, 5)))
        return [record(run=f"{name}{i}", measurements=seconds(*its)) for i, its in enumerate(times)]

    def marked(runs):
        rows = [compare(sides(observations(side("a", runs)), observations(side("b", runs))))[0] for _ in range(200)]
        return np.mean([row.verdict in ("worse", "better") for row in rows]), {row.note for row in rows}

    share, notes = marked(1)
    assert share > 0.5
    assert all(note.startswith(DRIFT) for note in notes)
    share, notes = marked(3)
    assert share <= 0.05
    assert DRIFT not in " ".join(notes)


def test_revisions_that_alternate_under_drift_are_told_apart_no_more_often_than_they_should():
    """The machine drifts from process to process as an AR(1) with a deviation of 6 %; A and B are the same."""
    generator = np.random.default_rng(5)
    rounds, runs, kept = 8, 500, 0.9
    drift = generator.normal(0, 0.06, (runs, 1))
    for _ in range(2 * rounds - 1):
        step = generator.normal(0, 0.06 * np.sqrt(1 - kept**2), (runs, 1))
        drift = np.hstack([drift, kept * drift[:, -1:] + step])
    drift = drift + generator.normal(0, 0.01, drift.shape)
    first = np.arange(0, 2 * rounds, 2)
    alternating = np.where(np.arange(rounds) % 2 == 0, first, first + 1)  # A B, B A, A B, …
    halves = np.arange(rounds)

    def marked(a, b, names, slower=1.0):
        found = []
        for run in np.exp(drift):
            sides_ = zip(names, (run[a], slower * run[b]), strict=True)
            made = [record(run=name, measurements=seconds(*its)) for name, its in sides_]
            (row,) = compare(sides(*(observations([each]) for each in made)))
            found.append(row.verdict in ("worse", "better"))
        return np.mean(found)

    assert marked(halves, halves + rounds, ("a", "b")) > 0.2
    others = 2 * first + 1 - alternating
    assert marked(alternating, others, ("a", "a")) <= 0.07
    assert marked(alternating, others, ("a", "a"), 1.06) > 0.9


def test_one_process_is_one_observation_however_often_it_repeats_itself():
    """Five turns of the peers' process, 1 % apart, in two processes that differ by 5 %: nothing can be told."""
    generator = np.random.default_rng(5)

    def process(run):
        times = np.exp(generator.normal(0, 0.05, 20)[:, None] + generator.normal(0, 0.01, (20, 5)))
        steps = [
            measurement("peers", "step_seconds", value, "s", peer=f"peer {i}", round=round_)
            for i, turns in enumerate(times)
            for round_, value in enumerate(turns, 1)
        ]
        return [record(run=run, kind="peers", measurements=steps)]

    rows = compare(sides(observations(process("a")), observations(process("b"))))
    assert len(rows) == 20
    assert {(row.verdict, row.noise, row.n) for row in rows} == {("unclear", "one process", (1, 1))}
    assert not np.isnan([row.bounds() for row in rows]).any()  # a hint is shown


def test_holms_procedure_keeps_its_promise_and_loses_less_than_bonferronis():
    p = np.random.default_rng(5).uniform(size=(5000, 6))
    assert np.mean([holm(row).min() < 0.05 for row in p]) == pytest.approx(0.05, abs=0.01)
    assert holm([0.03, 0.01, 0.02]).tolist() == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
