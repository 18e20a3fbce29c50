"""What is committed under results/: whole, small, and the tables made from it up to date."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from bench import collection, tables
from bench.tables import readme

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def text(path):
    """What a file says, compressed or not: the bytes that a text is compressed to depend on the library."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def article():
    return collection.load_all(RESULTS / "article-cpu")


def test_the_tables_are_those_of_the_records(tmp_path):
    made = tables.write(collection.load_all(RESULTS), tmp_path)
    assert {path.name: text(path) for path in made} == {
        path.name: text(path) for path in (RESULTS / "tables").iterdir()
    }, "run `nox -s tables`"


def test_the_tables_in_the_readme_are_those_of_the_records():
    assert readme.refresh(ROOT / "README.md") == (ROOT / "README.md").read_text(encoding="utf-8"), "run `nox -s tables`"


def test_records_are_small():
    assert max(path.stat().st_size for path in RESULTS.rglob("*.json") if "runs" not in path.parts) < 200_000


@pytest.mark.parametrize("backend", ["torch", "tensorflow", "jax"])
def test_the_articles_loss_is_reproduced_within_twenty_epochs(backend):
    (record,) = [record for record in article() if record.plan.backend == backend]
    assert record.status == "ok"
    assert [point.epoch for point in record.curve] == list(range(1, 21))
    assert min(point.train_loss for point in record.curve) < -2200


def test_the_three_curves_start_at_the_same_loss_to_six_digits():
    starts = [record.first_epoch_losses[0] for record in article()]
    assert len(starts) == 3
    assert np.ptp(starts) / abs(np.mean(starts)) < 1e-6


def test_the_three_runs_had_the_same_weights_and_data():
    for key in ("data", "initial_parameters"):
        assert len({record.digests[key] for record in article()}) == 1
    assert len({record.digests["final_parameters"] for record in article()}) == 3
