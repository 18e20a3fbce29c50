"""From rows of the frame to figures and labels, and to the columns and the caption of a table."""

import math

import pandas as pd
import pytest
from record_factories import XEON, measurement, record, seconds

from bench.tables.labels import prepare
from bench.tables.pivot import Rows, Spread, contexts_of, labels_of, over_rounds, pick


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
