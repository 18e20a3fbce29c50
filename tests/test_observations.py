"""Observations: which figures of records can be compared, and what each is of."""

from dataclasses import fields

import pytest
from record_factories import EPYC, measurement, points, record, seconds

from bench.comparison.observations import About, Quantity, about, observations


def of(made, label):
    """The values of a record's figures of this label, in their order."""
    return [each.value for each in observations([made]) if each.quantity.label == label]


def test_what_a_record_is_of():
    made = record(
        "jax",
        kind="sweep",
        protocol="recipe",
        protocol_digest="fedcba9876543210",
        mode="scan",
        device="gpu",
        precision="tf32",
        seen="bfloat16",
        machine=EPYC | {"gpus": [{"name": "NVIDIA H100"}]},
    )
    found = about(made)
    assert (found.kind, found.protocol, found.digest) == ("sweep", "recipe", "fedcba9876543210")
    assert (found.backend, found.mode, found.device) == ("jax", "scan", "gpu")
    assert found.precision == "tf32 (seen bfloat16)"
    assert "0.10.2" in found.version
    assert "H100" in found.machine
    assert "EPYC" in found.host
    assert "H100" not in found.host
    plain = about(record(seen="float32"))
    assert (plain.mode, plain.precision) == ("", "float32")


@pytest.mark.parametrize(
    "changed",
    [
        {"architecture": {"dim": 6}},
        {"optimiser": {"name": "rmsprop"}},
        {"batch": 64},
        {"epochs": 4},
        {"loss": "nll"},
    ],
)
def test_a_network_is_its_architecture_optimiser_batch_epochs_and_loss(changed):
    assert about(record(**changed)).network != about(record()).network
    differ = {
        each.name
        for each in fields(About)
        if getattr(about(record(**changed)), each.name) != getattr(about(record()), each.name)
    }
    assert differ == {"network"}


def test_a_network_is_the_same_however_its_sizes_are_ordered():
    one, other = ({"dim": 4, "couplings": 2}, {"couplings": 2, "dim": 4})
    assert about(record(architecture=one)).network == about(record(architecture=other)).network


def test_the_observations_of_a_run_are_of_its_rounds():
    made = record(run="night", seed=7, measurements=seconds(2.0, 3.0))
    found = [*observations([made, made])]
    assert [(each.value, each.round, each.run, each.seed, each.context) for each in found] == [
        (2.0, 1, "night", 7, ""),
        (3.0, 2, "night", 7, ""),
    ]
    assert len({each.record for each in found}) == 1
    assert {each.disturbed for each in found} == {False}


def test_what_a_figure_is_of_besides_its_round_is_its_context_in_one_order():
    timed = measurement("sampling", "latency", 2.0, "s", 1.0, 4.0, 31, mode="a", batch=8, round=2)
    (found,) = observations([record(measurements=[timed])])
    assert (found.context, found.round) == ("batch 8, mode a", 2)
    assert (found.low, found.high, found.n) == (1.0, 4.0, 31)


def test_a_figure_of_a_whole_run_is_of_round_0():
    timed = measurement("sampling", "latency", 2.0, "s", batch=8)
    assert [each.round for each in observations([record(measurements=[timed])])] == [0]


def test_what_failed_has_no_figures_and_what_has_no_value_is_none():
    failed = record(status="failed", measurements=seconds(1.0))
    assert [*observations([failed])] == []
    assert [each.value for each in observations([failed, record(measurements=seconds(2.0))])] == [2.0]
    assert of(record(measurements=[measurement("training", "seconds_per_epoch", None, "s", round=1)]), "s/epoch") == []


def test_a_ratio_to_nothing_is_none():
    assert of(record(measurements=[measurement("training", "peak_memory", 0.0, "bytes", round=1)]), "peak memory") == []
    kept = record(measurements=[measurement("training", "peak_memory", 0.5, "bytes", round=1)])
    assert of(kept, "peak memory") == [0.5]


def test_a_likelihood_of_less_than_nothing_is_a_figure_too():
    low = [measurement("likelihood", "dequantised_log_likelihood", value, "nats") for value in (-3.0, 0.0)]
    assert of(record(measurements=low), "test log-likelihood") == [-3.0, 0.0]


def test_errors_are_called_by_what_they_are_of():
    (found,) = observations([record(measurements=[measurement("agreement", "z", 1e-7, "relative", weights="trained")])])
    quantity = found.quantity
    assert (quantity.topic, quantity.label, quantity.unit, quantity.form) == (
        "agreement",
        "error of z",
        "relative",
        "error",
    )
    assert found.context == "weights trained"


def test_what_says_the_same_in_other_words_is_left_out():
    more = [measurement("training", "images_per_second", 5.0, "images/s", round=1), *seconds(2.0)]
    assert {each.quantity.label for each in observations([record(measurements=more)])} == {"s/epoch"}


LOSSES = ("final train loss", "best train loss", "final test loss", "best selection loss")


def test_losses_are_those_of_the_curve_the_last_one_by_its_epoch():
    made = record(curve=points(-4.0, -9.0, -8.0, test=(-1.0, -3.0, -2.0)))
    for curve in (made.curve, made.curve[::-1]):
        found = made.model_copy(update={"curve": curve})
        assert [of(found, name) for name in LOSSES] == [[-8.0], [-9.0], [], [-3.0]]
    (quantity,) = {each.quantity for each in observations([made]) if each.quantity.label == "best selection loss"}
    assert (quantity.topic, quantity.unit, quantity.form) == ("loss", "nats", "loss")


def test_final_losses_are_the_measured_ones_where_there_are_some():
    measured = [
        measurement("training", "final_train_loss", -8.5, "nats"),
        measurement("likelihood", "test_loss", -2.5, "nats"),
        measurement("startup", "test_loss", 99.0, "s"),
    ]
    made = record(curve=points(-4.0, -8.0, test=(-3.0, -2.0)), measurements=measured)
    assert [of(made, name) for name in LOSSES] == [[-8.5], [-8.0], [-2.5], [-3.0]]
    assert [of(record(measurements=measured), name) for name in LOSSES] == [[-8.5], [], [-2.5], []]


def test_a_loss_that_was_no_number_is_neither_final_nor_best():
    made = record(curve=points(-4.0, None, test=(None, -2.0)))
    assert [of(made, name) for name in LOSSES] == [[], [-4.0], [], [-2.0]]


def test_to_target_counts_the_first_call_of_the_first_process():
    startup = [
        measurement("startup", name, value, "s", round=round_)
        for name, value, round_ in (("first_call_seconds", 3.0, 1), ("warm_first_call_seconds", 1.0, 2))
    ]
    made = record(measurements=[*startup, measurement("training", "seconds_to_target", 7.0, "s")])
    assert of(made, "s to target") == [10.0]
    assert of(record(measurements=startup[1:] + made.measurements[2:]), "s to target") == [7.0]
    unknown = measurement("startup", "first_call_seconds", None, "s", round=1)
    assert of(record(measurements=[unknown, made.measurements[2]]), "s to target") == [7.0]
    assert of(record(measurements=[*startup, *seconds(2.0)]), "s/epoch") == [2.0]


def test_rounds_of_a_run_alone_are_processes_of_their_own():
    timed = measurement("peers", "step_seconds", 1.0, "s", round=2, peer="zuko")
    (found,) = observations([record(kind="peers", measurements=[timed])])
    assert found.round == 0


def test_what_others_disturbed_says_so():
    busy = measurement("training", "others_share", 0.5, "1", round=1)
    assert [each.disturbed for each in observations([record(measurements=[*seconds(2.0), busy])])] == [True]


@pytest.mark.parametrize(
    ("form", "ratio", "on_machine"),
    [
        ("time", True, True),
        ("rate", True, True),
        ("size", True, True),
        ("floor", True, False),
        ("loss", False, False),
        ("gain", False, False),
        ("error", False, False),
    ],
)
def test_what_is_compared_by_a_ratio_and_what_says_something_of_the_machine(form, ratio, on_machine):
    quantity = Quantity("topic", "label", "unit", form)
    assert (quantity.ratio, quantity.on_machine) == (ratio, on_machine)
