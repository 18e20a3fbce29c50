"""What comparisons look like."""

from compare_factories import a_and_b, compared, times
from record_factories import measurement, points, record, seconds

from bench.comparison.compare_tables import table
from bench.tables.render import render

# What it looks like


def test_the_largest_change_comes_first_and_what_cannot_be_compared_last():
    def made(run, factors):
        return [record(name, run=run, measurements=times(factor)) for name, factor in factors.items()]

    a = made("a", dict.fromkeys(("torch", "tensorflow", "jax", "numpy"), 1.0) | {"other": 1.0})
    b = made("b", {"torch": 1.2, "tensorflow": 0.5, "jax": 1.001, "numpy": 1.0})
    b[3] = record("numpy", run="b", precision="float64", measurements=times())
    b += [record("other", run="b", measurements=seconds(8, 13))]
    found = [row.pair.about.backend for row in compared(a, b) if not row.whole]
    assert found == ["tensorflow", "torch", "other", "jax", "numpy"]


def test_what_there_is_nothing_to_say_about_is_one_row():
    errors = [
        measurement("agreement", name, 1e-7, "relative", weights="initial") for name in ("z", "log_det", "log_prob")
    ]
    a, b = (record(run=run, curve=points(-5.0, -6.0, test=[-3.0]), measurements=errors) for run in "ab")
    shown = table(compared(a, b)).shown
    assert list(shown["figure"]) == ["3 errors of rounding", "final train loss, best train loss, best test loss"]
    assert list(shown["change [95 %]"]) == ["× 1.0–1.0", "0 nats"]
    shown = table(compared([a, record("jax", run="a", curve=points(-5.0))], [])).shown
    assert list(shown["backend"]) == ["torch", "jax"]


def test_a_table_says_what_its_figures_are_of():
    shown = render(table(compared(*a_and_b(1.1)), ["A: one. B: other."]), "markdown")
    assert "| slower" in shown
    assert "× 1.100 [1.087–1.113]" in shown
    assert "10.00 → 11.00 s" in shown
    for told in ("A: one. B: other.", "Machine: AMD EPYC, 2 cores.", "Precision: float32.", "Benjamini–Hochberg"):
        assert told in shown
