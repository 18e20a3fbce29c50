"""The table of the peers, from synthetic records whose figures are worked out by hand here."""

import pytest

from bench import tables
from bench.inputs.peer_registry import OURS
from bench.records import Measurement, Plan, Record
from bench.tables import peer_tables
from bench.tables.render import render


def measurement(quantity, value, peer, unit="s", note=None, **context):
    return Measurement(
        measure="peers", quantity=quantity, value=value, unit=unit, note=note, context={"peer": peer} | context
    )


def record(backend="torch", *, status="ok", reason=None, measurements=(), machine="AMD EPYC"):
    plan = Plan(
        kind="peers",
        protocol="article",
        protocol_digest="d",
        backend=backend,
        device="cpu",
        precision="float32",
        mode="eager",
        seed=0,
        epochs=3,
        batch=128,
        rounds=3,
        architecture={"dim": 784, "couplings": 4, "hidden_layers": 5, "hidden_units": 1000},
        optimiser={},
        loss="article",
        caption="Batch 128.",
    )
    environment = {"cpu": machine, "cores": 2, "packages": {"zuko": "1.6.0", "torch": "2.13.0"}}
    return Record(
        run="a", status=status, reason=reason, plan=plan, environment=environment, measurements=list(measurements)
    )


def times(peer, *values):
    return [measurement("step_seconds", value, peer, round=i) for i, value in enumerate(values, 1)]


MEASURED = record(
    measurements=[
        *times(OURS, 0.1, 0.2, 0.4),
        measurement("log_prob_error", 1.3e-7, "zuko", "relative"),
        *times("zuko", 0.2, 0.2, 0.6),
        measurement("step_seconds", None, "nflows", note="unavailable: no nflows"),
        *times("FrEIA", 0.3),
        *times(f"{OURS}: compile", 0.1, 0.1, 0.3),
        measurement("step_seconds", None, "FrEIA", note="failed: in round 2"),
    ]
)


def by_peer(table):
    return {row["peer"]: row for row in table.shown.to_dict("records")}


def test_a_ratio_is_taken_within_a_round():
    rows = by_peer(peer_tables.peers([MEASURED]))
    assert rows["zuko 1.6.0"] == {
        "framework": "torch",
        "peer": "zuko 1.6.0",
        "status": "ok",
        "ms/step [min–max]": "200.0 [200.0–600.0]",
        "× this harness": "1.50 [1.00–2.00]",
        "log p error": "1.3e-07",
        "training error": "–",
    }
    assert rows[f"{OURS}: eager"]["× this harness"] == "1.00"
    assert rows[f"{OURS}: compile"]["× this harness"] == "0.750 [0.500–1.00]"


@pytest.mark.parametrize(("peer", "message"), [("nflows", "unavailable: no nflows"), ("FrEIA", "failed: in round 2")])
def test_a_peer_without_a_time_is_a_row_that_says_why(peer, message):
    row = by_peer(peer_tables.peers([MEASURED]))[peer]
    assert row["status"] == message
    assert row["ms/step [min–max]"] == row["× this harness"] == "–"


def test_one_that_was_not_asked_for_has_no_row():
    assert set(by_peer(peer_tables.peers([MEASURED]))) == {
        f"{OURS}: eager",
        "zuko 1.6.0",
        "nflows",
        "FrEIA",
        f"{OURS}: compile",
    }


def test_what_every_row_has_behind_it():
    raw = peer_tables.peers([MEASURED]).raw
    assert set(raw["size"]) == {"4 × 5 × 1000"}
    assert raw["log_prob_error"].isna().tolist() == [name != "zuko" for name in raw["peer"]]
    assert raw.dtypes["trained_error"] == "float64"
    lost = record(measurements=[*times("zuko", 0.2), measurement("log_prob_error", None, "zuko", "relative")])
    assert peer_tables.peers([lost]).shown["status"].tolist() == ["ok"]


def test_a_note_of_a_figure_that_is_there_is_no_reason():
    noted = [measurement("step_seconds", 0.2, "zuko", note="warm", round=1)]
    assert by_peer(peer_tables.peers([record(measurements=noted)]))["zuko 1.6.0"]["status"] == "ok"


def test_a_record_of_before_packages_were_recorded_has_peers_without_a_version():
    old = record(measurements=times("zuko", 0.2))
    old = old.model_copy(update={"environment": {"cpu": "AMD EPYC", "cores": 2}})
    assert set(by_peer(peer_tables.peers([old]))) == {"zuko"}


def test_machines_come_first_then_the_older_record_then_backends_in_their_order():
    def at(day, backend):
        made = record(backend, measurements=times(OURS, 0.1))
        return made.model_copy(update={"created": f"2026-01-0{day}T00:00:00+00:00"})

    table = peer_tables.peers([at(2, "jax"), at(2, "torch"), at(1, "tensorflow")])
    assert list(table.shown["framework"]) == ["tensorflow", "torch", "jax"]
    assert table.title == "Other libraries on the same work"


def test_where_the_framework_is_missing_every_peer_says_so():
    rows = by_peer(peer_tables.peers([record("jax", status="unavailable", reason="no jax here")]))
    assert {"flowjax", "distrax", "keras fit"} < set(rows)
    assert {row["status"] for row in rows.values()} == {"unavailable: no jax here"}


def test_machines_are_kept_apart_and_else_named_in_the_caption():
    one = peer_tables.peers([MEASURED])
    assert "Machine: AMD EPYC, 2 cores." in one.caption
    assert "machine" not in one.shown
    two = peer_tables.peers([MEASURED, record(measurements=times(OURS, 0.1), machine="Xeon")])
    assert set(two.shown["machine"]) == {"AMD EPYC, 2 cores", "Xeon, 2 cores"}


def test_peers_are_in_their_own_table_and_in_no_other():
    failed = record("jax", status="failed", reason="ended by SIGSEGV")
    assert [table.name for table in tables.all_tables([MEASURED, failed])] == ["peers"]
    assert peer_tables.peers([]).raw.empty
    assert peer_tables.peers([]).caption == ""


def test_a_table_that_is_too_wide_is_folded_by_the_labels_that_it_has():
    other = MEASURED.model_copy(update={"plan": MEASURED.plan.model_copy(update={"precision": "bfloat16"})})
    table = peer_tables.peers([MEASURED, other])
    assert set(table.labels) == {"precision", "framework", "peer"}
    assert "zuko" in render([table], "text", width=60)
