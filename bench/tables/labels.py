"""Labels: what the rows of a table are called, in which order they stand, and what its caption says.

A label is only as long as it must be to keep apart what must not be mixed: `torch`, but `torch (torch 2.12.0)` where
two versions were measured; `article`, but `article (epochs 2)` where it was shortened.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

import backends
from bench.measures.disturbance import LIMIT
from bench.records import Record
from bench.records.fields import digest_of, plural
from bench.tables.frame import BACKENDS, PRECISIONS, numbered, rank
from bench.tables.render import number

SECTION = ["machine", "protocol", "precision"]
"""Within one section figures may be compared with each other."""

ROW = [*SECTION, "backend", "mode"]
LOSS_DIGITS = 6
PAPER = 1980.5
"""The paper's test log-likelihood in nats (arXiv 1410.8516, table 1): the target where a likelihood has no other."""

CONTEXTS = dict.fromkeys(("at_epoch", "at_round", "at_batch", "at_trips", "at_coupling"), "Int64") | dict.fromkeys(
    ("at_weights", "at_inputs", "at_direction"), "string"
)
"""The contexts that every prepared frame has a column of, and its type."""

Row = dict[str, Any]

Source = Iterable[Record] | pd.DataFrame
"""Records, or what `prepare` made of them, so that several tables of the same records need it done once."""


def prepare(records: Source) -> pd.DataFrame:
    """Return the frame with labels that keep apart what must not be mixed (see the head of this file).

    `series` is what a backend's column is called; `plan_protocol` and `plan_backend` keep the plain names; `network`
    stands for architecture, optimiser and loss.
    """
    if isinstance(records, pd.DataFrame):
        return records
    records = list(records)
    data = numbered(records)
    for name, kind in CONTEXTS.items():
        if name not in data:
            data[name] = pd.Series(pd.NA, index=data.index, dtype=kind)
    keys = list(zip(data["protocol"], data["protocol_digest"], strict=True))
    plans = {(record.plan.protocol, record.plan.protocol_digest): record.plan for record in records}
    data["caption"] = pd.Series([plans[key].caption for key in keys], dtype="string")
    rules = {
        key: {name: each for name, each in its.optimiser.items() if name != "epochs"} for key, its in plans.items()
    }
    networks = {key: digest_of([its.architecture, rules[key], its.loss]) for key, its in plans.items()}
    data["network"] = pd.Series([networks[key] for key in keys], dtype="string")
    for name in ("reason", "mode", "versions"):
        data[name] = data[name].fillna("")
    data["plan_protocol"], data["plan_backend"] = data["protocol"], data["backend"]
    data["protocol"] = _protocols(data)
    seen = data["precision_seen"].notna() & (data["precision_seen"] != data["precision"])
    data["precision"] = data["precision"].where(~seen, data["precision"] + " (seen " + data["precision_seen"] + ")")
    versions = data[data["versions"] != ""].groupby("backend")["versions"].nunique()
    several = data["backend"].isin(versions[versions > 1].index) & (data["versions"] != "")
    data["backend"] = data["backend"].where(~several, data["backend"] + " (" + data["versions"] + ")")
    modes = data.groupby([*SECTION, "backend"])["mode"].nunique()
    several = data["backend"].isin(modes[modes > 1].index.get_level_values("backend")) & (data["mode"] != "")
    data["series"] = data["backend"].where(~several, data["backend"] + " " + data["mode"])
    return data


def _protocols(data: pd.DataFrame) -> pd.Series:
    """Return the protocol's name, with what sets it apart where one name stands for several protocols."""
    labels = data["protocol"].copy()
    for name, rows in data.groupby("protocol"):
        marks = pd.Series("", index=rows.index)
        for column, sign in (("epochs", "epochs"), ("batch", "batch"), ("loss", "loss"), ("protocol_digest", "digest")):
            if rows[column].nunique() > 1:
                marks = marks + f", {sign} " + rows[column].astype("string").str.slice(0, 8)
        labels[rows.index] = [f"{name} ({mark.removeprefix(', ')})" if mark else str(name) for mark in marks]
    return labels


def groups(data: pd.DataFrame, keys: list[str]) -> Iterator[tuple[Row, pd.DataFrame]]:
    """Yield the groups of `data` in reading order, with their keys."""
    found = [(dict(zip(keys, key, strict=True)), rows) for key, rows in data.groupby(keys, dropna=False, sort=False)]
    yield from sorted(found, key=lambda group: tuple(place(name, value) for name, value in group[0].items()))


def place(name: str, value: Any) -> tuple[float, str]:
    """Return the sort key of one label of the column `name`."""
    if pd.isna(value):
        return (-math.inf, "")
    if not isinstance(value, str):
        return (float(value), "")
    if name == "status":
        return (0 if value == "ok" else 1, value)
    order = {"backend": BACKENDS, "plan_backend": BACKENDS, "series": BACKENDS, "precision": PRECISIONS}.get(name, ())
    return (rank(value.split(" ")[0], order)[0], value)


def said(series: str) -> str:
    """A series as people call it: "JAX scan" for "jax scan"."""
    backend, _, rest = series.partition(" ")
    return " ".join(filter(None, (backends.title(backend), rest)))


def section_label(key: Mapping[str, Any]) -> str:
    """Machine, protocol and precision in one line."""
    return " · ".join(str(key[name]) for name in SECTION)


def provenance(used: pd.DataFrame) -> list[str]:
    """Return sentences that say what the figures were taken on, under what, and how often."""
    parts = []
    machines = sorted(used["machine"].unique())
    if len(machines) > 1:
        listed = "; ".join(machines)
        parts.append(f"Machines: {listed}. Rows of different machines are not to be compared with each other.")
    elif machines:
        parts.append(f"Machine: {machines[0]}.")
    for key, _ in groups(used, ["protocol", "caption"]):
        parts.append(_sentence(": ".join(filter(None, [f"Protocol {key['protocol']}", key["caption"]]))))
    if not used.empty:
        precisions = sorted(used["precision"].unique(), key=lambda value: place("precision", value))
        rounds = "/".join(str(value) for value in sorted(used["rounds"].unique()))
        seeds = sorted(used["seed"].unique())
        counts = f"{plural(rounds, 'round')}, {plural(used['run'].nunique(), 'run')}, {plural(len(seeds), 'seed')}"
        parts.append(f"Precision: {', '.join(precisions)}. {counts} ({', '.join(map(str, seeds))}).")
        versions = [str(key["versions"]) for key, _ in groups(used, ["plan_backend", "versions"]) if key["versions"]]
        if versions:
            parts.append(f"Versions: {'; '.join(versions)}.")
    return parts


def incomplete(data: pd.DataFrame) -> list[str]:
    """Return a sentence that lists what did not end well, and why."""
    parts = []
    for key, _ in groups(data[data["status"] != "ok"], [*ROW, "status", "reason"]):
        where = ", ".join(str(key[name]) for name in ("backend", "mode", *SECTION) if key[name])
        parts.append(f"{where}: {key['status']} ({str(key['reason']) or 'no reason recorded'})")
    return [_sentence(f"Not complete: {'; '.join(parts)}")] if parts else []


def disturbed(rows: pd.DataFrame) -> float | None:
    """Return the largest share of the machine that other processes used in a round, if it is above `LIMIT`."""
    share = rows[(rows["measure"] == "training") & (rows["quantity"] == "others_share")]["value"].max()
    return float(share) if share > LIMIT else None


def disturbed_note(share: float | None) -> str:
    """Return what stands behind a time beside which other processes used that share of the machine; "" for None."""
    return f", disturbed: others used {number(100 * share, 2)} % of the machine" if share is not None else ""


def disturbances(data: pd.DataFrame) -> list[str]:
    """Return a sentence that lists beside what others used the machine, and how much of it."""
    shares = {str(key["series"]): disturbed(rows) for key, rows in groups(data, ["series"])}
    parts = [f"{name}{disturbed_note(share)}" for name, share in shares.items() if share is not None]
    return [f"{'; '.join(parts)}."] if parts else []


def targets(data: pd.DataFrame) -> list[str]:
    """Return a sentence that names the targets: a log-likelihood, by default the paper's, or a loss that is none."""
    given = data.assign(
        target_loss=data["target_loss"].where(data["loss"] != "nll", data["target_loss"].fillna(-PAPER))
    )
    given = given.dropna(subset=["target_loss"])
    several, parts = data["protocol"].nunique() > 1, []
    for key, _ in groups(given, ["protocol", "target_loss", "loss"]):
        loss = float(key["target_loss"])
        likelihood = f"a log-likelihood of {number(-loss, LOSS_DIGITS)} nats"
        of = likelihood if key["loss"] == "nll" else f"a loss of {number(loss, LOSS_DIGITS)}"
        parts.append(f"{key['protocol']}, {of}" if several else of)
    return [f"Target: {'; '.join(parts)}."] if parts else []


def kinds_of_loss(data: pd.DataFrame) -> list[str]:
    """Return what a caption says of the article's loss wherever it stands."""
    if not (data["loss"] == "article").any():
        return []
    constant = "Article loss: −log p without its constant ½ D log 2π, on pixels as the article takes them."
    return [constant, "That is no likelihood of dequantised data, and not to be compared with one."]


def _sentence(text: str) -> str:
    """Return `text` in one line that ends with a full stop."""
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
