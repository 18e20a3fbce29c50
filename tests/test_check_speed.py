"""The regression check's verdicts on speed: no clock runs here, a slow step is a record whose seconds are doubled."""

import math
from functools import cache

import numpy as np
import pytest
from check_factories import (
    REFERENCES,
    apart,
    run_of,
    runs_of_all,
    timed,
    usual_reference,
)
from record_factories import measurement
from scipy import stats

from bench.regression import check, check_speed, reference
from bench.regression.check_runs import PARTS
from bench.regression.reference import Speed


def judged(runs, reference):
    """Quantity → the outcome of the speed of runs of one backend."""
    return {verdict.quantity: verdict.outcome for verdict in check_speed.judge([(runs, reference)])}


@pytest.mark.parametrize(
    ("times", "outcome"),
    [(1.0, "same within noise"), (1.06, "can't tell"), (2.0, "slower"), (0.5, "faster")],
)
def test_a_step_twice_as_slow_is_beyond_the_noise(usual, times, outcome):
    assert set(judged(timed([times]), usual).values()) == {outcome}


def test_a_machine_that_is_twice_as_slow_in_everything_is_not_slower(usual):
    assert set(judged(timed([2.0], floor=2.0, product=0.02), usual).values()) == {"same within noise"}


def test_products_that_became_slower_show_against_numpys_though_not_against_the_floor(usual):
    assert judged(timed([2.0], floor=2.0), usual) == {
        "epoch over its floor": "same within noise",
        "epoch over NumPy's product": "slower",
    }


@pytest.mark.parametrize("run", [run_of("jax", losses=apart(1e-4)), run_of("torch", losses=apart(1e-4), cores=8)])
def test_speed_is_not_judged_by_fewer_than_three_runs_on_so_many_cores(usual, run):
    assert set(judged([run], usual).values()) == {"not comparable"}
    two = check.make([*runs_of_all(), *timed([1.0, 1.1], cores=8)], margin=1.0)
    assert set(judged(timed([2.0], cores=8), two).values()) == {"not comparable"}


def test_a_disturbed_run_is_no_slow_down_and_no_reference(usual):
    busy = [
        run.model_copy(update={"measurements": [*run.measurements, measurement("training", "others_share", 0.3, "1")]})
        for run in timed([2.0, 2.1, 2.2, 2.3])
    ]
    found = check_speed.judge([(busy, usual)])
    assert {(each.outcome, each.found) for each in found} == {("not comparable", "disturbed by other processes")}
    assert judged([*busy, *timed([1.0])], usual) == judged(timed([1.0]), usual)
    assert check_speed.make([*busy, *timed([1.0, 1.1])]) == check_speed.make(timed([1.0, 1.1]))


def test_the_runs_of_one_part_are_one_observation(usual):
    (one,) = {verdict.allowed for verdict in check_speed.judge([(timed([1.0]), usual)])}
    (nine,) = {verdict.allowed for verdict in check_speed.judge([(timed([1.0] * 9), usual)])}
    assert one == nine


@pytest.mark.parametrize(("p", "outcome"), [(0.0201, False), (0.0199, True)])
@pytest.mark.parametrize(("sign", "word"), [(1, "slower"), (-1, "faster")])
def test_a_time_is_slower_where_one_in_a_hundred_of_the_same_would_be(usual, p, outcome, sign, word):
    logs = np.array([0.03, -0.03, 0.01, -0.02, 0.02, -0.01])
    known = Speed(backend="torch", cores=1, floor=[*np.exp(logs)], calibration=[])
    off = sign * stats.t.ppf(1 - p / 2, 5) * np.std(logs, ddof=1) * math.sqrt(1 + 1 / 6)
    found = judged(timed([math.exp(off)], floor=2.0), usual.model_copy(update={"speed": [known]}))
    assert (found["epoch over its floor"] == word) == outcome


def verdicts_by_hand(floor, product, *, parts=1):
    """Verdicts, by quantity, on a run whose ratios are these times those of five runs of the reference."""
    logs = np.array([0.02, -0.02, 0.01, -0.01, 0.0])
    known = Speed(backend="torch", cores=1, floor=[*np.exp(logs)], calibration=[*np.exp(logs)])
    of = usual_reference().model_copy(update={"speed": [known]})
    run = run_of("torch", seconds=1.0, floor=1 / floor, product=1 / product)
    return {verdict.quantity: verdict for verdict in check_speed.judge([([run], of)] * parts)}


@pytest.mark.parametrize(("floor", "product"), [(2.0, 1.0), (1.0, 2.0)])
def test_what_is_clearest_is_held_to_half_the_level_and_what_is_left_to_all_of_it(floor, product):
    """By Holm's procedure: of two ratios the first has to be sure at 1 %; once it is, the second at 2 %."""
    error = math.sqrt(0.001 / 4 * (1 + 1 / 5))
    found = verdicts_by_hand(floor, product)
    for quantity, times in (("epoch over its floor", floor), ("epoch over NumPy's product", product)):
        noise = math.exp(stats.t.ppf(1 - (0.01 if times > 1 else 0.02) / 2, 4) * error)
        verdict = found[quantity]
        assert verdict.outcome == ("slower" if times > 1 else "same within noise")
        assert (verdict.found, verdict.allowed) == (f"× {times:.2f} of the reference", f"× {noise:.2f}")
        assert verdict.share == pytest.approx(times / noise)


def test_speed_is_said_to_be_that_of_its_part_or_the_mean_of_several():
    for parts, where in ((1, ("trajectory-narrow", "float32")), (2, ("mean of 2 parts", "–"))):
        for verdict in verdicts_by_hand(1.0, 1.0, parts=parts).values():
            assert (verdict.check, verdict.protocol, verdict.precision, verdict.backend) == ("speed", *where, "torch")


@pytest.mark.parametrize(("runs", "outcome"), [(2, "not comparable"), (3, "slower")])
def test_three_runs_of_a_reference_are_enough(usual, runs, outcome):
    known = Speed(backend="torch", cores=1, floor=[1.0, 1.01, 0.99][:runs], calibration=[100.0, 101.0, 99.0][:runs])
    found = check_speed.judge([(timed([4.0]), usual.model_copy(update={"speed": [known]}))])
    assert [each.outcome for each in found] == [outcome] * 2
    if runs < 3:
        assert {(each.found, each.allowed, each.share) for each in found} == {
            ("2 runs on so many cores in the reference", "3 or more", None)
        }


def test_a_run_without_a_floor_is_not_held_against_one(usual):
    (run,) = timed([1.0])
    found = check_speed.judge([([run.model_copy(update={"measurements": run.measurements[1:]})], usual)])
    floor = next(each for each in found if each.quantity == "epoch over its floor")
    where = ("speed", "trajectory-narrow", "float32", "torch")
    assert (floor.check, floor.protocol, floor.precision, floor.backend) == where
    assert (floor.found, floor.outcome) == ("not measured", "not comparable")


def test_a_run_that_does_not_tell_its_cores_is_held_against_none():
    (run,) = timed([1.0])
    untold = run.model_copy(update={"environment": {"cpu": "AMD EPYC"}})
    (made,) = check_speed.make([untold])
    assert (made.backend, made.cores, made.floor) == ("torch", 0, [2.0])
    three = made.model_copy(update={"floor": made.floor * 3, "calibration": made.calibration * 3})
    of = usual_reference().model_copy(update={"speed": [three]})
    assert set(judged([untold], of).values()) == {"not comparable"}


def test_parts_are_averaged_and_their_noise_is_pooled():
    narrow, wide = (
        check_speed.Part("p", "float32", np.array(found), np.array(known))
        for found, known in (([0.2, 0.4], [0.1, 0.0, -0.1]), ([0.1], [0.3, -0.1, 0.0, -0.2]))
    )
    estimate = check_speed.estimated([narrow, wide])
    variance = (2 * 0.01 + (0.09 + 0.01 + 0.0 + 0.04)) / 5
    assert float(estimate.value) == pytest.approx((0.3 + 0.1) / 2)
    assert (estimate.degrees, estimate.error) == (5, pytest.approx(math.sqrt(variance * (4 / 3 + 5 / 4)) / 2))


def test_of_the_epochs_of_a_round_the_fastest_counts_and_of_rounds_the_least_ratio():
    run = run_of("torch", curve=[(0.0, 0.0)] * 4)
    points = [
        point.model_copy(update={"seconds": seconds, "round": round_})
        for point, (seconds, round_) in zip(run.curve, ((9.0, 1), (6.0, 1), (8.0, 2), (20.0, 2)), strict=True)
    ]
    floors = [measurement("floor", "train_epoch_seconds", value, "s", round=i) for i, value in ((1, 2.0), (2, 4.0))]
    products = [measurement("calibration", "product_seconds", 0.5, "s", round=i) for i in (1, 2)]
    made = run.model_copy(update={"curve": points, "measurements": floors + products})
    assert check_speed.ratios(made) == {"floor": 2.0, "calibration": 12.0}


@cache
def committed():
    return [(p, reference.load(REFERENCES / reference.name_of(p.protocol, "cpu", p.precision))) for p in PARTS]


def checked(generator, ratio=1.0):
    """The speed verdicts of a check with the noise of the committed references, drawn anew with their runs.

    One backend's, torch's, times are `ratio` times what they were.
    """
    groups = []
    for part, known in committed():
        cores, runs, speeds = part.threads or 2, [], []
        for speed in (each for each in known.speed if each.cores == cores):
            usual, new = ([], []), ([], [])
            for place, name in enumerate(check_speed.NAMES):
                noise = np.std(np.log(getattr(speed, name)), ddof=1)
                drawn = np.exp(generator.normal(0, noise, len(getattr(speed, name)) + len(part.seeds)))
                usual[place].extend(drawn[len(part.seeds) :])
                new[place].extend(drawn[: len(part.seeds)] * (ratio if speed.backend == "torch" else 1.0))
            speeds.append(speed.model_copy(update={"floor": usual[0], "calibration": usual[1]}))
            runs += [
                run_of(speed.backend, seconds=1.0, floor=1 / floor, product=1 / product, cores=cores)
                for floor, product in zip(*new, strict=True)
            ]
        groups.append((runs, known.model_copy(update={"speed": speeds})))
    return check_speed.judge(groups)


def test_a_quiet_check_calls_nothing_slower_99_times_out_of_100_and_sees_a_fifth_more():
    """Thirty ratios at 1 % each raised an alarm in 16 to 42 % of quiet checks."""
    generator = np.random.default_rng(5)
    quiet = [[v for v in checked(generator) if v.outcome == "slower"] for _ in range(250)]
    assert np.mean([bool(found) for found in quiet]) <= 0.02
    seen = [{(v.backend, v.quantity) for v in checked(generator, 1.2) if v.outcome == "slower"} for _ in range(40)]
    assert np.mean([any(backend == "torch" for backend, _ in found) for found in seen]) >= 0.9


def test_the_share_of_what_is_allowed_is_above_one_where_it_is_slower_and_nowhere_else():
    generator = np.random.default_rng(6)
    for ratio in (1.0, 1.1, 1.15, 1.3) * 10:
        for verdict in checked(generator, ratio):
            assert (verdict.share > 1) == (verdict.outcome == "slower"), verdict
