"""The table of profiles: where the time of a training step goes, a row per backend and mode."""

import math

from bench.tables.labels import ROW, Row, Source, groups, prepare
from bench.tables.pivot import Rows
from bench.tables.render import Table, number

COLUMNS = (  # quantity, heading, factor from the recorded unit to the shown one, digits
    ("step_seconds", "ms/step", 1e3, 4),
    ("traced_step_seconds", "ms/step traced", 1e3, 4),
    ("products_share", "products, %", 100, 3),
    ("optimiser_share", "optimiser, %", 100, 3),
    ("copies_share", "copies, %", 100, 3),
    ("other_share", "other work, %", 100, 3),
    ("idle_share", "idle, %", 100, 3),
    ("host_waiting_share", "host waits, %", 100, 3),
    ("operations_per_step", "operations/step", 1, 4),
    ("launches_per_step", "launches/step", 1, 4),
)
NOTES = (
    "ms/step: untraced, then under the profiler.",
    "Products, optimiser, copies (gathers, fills, conversions too), other work and idle add up to the traced time;",
    "what several threads or streams share is divided among them. Idle: the device waits for the host.",
    "Host waits: the host stands still for the GPU; launches: its calls that start work there.",
    "Operations: kernels on a GPU, on a CPU operators (torch, TensorFlow) or compiled instructions (XLA).",
)


def profile(records: Source) -> Table:
    """Return where the time of a training step goes, as medians over runs; the caption names those that failed."""
    data = prepare(records)
    table = Rows()
    for key, rows in groups(data[data["measure"] == "profile"], ROW):
        medians = rows.groupby("quantity")["value"].median()
        figures: Row = {quantity: float(medians.get(quantity, math.nan)) for quantity, *_ in COLUMNS}
        cells = {heading: number(figures[quantity] * factor, digits) for quantity, heading, factor, digits in COLUMNS}
        table.add(key, figures, cells, rows, ROW)
    return table.table("profile", "Where a training step's time goes", data, NOTES)
