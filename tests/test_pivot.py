"""From rows of the frame to figures and labels, and to the columns and the caption of a table."""

import math

import pandas as pd
import pytest
from record_factories import XEON, measurement, record, seconds

from bench.tables.labels import prepare
from bench.tables.pivot import (
    Rows,
    Spread,
    contexts_of,
    fastest_epochs,
    first_round,
    labels_of,
    numbers_of,
    over_rounds,
    pick,
    with_error,
)


def epochs(*rounds):
    """The rows of one record for each list of seconds."""
    made = [record(run=f"r{i}", seed=i, measurements=seconds(*its)) for i, its in enumerate(rounds)]
    return pick(prepare(made), "training", "seconds_per_epoch")


def test_each_record_counts_once_however_many_rounds_it_has():
    assert over_rounds(epochs([1.0, 1.0, 1.0, 4.0], [9.0])) == Spread(5.0, 1.0, 9.0)  # pooled it would be 1
    assert over_rounds(epochs([1.0, 2.0, 9.0])) == Spread(2.0, 1.0, 9.0)
    assert math.isnan(over_rounds(epochs()).middle)


def test_contexts_are_columns_that_hold_something():
    data = prepare([record(measurements=[measurement("a", "b", 1.0, "s", batch=7, kind="x", round=1)])])
    assert contexts_of(data, []) == ["at_batch", "at_kind"]
    assert contexts_of(data, ["at_kind"]) == ["at_batch"]


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), ("", "–"), (pd.NA, "–"), (0, "0"), ("jit", "jit")])
def test_what_is_missing_is_a_dash(value, shown):
    assert labels_of({"at_mode": value}) == {"mode": shown}


def test_a_table_has_columns_for_what_differs_and_says_the_rest_in_its_caption():
    data, made = prepare([record(), record("jax", machine=XEON)]), Rows()
    for name, labels in (("torch", ["backend", "mode"]), ("jax", ["backend"])):
        key = {"backend": name, "mode": "jit"}
        cells = {"status": "ok", "protocol": "article", "runs": name, "seeds": name, "figure": "2", "empty": "–"}
        made.add(key, {"figure": 2.0}, cells, data[data["backend"] == name], labels)
    table = made.table("name", "Title", data, ["Note."])
    assert list(table.shown) == ["backend", "mode", "status", "runs", "seeds", "figure"]
    assert table.labels == ("backend", "mode", "status", "runs", "seeds")
    assert list(table.raw["figure"]) == [2.0, 2.0]
    assert "Intel Xeon, 4 cores" in table.caption
    assert table.caption.endswith("Note.")


def test_the_caption_is_of_the_rows_that_are_said_to_be_used():
    data, made = prepare([record(), record("jax", machine=XEON)]), Rows()
    made.add({"backend": "torch"}, {"figure": 2.0}, {"figure": "2"}, data[data["backend"] == "torch"], ["backend"])
    assert "Intel Xeon" not in made.table("name", "Title", data, []).caption
    assert "Intel Xeon" in made.table("name", "Title", data, [], used=data).caption


def test_rows_need_not_have_the_same_cells_and_what_is_the_same_in_all_is_not_shown():
    data, made = prepare([record(status="failed", reason="boom"), record("jax")]), Rows()
    for name, cells in (("torch", {"a": "1"}), ("jax", {"b": "2"})):
        made.add({"backend": name}, {}, {"runs": "1", "seeds": "2"} | cells, data[data["backend"] == name], ["backend"])
    assert made.table("n", "T", data, []).shown.to_dict("records") == [
        {"backend": "torch", "a": "1", "b": "–"},
        {"backend": "jax", "a": "–", "b": "2"},
    ]
    assert made.table("n", "T", data, []).caption.startswith("Not complete: torch")
    assert "Not complete" not in made.table("n", "T", data, [], failures=False).caption
    assert Rows().table("n", "T", data, ["Note."]).caption == "Note."


def test_the_first_round_is_that_and_what_is_of_no_round():
    made = [measurement("a", name, 1.0, "s", round=i) for i, name in ((1, "one"), (2, "two"))]
    rows = prepare([record(measurements=[*made, measurement("a", "none", 1.0, "s")])])
    assert list(first_round(rows)["quantity"]) == ["one", "none"]


def test_runs_and_seeds_are_counted():
    made = [record(run=run, seed=seed) for run, seed in (("a", 0), ("a", 1), ("b", 1), ("c", 1))]
    assert numbers_of(prepare(made)) == {"runs": 3, "seeds": 2}


def test_a_value_of_one_record_has_its_error_unless_that_is_none():
    def shown(*each):
        made = [
            record(run=f"r{i}", measurements=[measurement("a", "b", value, "nats", low, high)])
            for i, (value, low, high) in enumerate(each)
        ]
        return with_error(pick(prepare(made), "a", "b"), 5)

    assert shown((2.0, 1.5, 2.5)) == "2.0000 ± 0.50"
    assert shown((2.0, 2.0, 2.0)) == "2.0000"
    assert shown((2.0, None, None)) == "2.0000"
    assert shown((2.0, 1.5, 2.5), (4.0, 3.5, 4.5)) == "3.0000 [2.0000–4.0000]"


def test_the_fastest_epoch_of_a_section_is_the_least_of_what_ended_well_and_undisturbed():
    busy = measurement("training", "others_share", 0.6, "1", round=1)
    made = [
        record(measurements=seconds(2.0, 4.0, 2.5)),
        record("jax", measurements=seconds(3.0)),
        record("tensorflow", measurements=[*seconds(1.0), busy]),
        record("numpy", measurements=seconds(0.5), status="failed", reason="boom"),
        record("other"),
        record(precision="tf32", measurements=seconds(9.0)),
        record("jax", precision="bfloat16", measurements=[busy]),
    ]
    where = ("AMD EPYC, 2 cores", "article")
    assert fastest_epochs(prepare(made)) == {(*where, "float32"): 2.5, (*where, "tf32"): 9.0}
