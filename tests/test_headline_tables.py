"""The tables that answer first, from synthetic records whose figures are worked out by hand here."""

import math

import pytest
from record_factories import XEON, likelihood, measurement, points, record, row, seconds

from bench import tables
from bench.tables.headline_tables import headline, likelihood_times, passing
from bench.tables.labels import prepare


def floors(products, memory, steps=10):
    """Of an epoch of 10 steps, whose own floor is the larger of both."""
    step = max(products, memory)
    return [
        measurement("floor", "products_seconds", products, "s", round=1),
        measurement("floor", "bytes_seconds", memory, "s", round=1),
        measurement("floor", "train_step_seconds", step, "s", round=1),
        measurement("floor", "train_epoch_seconds", step * steps, "s", round=1),
    ]


def target(epochs, spent):
    return [
        measurement("training", "epochs_to_target", epochs, "epochs"),
        measurement("training", "seconds_to_target", spent, "s"),
    ]


def test_the_machines_floor_is_that_of_the_fastest_library_there():
    torch = record(measurements=[*seconds(4.0), *floors(0.1, 0.05)])
    jax = record("jax", measurements=[*seconds(3.0), *floors(0.4, 0.02)])
    elsewhere = record(machine=XEON, measurements=[*seconds(5.0), *floors(0.01, 0.25)])
    table = headline([torch, jax, elsewhere])
    assert row(table, backend="torch", machine="AMD EPYC, 2 cores")["× machine's floor"] == "4.00"  # 4 / (10 · 0.1)
    assert row(table, backend="jax")["× machine's floor"] == "3.00"
    assert row(table, machine="Intel Xeon, 4 cores")["× machine's floor"] == "2.00"  # 5 / (10 · 0.25): its bytes


def test_a_machines_floor_never_lies_below_its_bytes():
    both = [record(measurements=[*seconds(4.0), *floors(0.1, 0.2)]), record("jax", measurements=floors(0.3, 0.25))]
    assert row(headline(both), backend="torch")["× machine's floor"] == "2.00"


def test_a_machines_floor_of_several_devices_never_lies_below_the_fastest_reduction():
    made = [
        record(name, devices=2, measurements=[*seconds(4.0), *floors(0.1, 0.2), reduction])
        for name, reduced in (("torch", 0.3), ("jax", 0.25))
        for reduction in [measurement("floor", "reduction_seconds", reduced, "s", round=1)]
    ]
    assert row(headline(made), backend="torch")["× machine's floor"] == "1.60"  # 4 / (10 · 0.25)


def test_a_run_that_failed_has_its_times_but_is_not_compared():
    failed = record("jax", status="failed", reason="interrupted", measurements=seconds(1.0))
    table = headline([record(measurements=seconds(2.0)), failed])
    assert row(table, backend="torch")["× fastest"] == "1.00"
    assert row(table, backend="jax")["× fastest"] == "–"
    assert row(table, backend="jax")["s/epoch [min–max]"] == "1.000"
    assert "failed (interrupted)" in table.caption


def test_multiples_are_of_the_median_over_rounds():
    torch = record(measurements=[*seconds(1.0, 6.0, 8.0), *floors(0.1, 0.05)])
    jax = record("jax", measurements=seconds(2.0, 3.0, 9.0))
    table = headline([torch, jax])
    assert list(table.raw["times_fastest"]) == [2.0, 1.0]
    assert list(table.raw["times_machine_floor"]) == pytest.approx([6.0, 3.0])


def test_of_several_runs_the_median_first_call_counts():
    def made(run, spent):
        return record(run=run, measurements=[*seconds(1.0), measurement("startup", "first_call_seconds", spent, "s")])

    assert row(headline([made("a", 1.0), made("b", 9.0), made("c", 2.0)]))["first call, s"] == "2.00"


def test_time_to_the_target_says_when_or_that_it_was_not_reached():
    some = [
        record(measurements=[*seconds(1.0), *target(16.0, 6.25)], target_loss=-2200.0),
        record("jax", measurements=[*seconds(1.0), *target(None, None)], target_loss=-2200.0),
        record("tensorflow", measurements=seconds(1.0)),
    ]
    found = [row(headline(some), backend=name)["to target"] for name in ("torch", "jax", "tensorflow")]
    assert found == ["6.25 s, epoch 16", "not reached", "–"]


def test_the_time_to_a_target_holds_the_first_call_of_its_own_run():
    def made(run, spent, first_call):
        calls = [measurement("startup", "first_call_seconds", first_call, "s", round=1)] if first_call else []
        return record(run=run, measurements=[*seconds(1.0), *target(16.0, spent), *calls], target_loss=-2200.0)

    assert row(headline([made("a", 6.0, 3.0)]))["to target"] == "9.00 s, epoch 16"
    several = [made("a", 6.0, 30.0), made("b", 20.0, 1.0), made("c", 7.0, None)]  # 36, 21 and, unknown, at least 7
    assert row(headline(several))["to target"] == "21.0 [7.00–36.0] s, epoch 16"
    assert row(tables.speed(several))["s to target"] == "21.00 [7.000–36.00]"


def test_a_target_is_named_as_what_it_is():
    article = record(measurements=seconds(1.0), target_loss=-2200.0)
    assert "Target: a loss of -2200.00." in headline([article]).caption
    own = record(protocol="own", loss="nll", measurements=seconds(1.0), target_loss=-1980.5)
    assert "Target: a log-likelihood of 1980.50 nats." in headline([own]).caption


def test_only_a_likelihood_is_called_one():
    article = record(measurements=[*seconds(1.0), *likelihood(-21000.0, 12.0)])
    assert "test log-likelihood, nats" not in headline([article]).shown
    paper = record(protocol="paper", loss="nll", measurements=[*seconds(1.0), *likelihood(1980.5, 0.25)])
    assert row(headline([paper]))["test log-likelihood, nats"] == "1980.50 ± 0.25"


def test_a_likelihood_is_reached_in_the_first_epoch_that_has_it_first_call_included():
    curve = points(*[-1.0] * 5, test=[-1800.0, -1900.0, -1980.0, -1980.5, -1960.0])  # 1.5 s an epoch
    first_call = measurement("startup", "first_call_seconds", 10.0, "s", round=1)
    paper = record(protocol="paper", loss="nll", curve=curve, measurements=[first_call])
    table = likelihood_times([paper])
    shown = row(table)
    assert shown["to 1900 nats"] == "13.00 s, epoch 2"
    assert shown["to 1980.5 nats"] == "16.00 s, epoch 4"
    assert shown["to 2100 nats"] == "not reached"
    assert (shown["first call, s"], shown["best, nats"]) == ("10.0", "1980.50")
    raw = table.raw.iloc[0]
    assert (raw["seconds_to_1900"], raw["seconds_to_1980.5"], raw["seconds_to_2100"]) == (13.0, 16.0, math.inf)
    assert (raw["epochs_to_1900"], raw["best"]) == (2, 1980.5)


def test_over_seeds_a_likelihood_has_its_median_and_its_extremes_and_what_misses_it_is_the_slowest():
    calls = [measurement("startup", "first_call_seconds", 10.0, "s", round=1)]
    curves = [[-1980.5, -1990.0], [-1950.0, -1980.5], [-1950.0, -1960.0]]  # 1.5 s an epoch
    some = [
        record(protocol="paper", loss="nll", seed=seed, curve=points(-1.0, -2.0, test=curve), measurements=calls)
        for seed, curve in enumerate(curves)
    ]
    assert row(likelihood_times(some[:2]))["to 1980.5 nats"] == "12.25 [11.50–13.00] s, epoch 1.5 [1–2]"
    assert row(likelihood_times(some))["to 1980.5 nats"] == "13.00 [11.50–∞] s, epoch 2 [1–∞]"
    assert likelihood_times(some).raw["seeds"].item() == 3


def test_the_target_of_a_likelihood_is_the_protocols_own_or_the_papers_with_the_first_call():
    curve = points(-1.0, -2.0, test=[-1980.5, -2000.0])
    about = {"loss": "nll", "curve": curve}
    about["measurements"] = [*seconds(1.5), measurement("startup", "first_call_seconds", 10.0, "s", round=1)]
    assert row(headline([record(protocol="paper", **about)]))["to target"] == "11.5 s, epoch 1"
    own = record(protocol="own", target_loss=-2000.0, **about)
    assert row(headline([own]))["to target"] == "13.0 s, epoch 2"
    assert row(tables.speed([own]))["s to target"] == "13.00"
    assert "to 2000 nats" in likelihood_times([own]).shown


@pytest.mark.parametrize(("status", "shown"), [("ok", "not reached"), ("diverged", "not reached"), ("failed", "–")])
def test_what_was_cut_off_before_a_likelihood_says_nothing_of_when_it_comes(status, shown):
    curve = points(-1.0, -2.0, test=[-1900.0, -1950.0])
    paper = record(protocol="paper", loss="nll", curve=curve, status=status, measurements=seconds(1.5))
    assert row(likelihood_times([paper]))["to 1900 nats"] == "1.500 s, epoch 1"
    assert row(likelihood_times([paper])).get("to 1980.5 nats", "–") == shown  # a column of nothing isn't shown
    assert row(headline([paper])).get("to target", "–") == shown


def test_losses_that_are_no_likelihood_have_no_time_to_one():
    assert likelihood_times([record(curve=points(-5.0, test=[-3000.0]))]).raw.empty


@pytest.mark.parametrize("name", ["headline", "likelihood-times"])
def test_they_are_among_all_tables(name):
    paper = record(protocol="paper", loss="nll", curve=points(-1.0, test=[-1.0]), measurements=seconds(1.0))
    assert name in [table.name for table in tables.all_tables([paper])]


def test_over_seeds_a_likelihood_has_its_range_and_no_standard_error():
    made = [
        record(loss="nll", seed=seed, measurements=[*seconds(1.0), *likelihood(1980.0 + 3 * seed, 0.25)])
        for seed in (0, 1)
    ]
    assert row(headline(made))["test log-likelihood, nats"] == "1981.50 [1980.00–1983.00]"


def test_a_record_that_is_there_twice_takes_no_longer():
    first_call = measurement("startup", "first_call_seconds", 7.0, "s", round=1)
    curve = points(-1.0, -2.0, test=(-1900.0, -2000.0))  # of 1.5 s an epoch
    one = record(loss="nll", curve=curve, measurements=[*seconds(1.5), first_call])
    other = record(
        loss="article", run="b", measurements=[*seconds(1.5), first_call, *target(2.0, 3.0)], target_loss=-1.0
    )
    for times in (1, 2):
        assert row(headline([one] * times))["to target"] == "10.0 s, epoch 2"
        assert row(headline([other] * times))["to target"] == "10.0 s, epoch 2"
        assert row(likelihood_times([one] * times))["to 1980.5 nats"] == "10.00 s, epoch 2"


def test_without_a_target_of_its_own_a_likelihoods_is_the_papers_and_is_named():
    made = record(loss="nll", curve=points(-1.0, test=(-2000.0,)), measurements=seconds(1.5))
    table = headline([made])
    assert row(table)["to target"] == "1.50 s, epoch 1"
    assert "Target: a log-likelihood of 1980.50 nats." in table.caption
    without = record("jax", protocol="other", protocol_digest="o" * 16, measurements=seconds(1.0))
    assert "Target: article, a log-likelihood of" in headline([made, without]).caption
    assert "Target:" not in headline([record(measurements=seconds(1.5))]).caption


def test_what_is_shown_has_its_numbers_behind_it_and_a_title():
    first_call = measurement("startup", "first_call_seconds", 7.0, "s", round=1)
    curve = points(-1.0, -2.0, test=(-1900.0, -2000.0))
    made = record("jax", loss="nll", curve=curve, measurements=[*seconds(4.0), first_call, *likelihood(1990.0, 0.5)])
    nothing = record("torch", status="failed", reason="died", loss="nll")
    other = record("jax", protocol="paper", protocol_digest="p" * 16, loss="nll", measurements=seconds(2.0))
    table = headline([nothing, made, other])
    assert table.title == "In short: article, paper"
    assert table.raw["backend"].tolist() == ["jax", "jax"]
    raw = table.raw.iloc[0]
    expected = {"seconds_per_epoch": 4.0, "times_fastest": 1.0, "first_call_seconds": 7.0, "log_likelihood": 1990.0}
    expected |= {"epochs_to_target": 2.0, "seconds_to_target": 10.0}
    assert {name: raw[name] for name in expected} == expected
    times = likelihood_times([nothing, made])
    assert times.title == "Time to a likelihood"
    shown = row(times, backend="jax")
    assert (shown["first call, s"], times.raw.iloc[0]["first_call_seconds"]) == ("7.00", 7.0)
    assert times.raw.iloc[0]["seeds"] == 1
    assert "Machine: AMD EPYC, 2 cores." in times.caption


def test_seeds_are_counted_where_they_differ():
    made = [
        record(name, run=f"{name}{seed}", seed=seed, loss="nll", curve=points(-1.0, test=(-2000.0,)))
        for name, seeds in (("torch", (0, 1)), ("jax", (0,)))
        for seed in seeds
    ]
    shown = likelihood_times(made).shown
    assert shown[["backend", "seeds"]].values.tolist() == [["torch", "2"], ["jax", "1"]]


def test_a_run_without_losses_or_cut_off_too_early_hides_none_after_it():
    def made(seed, status, *test):
        curve = points(*(-1.0 for _ in test), test=test)
        measured = [*seconds(1.5), measurement("startup", "first_call_seconds", 7.0, "s", round=1)]
        return record(run=f"r{seed}", seed=seed, status=status, loss="nll", curve=curve, measurements=measured)

    for early in (made(0, "failed"), made(0, "failed", -5.0)):
        epochs, spent = passing(prepare([early, made(1, "ok", -5.0, -2000.0)]), 1980.5)
        assert (epochs.middle, spent.middle) == (2.0, 10.0)


def test_a_time_beside_which_others_used_the_machine_says_so():
    busy = measurement("training", "others_share", 0.6, "1", round=1)
    shown = headline([record(curve=points(-1.0), measurements=[*seconds(1.0), busy])]).shown
    assert shown["s/epoch [min–max]"].tolist() == ["1.000, disturbed: others used 60 % of the machine"]
