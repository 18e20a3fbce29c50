"""Comparisons of synthetic records, and picking a row of them."""

from record_factories import record, seconds

from bench.comparison.compare import compare
from bench.comparison.compare_tables import plain
from bench.comparison.matching import by, sides
from bench.comparison.observations import observations

STEADY = (10.0, 10.1, 9.9, 10.05, 9.95)


def times(factor=1.0, values=STEADY):
    """Seconds of the rounds of a run."""
    return seconds(*(factor * value for value in values))


def compared(a, b, **options):
    """The rows of a comparison of two sets of records."""
    a, b = ([each] if not isinstance(each, list) else each for each in (a, b))
    return compare(sides(observations(a), observations(b), **options))


def only(rows, label="s/epoch", **about):
    """The one row of this label and these properties."""
    found = [
        row
        for row in rows
        if row.pair.quantity.label == label
        and not row.whole
        and all(getattr(row.pair.about, name) == value for name, value in about.items())
    ]
    assert len(found) == 1, [plain(row) for row in found]
    return found[0]


def a_and_b(factor=1.0, values=STEADY, **changes):
    """A record, and one whose times are so many times as long."""
    return record(measurements=times(), run="a"), record(measurements=times(factor, values), run="b", **changes)


def within(records, attribute, baseline=None):
    """The rows of a comparison within one set."""
    return compare(by(observations(records), attribute, baseline), runs=False)
