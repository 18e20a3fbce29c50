"""What rows are called, in which order they stand, and what a caption says of them."""

import math

import pandas as pd
import pytest
from record_factories import EPYC, XEON, measurement, points, record, seconds

from bench.measures.disturbance import LIMIT
from bench.tables import labels
from bench.tables.labels import prepare


def column(name, *records):
    """The values of a column, one a record, in the order of rows."""
    return prepare(records).drop_duplicates("record")[name].tolist()


# What must not be mixed has labels of its own


def test_a_backend_is_called_by_its_version_where_there_are_several():
    new = record(packages={"torch": "2.14.0"}, run="b")
    assert column("backend", record(), new) == ["torch (torch 2.13.0)", "torch (torch 2.14.0)"]
    assert column("plan_backend", record(), new) == ["torch", "torch"]
    assert column("backend", record(), record("jax")) == ["torch", "jax"]
    unknown = record(packages={}, run="b", status="unavailable", reason="no torch")
    assert column("backend", record(), new, unknown)[2] == "torch"
    assert column("backend", record(), unknown) == ["torch", "torch"]


def test_a_series_is_called_by_its_mode_where_a_section_has_several():
    made = [record(mode=mode, run=mode) for mode in ("eager", "graph")]
    assert column("series", *made) == ["torch eager", "torch graph"]
    assert column("series", made[0], record("jax", mode="jit")) == ["torch", "jax"]
    other = record(mode="graph", precision="tf32", run="b")  # of another section
    assert column("series", made[0], other) == ["torch", "torch"]
    assert column("series", *made, record(run="c"))[0] == "torch"  # which never said its mode


def test_a_precision_says_what_was_seen_where_that_is_another():
    assert column("precision", record(precision="float32", seen="tf32")) == ["float32 (seen tf32)"]
    assert column("precision", record(seen="float32"), record("jax")) == ["float32", "float32"]


def test_a_protocol_is_called_by_what_sets_it_apart():
    def protocols(*changes):
        return column("protocol", *(record(run=f"r{i}", **each) for i, each in enumerate(changes)))

    assert protocols({}, {"protocol": "paper"}) == ["article", "paper"]
    assert protocols({"epochs": 2}, {"epochs": 3}) == ["article (epochs 2)", "article (epochs 3)"]
    assert protocols({"epochs": 2, "batch": 8}, {"epochs": 3, "batch": 9}) == [
        "article (epochs 2, batch 8)",
        "article (epochs 3, batch 9)",
    ]
    assert protocols({"loss": "nll"}, {}, {"protocol": "paper"})[:2] == ["article (loss nll)", "article (loss article)"]
    assert protocols({}, {"protocol_digest": "fedcba9876543210"}) == [
        "article (digest 01234567)",
        "article (digest fedcba98)",
    ]
    assert column("plan_protocol", record(epochs=2), record(epochs=3, run="b")) == ["article", "article"]


def test_a_network_is_architecture_optimiser_and_loss_whatever_the_length():
    base = {"optimiser": {"name": "adam", "rate": 1.0, "epochs": 2}}

    def differ(**changes):
        made = [record(**base), record(run="b", protocol_digest="f" * 16, **base | changes)]
        return len(set(column("network", *made))) == 2

    assert not differ()
    assert not differ(epochs=9, batch=9)
    assert not differ(optimiser={"name": "adam", "rate": 1.0, "epochs": 9})
    assert differ(optimiser={"name": "adam", "rate": 2.0, "epochs": 2})
    assert differ(architecture={"dim": 6})
    assert differ(loss="nll")


def test_the_frame_has_every_context_that_tables_know_and_the_caption():
    data = prepare([record(measurements=seconds(1.0), caption="One."), record("jax", caption="One.")])
    assert {name: str(data[name].dtype) for name in labels.CONTEXTS} == labels.CONTEXTS
    assert data["at_round"].tolist()[0] == 1
    assert data["caption"].tolist() == ["One.", "One."]
    assert data[["reason", "mode"]].values.tolist() == [["", ""], ["", ""]]
    assert prepare(data) is data


# In which order


def test_rows_stand_in_reading_order():
    data = pd.DataFrame({"backend": ["numpy", "other", "jax", "torch"], "n": [1, 2, 10, 9]})
    assert [key["backend"] for key, _ in labels.groups(data, ["backend"])] == ["torch", "jax", "numpy", "other"]
    assert [key["n"] for key, _ in labels.groups(data, ["n"])] == [1, 2, 9, 10]
    missing = pd.DataFrame({"mode": ["b", None, "a"]})
    assert [key["mode"] for key, _ in labels.groups(missing, ["mode"])][1:] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("status", ["ok", "diverged", "failed"]),
        ("backend", ["torch (torch 2.13)", "torch (torch 2.14)", "tensorflow", "jax", "numpy", "another"]),
        ("plan_backend", ["torch", "jax", "another"]),
        ("series", ["torch eager", "torch graph", "jax jit"]),
        ("precision", ["float64", "float32", "float32 (seen tf32)", "tf32", "bfloat16"]),
        ("other", [pd.NA, -1, 2, 10]),
        ("other", ["bfloat16", "float64", "jax", "torch"]),
    ],
)
def test_each_column_has_its_order(name, values):
    shuffled = list(reversed(values))
    assert sorted(shuffled, key=lambda value: labels.place(name, value)) == values


def test_names_as_people_say_them():
    assert [labels.said(each) for each in ("torch", "jax scan")] == ["PyTorch", "JAX scan"]
    key = {"machine": "M", "protocol": "article", "precision": "tf32", "more": 1}
    assert labels.section_label(key) == "M · article · tf32"


# What a caption says


def test_provenance_says_on_what_under_what_and_how_often():
    made = [
        record(seed=1, run="b", rounds=5, precision="bfloat16", caption="Two\nlines"),
        record("jax", rounds=2, caption="Two\nlines"),
    ]
    assert labels.provenance(prepare(made)) == [
        "Machine: AMD EPYC, 2 cores.",
        "Protocol article: Two lines.",
        "Precision: float32, bfloat16. 2/5 rounds, 2 runs, 2 seeds (0, 1).",
        "Versions: torch 2.13.0; jax 0.10.2.",
    ]
    (single,) = [record(rounds=1, packages={}, caption="")]
    assert labels.provenance(prepare([single])) == [
        "Machine: AMD EPYC, 2 cores.",
        "Protocol article.",
        "Precision: float32. 1 round, 1 run, 1 seed (0).",
    ]
    first, *_ = labels.provenance(prepare([record(machine=XEON), record(machine=EPYC)]))
    assert first == (
        "Machines: AMD EPYC, 2 cores; Intel Xeon, 4 cores. "
        "Rows of different machines are not to be compared with each other."
    )
    two = prepare([record(machine=XEON), record(machine=EPYC, precision="bfloat16")])
    assert "Precision: float32, bfloat16. 2 rounds, 1 run, 1 seed (0)." in labels.provenance(two)
    assert labels.provenance(prepare([])) == []
    for caption in ("Why?", "So!", "It is."):
        assert f"Protocol article: {caption}" in labels.provenance(prepare([record(caption=caption)]))


def test_what_did_not_end_is_named_with_its_reason():
    made = [record(), record("jax", status="failed", reason="boom!", mode="jit"), record("numpy", status="timeout")]
    (told,) = labels.incomplete(prepare(made))
    where = "AMD EPYC, 2 cores, article, float32"
    assert told == (f"Not complete: jax, jit, {where}: failed (boom!); numpy, {where}: timeout (no reason recorded).")
    assert labels.incomplete(prepare(made[:1])) == []


def test_a_time_is_disturbed_by_the_largest_share_of_a_round():
    def rows(*shares, measure="training", quantity="others_share"):
        return prepare([record(measurements=[measurement(measure, quantity, share, "1", round=1) for share in shares])])

    assert labels.disturbed(rows(0.05, 0.6, 0.2)) == 0.6
    assert labels.disturbed(rows(LIMIT)) is None
    assert labels.disturbed(rows(LIMIT + 0.001)) == LIMIT + 0.001
    assert labels.disturbed(rows(0.9, quantity="other")) is None
    assert labels.disturbed(rows(0.9, measure="floor")) is None
    assert labels.disturbed(rows()) is None
    assert labels.disturbances(rows(0.6)) == ["torch, disturbed: others used 60 % of the machine."]
    both = [
        record(name, measurements=[measurement("training", "others_share", share, "1", round=1)])
        for name, share in (("torch", 0.6), ("jax", 0.256), ("numpy", 0.01))
    ]
    assert labels.disturbances(prepare(both)) == [
        "torch, disturbed: others used 60 % of the machine; jax, disturbed: others used 26 % of the machine."
    ]
    assert labels.disturbances(rows(0.05)) == []
    assert labels.disturbed_note(None) == ""


def test_a_target_is_a_likelihood_or_a_loss_and_says_of_which_protocol_where_there_are_several():
    likelihood, loss = record(protocol="recipe", loss="nll"), record(target_loss=-2200.0)
    assert labels.targets(prepare([likelihood])) == ["Target: a log-likelihood of 1980.50 nats."]
    assert labels.targets(prepare([record(loss="nll", target_loss=-1900.0)])) == [
        "Target: a log-likelihood of 1900.00 nats."
    ]
    assert labels.targets(prepare([loss])) == ["Target: a loss of -2200.00."]
    assert labels.targets(prepare([loss, likelihood])) == [
        "Target: article, a loss of -2200.00; recipe, a log-likelihood of 1980.50 nats."
    ]
    assert labels.targets(prepare([record()])) == []


def test_the_articles_loss_is_said_to_be_no_likelihood():
    assert "no likelihood" in " ".join(labels.kinds_of_loss(prepare([record(curve=points(-1.0))])))
    assert labels.kinds_of_loss(prepare([record(loss="nll")])) == []
    assert math.isnan(prepare([record()])["value"].item())
