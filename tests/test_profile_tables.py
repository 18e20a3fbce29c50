"""The table of profiles, from synthetic records whose figures are worked out by hand here."""

import pytest
from record_factories import EPYC, measurement, record

from bench.tables.profile_tables import profile

SHARES = {"products": 0.5, "optimiser": 0.25, "copies": 0.125, "other": 0.0625, "idle": 0.0625}


def profiled(backend="torch", step=0.004, run="a", **figures):
    found = {"step_seconds": step, "traced_step_seconds": 2 * step, "operations_per_step": 365.0}
    found |= {f"{name}_share": share for name, share in SHARES.items()} | figures
    return record(
        backend,
        run=run,
        kind="profile",
        measurements=[
            *(measurement("profile", quantity, value, "any") for quantity, value in found.items()),
            measurement("training", "step_seconds", 9.0, "s"),
        ],
    )


def test_a_row_has_milliseconds_and_percent_and_no_column_that_nothing_was_measured_of():
    table = profile([profiled(host_waiting_share=0.03125, launches_per_step=12.0), profiled("jax")])
    assert (table.name, table.labels) == ("profile", ("backend",))
    assert table.title == "Where a training step's time goes"
    first, second = table.shown.to_dict("records")
    shown = {"ms/step": "4.000", "ms/step traced": "8.000", "products, %": "50.0", "optimiser, %": "25.0"}
    shown |= {"copies, %": "12.5", "other work, %": "6.25", "idle, %": "6.25", "operations/step": "365.0"}
    assert first == {"backend": "torch"} | shown | {"host waits, %": "3.12", "launches/step": "12.00"}
    assert second == {"backend": "jax"} | shown | {"host waits, %": "–", "launches/step": "–"}
    assert table.raw["products_share"].tolist() == [0.5, 0.5]
    assert table.raw["host_waiting_share"].isna().tolist() == [False, True]
    assert "AMD EPYC, 2 cores" in table.caption


def test_a_figure_is_the_median_over_runs():
    table = profile([profiled(step=step, run=run) for run, step in (("a", 0.001), ("b", 0.002), ("c", 0.009))])
    assert table.raw["step_seconds"].tolist() == pytest.approx([0.002])
    assert table.shown["ms/step"].tolist() == ["2.000"]


def test_machines_of_records_without_a_profile_are_not_in_the_caption():
    other = record(machine=EPYC | {"cpu": "Intel Xeon"}, measurements=[measurement("training", "seconds", 1.0, "s")])
    table = profile([profiled(), other])
    assert "Xeon" not in table.caption
    assert len(table.raw) == 1
