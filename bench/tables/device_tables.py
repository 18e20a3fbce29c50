"""The table of devices: what a training gains by several devices side by side."""

import math

import pandas as pd

from bench.tables.labels import Source, groups, prepare
from bench.tables.pivot import Rows, over_rounds, pick
from bench.tables.render import Table, number

SIZE = ["devices", "nodes", "batch"]
VARIANT = ["protocol", "precision", "backend", "mode"]
NOTES = (
    "Speed-up: images a second over those of one device of the same machine; efficiency: that over the number of",
    "devices (strong: of the same batch, which the devices share; weak: of a batch as large as each device has).",
    "On a CPU the devices are its own cores in other guises: this shows that the numbers are right, not how it scales.",
)


def devices(records: Source) -> Table:
    """Return images a second by the number of devices: a row a machine, protocol, precision, variant and number."""
    data = prepare(records)
    data = data[data["status"] == "ok"]
    if not (data["devices"] > 1).any():
        return Table("devices", "Devices side by side", "", pd.DataFrame(), pd.DataFrame(), ())
    machines = data["machine"].str.replace(r", \d+ devices( on \d+ nodes)?$", "", regex=True)
    data, table = data.assign(protocol=data["plan_protocol"], machine=machines), Rows()
    several = (data["nodes"] > 1).any()
    for key, rows in groups(data, ["machine", *VARIANT]):
        found = {
            tuple(map(int, one.values())): (over_rounds(pick(its, "training", "images_per_second")).middle, its)
            for one, its in groups(rows, SIZE)
        }
        for (count, nodes, batch), (rate, its) in found.items():
            if max(one for one, *_ in found) == 1:
                continue
            single = {size: one for (number, _, size), (one, _) in found.items() if number == 1}
            alone = {"strong": single.get(batch, math.nan), "weak": single.get(batch // count, math.nan)}
            figures = {"images_per_second": rate, "speed_up": rate / alone["strong"]}
            figures |= {f"{name}_efficiency": rate / count / one for name, one in alone.items()}
            figures["reduced_bytes"] = pick(its, "training", "reduced_bytes")["value"].median()
            cells = {
                "images/s": number(rate, 4),
                "speed-up": number(figures["speed_up"], 3),
                "efficiency, strong": number(figures["strong_efficiency"], 3),
                "efficiency, weak": number(figures["weak_efficiency"], 3),
                "reduced a step, MB": number(figures["reduced_bytes"] / 1e6, 4),
            }
            size = {"devices": count} | ({"nodes": nodes} if several else {}) | {"batch": batch}
            table.add(key | size, figures, cells, its, [*key, *size])
    return table.table("devices", "Devices side by side", data, NOTES)
