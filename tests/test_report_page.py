"""The report's file: from the committed records alone, small, the same bytes each time; and what lies beside them."""

import gzip
import re
import zlib
from pathlib import Path

import pytest
from check_factories import apart, run_of, runs_of_all
from PIL import Image
from record_factories import XEON, measurement, points, record
from report_records import FAILED, many, swept, trained
from typer.testing import CliRunner

from bench import records
from bench.agreement import agreement_report
from bench.agreement.agree import Check
from bench.commands import cli
from bench.errors import BenchError
from bench.records import collection
from bench.regression import reference
from bench.report import page, pictures, suites
from bench.report.figures import run_groups
from bench.report.panels import MOST_POINTS
from bench.tables.labels import prepare

RESULTS = Path(__file__).parent.parent / "results"


def groups_of(made):
    return [*run_groups(prepare(made))]


def panel_of(made, name):
    (found,) = [panel for group in groups_of(made) for panel in group.panels if panel.name == name]
    return found


# The page


def test_the_committed_records_make_a_small_page(tmp_path):
    made = collection.load_all(RESULTS)
    written = page.write(made, [RESULTS], tmp_path / "new" / "report.html")
    assert 1e6 < written.stat().st_size < 6e6
    text = written.read_text(encoding="utf-8")
    cut_off = sum(record.status != "ok" for record in made)  # on a GPU that was lent for minutes
    assert re.search(rf"{len(made)} records \(\d+ of runs.*\); {cut_off} did not end well \(see below\)\.", text)
    assert "checks passed." in text


def test_the_same_records_give_the_same_bytes_in_whatever_order():
    made = [trained("torch"), trained("jax"), FAILED, swept("jax", 2e-3)]
    assert page.html(made, []) == page.html(made[::-1], [])


def test_a_group_of_many_records_draws_no_more_than_one_of_few():
    few, lots = groups_of(many(6))[0], groups_of(many(60))
    assert len(lots) == 5
    for group in lots:
        assert {p.name: len(p.data) for p in group.panels if p.name != "invertibility"} == {
            p.name: len(p.data) for p in few.panels if p.name != "invertibility"
        }


def test_the_command_makes_the_page_and_says_how_large_it_is(tmp_path):
    records.save(record(), tmp_path / "records")
    output = tmp_path / "page.html"
    ran = CliRunner().invoke(cli.app, ["report", str(tmp_path / "records"), "--output", str(output)])
    assert ran.exit_code == 0
    assert re.fullmatch(rf"{re.escape(str(output))} \(\d\.\d MB\)\n", ran.stdout)
    assert "1 record (1 of runs); all ended well." in output.read_text(encoding="utf-8")


def test_what_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"report\.html: can't be written"):
        page.write([record()], [], tmp_path / "file" / "report.html")


def test_records_without_any_figures_still_make_a_page():
    text = page.html([record(status="unavailable", reason="not installed")], [])
    assert "PyTorch on AMD EPYC, 2 cores, article, float32: unavailable: not installed" in text


# Figures


def test_long_curves_are_thinned_to_their_ends_and_the_caption_says_so():
    made = [record(backend, curve=points(*(-float(i) for i in range(1, 502)))) for backend in ("torch", "jax")]
    found = panel_of(made, "loss-train")
    x = found.data[0]["x"]
    assert len(x) <= MOST_POINTS + 1
    assert (x[0], x[1], x[-1]) == (1, 4, 501)
    assert "Of 501 epochs one in 3 is drawn." in found.caption


def test_a_figure_of_a_backend_that_failed_is_not_drawn_beside_the_others():
    made = [trained("torch"), trained("jax", status="failed", reason="died")]
    assert panel_of(made, "epoch").data[1]["y"] == ["PyTorch"]


def test_a_figure_of_times_says_which_were_disturbed():
    busy = measurement("training", "others_share", 0.6, "1", round=1)
    quiet = trained("torch")
    loud = quiet.model_copy(update={"run": "b", "measurements": [*quiet.measurements, busy]})
    assert "disturbed: others used 60 % of the machine." in panel_of([loud], "epoch").caption
    assert "disturbed" not in panel_of([quiet], "epoch").caption


def side_by_side(count, rate, batch=128, **options):
    made = [measurement("training", "images_per_second", rate, "images/s", round=1)]
    return record(run=f"{count} of {batch} {options}", devices=count, batch=batch, measurements=made, **options)


def test_devices_side_by_side_are_a_curve_of_speed_up_with_the_efficiency_at_its_points():
    made = [side_by_side(count, rate) for count, rate in ((1, 1000.0), (2, 1500.0), (4, 3000.0))]
    made += [side_by_side(4, 2000.0, nodes=2), side_by_side(2, 1800.0, batch=256)]
    strong, weak = panel_of(made, "devices-strong"), panel_of(made, "devices-weak")
    ideal, one_node, two_nodes = strong.data
    assert (ideal["x"], ideal["y"]) == ([1, 2, 4], [1, 2, 4])
    assert (one_node["x"], one_node["y"], one_node["text"]) == ([2, 4], [1.5, 3.0], ["0.75", "0.75"])
    assert (two_nodes["name"], two_nodes["y"], two_nodes["text"]) == ("PyTorch on 2 nodes", [2.0], ["0.50"])
    assert (weak.data[1]["x"], weak.data[1]["y"], weak.data[1]["text"]) == ([2], [1.8], ["0.90"])


def test_networks_of_one_protocols_name_have_curves_of_their_own():
    made = [side_by_side(count, rate) for count, rate in ((1, 1000.0), (2, 1500.0))]
    small = {"protocol_digest": "f" * 16, "architecture": {"dim": 4, "hidden_units": 9}}
    made += [side_by_side(count, rate, **small) for count, rate in ((1, 2000.0), (2, 3600.0))]
    panels = [panel for group in groups_of(made) for panel in group.panels if panel.name.startswith("devices")]
    assert sorted(tuple(panel.data[1]["y"]) for panel in panels) == [(1.5,), (1.8,)]


def test_each_machine_and_precision_has_a_curve_of_its_own_devices_alone():
    made = [side_by_side(1, 1000.0), side_by_side(2, 9.0, precision="bfloat16")]  # neither has what the other lacks
    for where in ({"machine": XEON}, {"precision": "float64"}):
        made += [side_by_side(count, rate, **where) for count, rate in ((1, 500.0), (2, 900.0))]
    panels = [panel for group in groups_of(made) for panel in group.panels if panel.name.startswith("devices")]
    assert [len(panel.data) for panel in panels] == [2, 2]


def test_losses_that_are_not_finite_leave_a_gap():
    made = [record(curve=points(-1.0, float("nan"), -3.0))]
    assert list(panel_of(made, "loss-train").data[0]["y"]) == [-1.0, None, -3.0]


# Pictures


def png(path, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 64).save(path)
    return path


def test_pictures_have_their_captions_from_beside_them(tmp_path):
    for name in ("a", "b", "some-name"):
        png(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "pictures" / "a.txt").write_text("Digits\nof torch", encoding="utf-8")
    (tmp_path / "pictures" / "b.json").write_text('{"title": "Scales", "caption": "σ", "seed": 0}', encoding="utf-8")
    png(tmp_path / "runs" / "unkept.png")
    found, left_out = pictures.pictures([tmp_path])
    assert [picture.caption for picture in found] == ["Digits of torch", "σ", "some name"]
    assert [picture.title for picture in found] == ["", "Scales", ""]
    assert left_out == []
    assert found[0].source.startswith("data:image/png;base64,iVBOR")


def test_pictures_beyond_the_room_are_named(tmp_path):
    small, large = png(tmp_path / "small.png"), png(tmp_path / "large.png", (64, 64))
    found, left_out = pictures.pictures([tmp_path], most=small.stat().st_size + large.stat().st_size - 1)
    assert [picture.name for picture in found] == ["small"]
    assert left_out == [str(large)]
    assert "No room in this page for" not in page.html([record()], [tmp_path])


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "broken.png").write_text("not a picture")
    with pytest.raises(BenchError, match=r"broken\.png: can't be read as a picture"):
        pictures.pictures([tmp_path])
    whole = png(tmp_path / "broken.png").read_bytes()
    chunk = b"\x00\x00\x00\x00fcTL" + zlib.crc32(b"fcTL").to_bytes(4, "big")  # of an animation, and empty
    (tmp_path / "broken.png").write_bytes(whole[:33] + chunk + whole[33:])
    with pytest.raises(BenchError, match=r"broken\.png: can't be read as a picture"):
        pictures.pictures([tmp_path])


def test_a_caption_may_have_no_title_and_may_not_be_nested_without_end(tmp_path):
    png(tmp_path / "a.png")
    (tmp_path / "a.json").write_text('{"title": null, "caption": "Digits"}', encoding="utf-8")
    ((found,), _) = pictures.pictures([tmp_path])
    assert (found.title, found.caption) == ("", "Digits")
    (tmp_path / "a.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(BenchError, match=r"a\.png: its caption can't be read"):
        pictures.pictures([tmp_path])


# The agreement suite


def checked(tmp_path, *errors):
    checks = [
        Check("lockstep", "article", backend, "float64", "initial", "loss", error, float("nan"), 1e-9)
        for backend, error in zip(("torch", "jax"), errors, strict=False)
    ]
    text = agreement_report.frame(checks).to_csv(index=False)
    compressed = gzip.compress(f"# machine: a machine; Python 3\n{text}".encode())
    (tmp_path / agreement_report.FILE).write_bytes(compressed)
    (found,) = suites.suites([tmp_path])
    return found


def test_a_suite_that_passed_says_so_and_is_a_heat_map(tmp_path):
    found = checked(tmp_path, 1e-10, 0.0)
    assert found.sentences == ["All 2 checks passed."]
    (panel,) = found.group.panels
    assert list(panel.data[0]["z"][0]) == pytest.approx([-1.0, -4.0])
    assert list(panel.data[0]["text"][0]) == ["0.10", "0"]


def test_a_suite_that_failed_says_so_first(tmp_path):
    found = checked(tmp_path, 1e-10, 2e-9)
    assert found.sentences == ["1 of 2 checks FAILED.", "lockstep, jax: 1 failed: loss."]
    assert list(found.group.panels[0].data[0]["text"][0]) == ["0.10", "2.0 FAILED"]


def test_a_suite_without_a_check_has_not_passed(tmp_path):
    assert checked(tmp_path).sentences == ["No check was made."]


@pytest.mark.parametrize("name", ["backend", "quantity"])
def test_a_row_of_a_suite_without_a_name_is_refused(tmp_path, name):
    checked(tmp_path, 1e-10, 2e-9)
    path = tmp_path / agreement_report.FILE
    head, line, rest = gzip.decompress(path.read_bytes()).decode().split("\n", 2)
    rows = rest.replace({"backend": "jax", "quantity": "loss"}[name], "")
    path.write_bytes(gzip.compress(f"{head}\n{line}\n{rows}".encode()))
    with pytest.raises(BenchError, match=f"a row has no {name}"):
        suites.suites([tmp_path])


@pytest.fixture
def references(tmp_path, monkeypatch, steps):
    """A folder that holds the reference of a trajectory alone."""
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    reference.save(steps, tmp_path)
    return tmp_path


def test_what_still_holds_is_asked_of_the_backends_that_ran_the_references_protocol(references):
    others = [record("jax", run="other", protocol="article-quick")]
    _, *good = runs_of_all()
    assert page.still_holds([good[0], *others]).short == "yes"
    assert page.still_holds([good[0], run_of("jax", losses=apart(1.0)), *others]).short.startswith("no: 1 of ")
    assert page.still_holds(others).short == "not checked"
    assert page.still_holds([run_of("numpy")]).short == "not checked"  # the reference has no curve of NumPy's


def test_a_reference_that_was_edited_is_named_where_nothing_still_holds_by_it(references):
    (path,) = references.iterdir()
    path.write_text(path.read_text(encoding="utf-8").replace("5", "6", 1), encoding="utf-8")
    answer = page.still_holds(runs_of_all())
    assert answer.short == "not checked"
    assert path.name in answer.sentences[0]
    assert str(references) not in answer.sentences[0]
