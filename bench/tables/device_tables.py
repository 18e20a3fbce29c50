"""The table of devices: what a training gains by several devices side by side."""

import math

from bench.tables.labels import Source, disturbed, disturbed_note, groups, prepare
from bench.tables.pivot import Rows, over_rounds, pick
from bench.tables.render import Table, number

BACKEND = ["machine", "protocol", "precision", "backend"]
SIZE = ["mode", "devices", "nodes", "batch"]
NOTES = (
    "Speed-up: images a second over those of one device of the same machine, in the same mode or else in the fastest",
    "(both undisturbed);",
    "efficiency: that over the number of devices (strong: of the same batch, which the devices share; weak: of a batch",
    "as large as each device has). Floor: of the products of a device's part of a step, its bytes and the reduction of",
    "all gradients what takes longest, each by itself.",
    "On a CPU the devices are its own cores in other guises: this shows that the numbers are right, not how it scales.",
)


def devices(records: Source) -> Table:
    """Return images a second by the number of devices: a row a machine, protocol, precision, variant and number."""
    whole = prepare(records)
    # Whatever its batches and digests:
    single_network = whole.groupby("plan_protocol")["network"].transform("nunique") == 1
    named = whole["plan_protocol"] + " (network " + whole["network"].str.slice(0, 8) + ")"
    whole = whole.assign(protocol=whole["plan_protocol"].where(single_network, named))
    data = whole[whole["status"] == "ok"]
    machines = data["machine"].str.replace(r", \d+ devices( on \d+ nodes)?$", "", regex=True)
    data, table = data.assign(machine=machines), Rows()
    several = (data["nodes"] > 1).any()
    for key, rows in groups(data, BACKEND):
        if not (rows["devices"] > 1).any():
            continue
        found = [
            (size, over_rounds(pick(its, "training", "images_per_second")).middle, its)
            for size, its in groups(rows, SIZE)
        ]
        single: dict[tuple[str | None, int], float] = {}  # by mode and batch, that of the fastest mode without one
        for size, rate, its in found:
            if size["devices"] == 1 and rate > 0 and disturbed(its) is None:
                for mode in (size["mode"], None):
                    single[mode, size["batch"]] = max(rate, single.get((mode, size["batch"]), 0.0))
        for size, rate, its in found:
            count, batch, alone = size["devices"], size["batch"], {}
            for scaling, one in (("strong", batch), ("weak", batch / count)):
                alone[scaling] = single.get((size["mode"], one), single.get((None, one), math.nan))
            share = disturbed(its)
            comparable = rate if share is None else math.nan
            figures = {"images_per_second": rate, "step_seconds": batch / rate}
            figures |= {"speed_up": comparable / alone["strong"]}
            figures |= {f"{scaling}_efficiency": comparable / count / one for scaling, one in alone.items()}
            for measure, quantity in (
                ("floor", "train_step_seconds"),
                ("floor", "reduction_seconds"),
                ("training", "reduced_bytes"),
            ):
                figures[quantity] = over_rounds(pick(its, measure, quantity)).middle
            cells = {
                "images/s": number(rate) + disturbed_note(share),
                "speed-up": number(figures["speed_up"], 3),
                "efficiency, strong": number(figures["strong_efficiency"], 3),
                "efficiency, weak": number(figures["weak_efficiency"], 3),
                "step, ms": number(figures["step_seconds"] * 1e3),
                "floor, ms": number(figures["train_step_seconds"] * 1e3, 3),
                "reduced a step, MB": number(figures["reduced_bytes"] / 1e6),
                "reduction alone, ms": number(figures["reduction_seconds"] * 1e3, 3),
            }
            shown = [name for name in (*BACKEND, *SIZE) if name != "nodes" or several]
            table.add(key | size, figures, cells, its, shown)
    return table.table("devices", "Devices side by side", whole, NOTES)
