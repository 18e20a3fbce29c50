"""What is committed under results/: whole, small, and the tables made from it up to date."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from bench import tables
from bench.figures import plots
from bench.records import collection
from bench.tables import readme

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def text(path):
    """What a file says, compressed or not: the bytes that a text is compressed to depend on the library."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def article():
    return collection.load_all(RESULTS / "article-cpu")


@pytest.mark.slow
def test_the_tables_are_those_of_the_records(tmp_path):
    made = tables.write(collection.load_all(RESULTS), tmp_path)
    assert {path.name: text(path) for path in made} == {
        path.name: text(path) for path in (RESULTS / "tables").iterdir()
    }, "run `nox -s tables`"


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", RESULTS / "README.md"], ids=["README", "results"])
def test_the_tables_in_a_page_are_those_of_the_records(page):
    assert readme.refresh(page) == page.read_text(encoding="utf-8"), "run `nox -s tables`"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 12 * 1024


@pytest.mark.parametrize("page", ["README.md", "results/README.md", "bench/README.md"])
def test_what_a_page_links_to_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if link and not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.slow
def test_the_picture_of_the_readme_is_that_of_the_records(tmp_path):
    (made,) = plots.write(collection.load_all(RESULTS / "article-gpu"), tmp_path)
    assert made.read_bytes() == (RESULTS / "article-gpu" / made.name).read_bytes(), "run `nox -s tables`"


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


# On a GPU


def on_gpu():
    return {record.plan.backend: record for record in collection.load_all(RESULTS / "article-gpu")}


def test_all_three_reach_the_articles_loss_on_a_gpu_in_the_same_epoch():
    found = on_gpu()
    assert set(found) == {"torch", "tensorflow", "jax"}
    for record in found.values():
        assert next(point.epoch for point in record.curve if point.train_loss < -2200) == 16
        assert record.precision.seen == "tf32"


def test_what_a_gpu_computed_began_as_what_a_cpu_did():
    on_cpu = {record.plan.backend: record for record in article()}
    for name, record in on_gpu().items():
        assert record.digests["initial_parameters"] == on_cpu[name].digests["initial_parameters"]
        assert record.first_epoch_losses[0] == pytest.approx(on_cpu[name].first_epoch_losses[0], rel=1e-4)


# Past the paper's number


def test_recipe_is_past_the_papers_number_with_every_framework():
    found = {record.plan.backend: record for record in collection.load_all(RESULTS / "recipe-cpu")}
    assert set(found) == {"torch", "tensorflow", "jax"}
    for record in found.values():
        (measured,) = [m for m in record.measurements if m.quantity == "dequantised_log_likelihood"]
        assert measured.value > 2100
        assert measured.n >= 10
        assert record.status == "ok"
