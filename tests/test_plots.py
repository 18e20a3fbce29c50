"""Sweeps as a table and as figures, from synthetic records whose exponents and knees are known."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from record_factories import EPYC, XEON, measurement, points, record, row, seconds

from bench import records, tables
from bench.errors import BenchError
from bench.figures import plots
from bench.records import Measurement
from bench.tables import sweep_tables
from bench.tables.labels import prepare

BATCHES = [2**i for i in range(13)]
FIXED = {"torch": 8e-3, "jax": 2e-3, "numpy": 0.0}
EXAMPLE = 1e-3  # seconds an example, whence knees at 8 and 2


def figure(at, quantity, value, unit, **more):
    return Measurement(measure="sweep", quantity=quantity, value=value, unit=unit, context=at, **more)


def swept(backend, *, axis="batch", operations=("log_prob", "train"), sizes=BATCHES, factor=1.0, **options):
    """A record of a backend whose calls take FIXED[backend] + EXAMPLE · size seconds, twice that in training."""
    made = []
    for operation in operations:
        for size in sizes:
            at = {"axis": axis, "value": size, "operation": operation}
            seconds = factor * (FIXED[backend] + EXAMPLE * size) * (2 if operation == "train" else 1)
            made.append(figure(at, "seconds", seconds, "s", low=0.9 * seconds, high=1.2 * seconds))
            made.append(figure(at, "examples_per_second", size / seconds, "examples/s"))
            made.append(figure(at, "flop_rate", 1e6 * size / seconds, "FLOP/s"))
    options = {"kind": "sweep", "mode": "fast"} | options
    return record(backend, measurements=made, **options)


def left_out(*sizes, note="left out: a call would take about 5 s"):
    at = {"axis": "batch", "operation": "log_prob"}
    return [figure(at | {"value": size}, "seconds", None, "s", note=note) for size in sizes]


def with_rows(made, rows):
    return made.model_copy(update={"measurements": [*made.measurements, *rows]})


BOTH = [swept("torch"), swept("jax")]


# The table


def test_a_row_has_exponent_knee_fixed_cost_least_time_and_best_throughput():
    found = row(sweep_tables.scaling(BOTH), backend="torch", operation="log p")
    assert found["exponent p"] == "1.000 ± 0.000"
    assert (found["knee"], found["fixed cost, ms"], found["least time, ms"]) == ("8.00", "8.00", "9.000")
    assert found["best examples/s"] == "998.1"  # 4096 / 4.104 s
    assert found["best GFLOP/s"] == "0.9981"
    assert found["sizes"] == "1–4096"


def test_backends_of_one_axis_and_operation_stand_together_in_their_usual_order():
    table = sweep_tables.scaling([swept("jax"), swept("torch"), swept("torch", axis="width", run="b")])
    keys = list(table.raw[["axis", "operation", "backend"]].itertuples(index=False, name=None))
    assert keys == [
        ("batch", "log_prob", "torch"),
        ("batch", "log_prob", "jax"),
        ("batch", "train", "torch"),
        ("batch", "train", "jax"),
        ("width", "log_prob", "torch"),
        ("width", "train", "torch"),
    ]


def test_a_knee_below_what_was_measured_is_a_bound():
    table = sweep_tables.scaling([swept("jax", sizes=[32, 64, 128, 256, 512])])
    assert row(table, operation="log p")["knee"] == "< 32.0"


def test_what_was_not_measured_is_named_once_with_its_reason():
    made = with_rows(swept("torch"), left_out(8192, 16384))
    found = row(sweep_tables.scaling([made]), operation="log p")
    assert found["not measured"] == "8192 and larger: a call would take about 5 s"
    hole = with_rows(swept("torch", sizes=[1, 2, 8, 16]), left_out(4, note="failed: killed"))
    assert row(sweep_tables.scaling([hole]), operation="log p")["not measured"] == "4: failed: killed"


def test_a_curve_without_a_fit_says_why():
    found = row(sweep_tables.scaling([swept("torch", sizes=[1, 2, 4])]), operation="log p")
    assert found["exponent p"] == "too few points (3)"
    assert "knee" not in found  # nobody has one


def test_points_left_out_altogether_are_a_row():
    made = record("torch", measurements=left_out(1, 2), kind="sweep")
    found = row(sweep_tables.scaling([made]), operation="log p")
    assert found["exponent p"] == "too few points (0)"
    assert "least time, ms" not in found


def test_of_several_runs_the_median_counts():
    made = [swept("torch", run=name, factor=factor) for name, factor in (("a", 1.0), ("b", 2.0), ("c", 9.0))]
    [curve, _] = sweep_tables.curves(sweep_tables.sweeps(prepare(made)))
    assert curve.points["seconds"].to_numpy() == pytest.approx(2 * (8e-3 + EXAMPLE * np.array(BATCHES)))
    assert curve.points["low"].to_numpy() == pytest.approx(8e-3 + EXAMPLE * np.array(BATCHES))
    assert curve.scaling.knee == pytest.approx(8, rel=1e-3)


def test_a_sweep_is_among_all_tables_and_changes_no_other():
    other = record("torch", measurements=[measurement("training", "seconds_per_epoch", 2.0, "s", round=1)])
    names = [table.name for table in tables.all_tables([other, *BOTH])]
    assert names == ["headline", "speed", "scaling"]
    alone, beside = (tables.speed(given) for given in ([other], [other, *BOTH]))
    assert alone.shown.equals(beside.shown)
    assert "scaling" not in [table.name for table in tables.all_tables([other])]


def test_a_record_of_a_sweep_reads_back_as_it_was(tmp_path):
    made = with_rows(swept("torch"), left_out(8192))
    path = records.save(made, tmp_path)
    assert records.load(path) == made
    assert path.name == "article-sweep-torch-cpu-float32-fast-seed0.json"


# The figures


def drawn(made):
    """name → figure, made within the style as `write` does."""
    return dict(plots.figures(made))


def texts(figure: Figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_an_axis_is_a_figure_and_an_operation_a_panel():
    found = drawn([*BOTH, swept("torch", axis="depth", operations=("sample",), run="b")])
    assert list(found) == ["sweep-batch", "sweep-depth"]
    panels = found["sweep-batch"].axes
    assert [panel.get_title() for panel in panels] == ["log p", "training step"]
    assert {(panel.get_xscale(), panel.get_yscale()) for panel in panels} == {("log", "log")}
    assert {panel.get_xlabel() for panel in panels} == {"batch, examples"}
    assert panels[0].get_ylabel() == "time, s"
    assert found["sweep-depth"].axes[0].get_xlabel() == "depth, hidden layers of a coupling"


def test_a_panel_has_a_line_a_backend_with_interval_dashed_fit_and_star_at_the_knee():
    panel = drawn(BOTH)["sweep-batch"].axes[0]
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert labels == ["torch: p = 1.000 ± 0.000, knee 8.00", "jax: p = 1.000 ± 0.000, knee 2.00"]
    lines, [low, high] = panel.containers[0].lines[0], panel.containers[0].lines[1]
    assert lines.get_xdata().tolist() == BATCHES
    assert lines.get_ydata() == pytest.approx(8e-3 + EXAMPLE * np.array(BATCHES))
    assert low.get_ydata() == pytest.approx(0.9 * lines.get_ydata())
    assert high.get_ydata() == pytest.approx(1.2 * lines.get_ydata())
    [dashed, _] = [line for line in panel.lines if line.get_linestyle() == "--"]
    assert dashed.get_ydata() == pytest.approx(EXAMPLE * dashed.get_xdata(), rel=1e-3)
    stars = [line for line in panel.lines if line.get_marker() == "*"]
    assert [(star.get_xdata()[0], star.get_ydata()[0]) for star in stars] == [
        (pytest.approx(8, rel=1e-2), pytest.approx(8e-3, rel=1e-2)),
        (pytest.approx(2, rel=1e-2), pytest.approx(2e-3, rel=1e-2)),
    ]


def test_each_line_has_a_marker_and_each_backend_a_colour_of_its_own():
    made = [swept("torch", mode="eager"), swept("torch", mode="compile", run="b"), swept("jax")]
    lines = [container.lines[0] for container in drawn(made)["sweep-batch"].axes[0].containers]
    assert len({line.get_marker() for line in lines}) == 3
    colours = [line.get_color() for line in lines]
    assert colours[0] == colours[1] != colours[2]


def test_the_caption_says_machine_precision_and_versions():
    [caption] = [text for text in texts(drawn(BOTH)["sweep-batch"]) if "Machine" in text]
    caption = " ".join(caption.split())
    for message in ("Machine: AMD EPYC, 2 cores.", "Precision: float32.", "torch 2.13.0; jax 0.10.2", "95 % interval"):
        assert message in caption


def test_machines_are_never_in_one_figure():
    found = drawn([swept("torch", machine=EPYC), swept("jax", machine=XEON)])
    assert len(found) == 2
    assert len(set(found)) == 2
    assert [len(figure.axes[0].containers) for figure in found.values()] == [1, 1]


def test_a_curve_without_a_fit_is_drawn_without_a_dashed_line():
    panel = drawn([swept("torch", sizes=[1, 2, 4])])["sweep-batch"].axes[0]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["torch: too few points (3)"]
    assert not [line for line in panel.lines if line.get_linestyle() == "--" or line.get_marker() == "*"]


@pytest.mark.slow
@pytest.mark.parametrize("style", ["svg", "png"])
def test_the_same_records_give_the_same_bytes_and_few_of_them(tmp_path, style):
    made = [swept(name, operations=("log_prob", "sample", "train")) for name in FIXED]
    first = plots.write(made, tmp_path / "first", style)
    again = plots.write(made[::-1], tmp_path / "again", style)
    assert [path.name for path in first] == [f"sweep-batch.{style}"]
    assert first[0].read_bytes() == again[0].read_bytes()
    assert first[0].stat().st_size < 150_000


def test_figures_whose_names_come_out_alike_are_all_kept(tmp_path):
    gpus = ("NVIDIA H100 80GB", "NVIDIA H100 (80GB)")
    made = [
        record(device="gpu", machine=EPYC | {"gpus": [{"name": name}]}, curve=points(-1.0), measurements=seconds(1.0))
        for name in gpus
    ]
    paths = plots.write(made, tmp_path)
    assert [path.name for path in paths] == [
        "training-nvidia-h100-80gb-article-float32.svg", "training-nvidia-h100-80gb-article-float32-2.svg"
    ]  # fmt: skip
    assert all(path.is_file() for path in paths)


def test_the_time_of_an_epoch_says_what_was_disturbed_and_what_did_not_end():
    busy = measurement("training", "others_share", 0.6, "1", round=1)
    made = [
        record(curve=points(-1.0), measurements=[*seconds(1.0), busy]),
        record("jax", curve=points(-1.0), measurements=seconds(2.0)),
        record("tensorflow", curve=points(-1.0), measurements=seconds(3.0), status="failed", reason="interrupted"),
    ]
    [(_, figure)] = plots.training_figures(made)
    caption = " ".join(" ".join(texts(figure)).split())
    assert "torch, disturbed: others used 60 % of the machine." in caption
    assert "Not complete: tensorflow, AMD EPYC, 2 cores, article, float32: failed (interrupted)." in caption
    assert caption.count("disturbed") == 1


def test_records_without_sweeps_give_no_figure(tmp_path):
    assert plots.write([record()], tmp_path) == []


def test_an_unknown_format_and_a_folder_that_is_a_file_are_one_error(tmp_path):
    with pytest.raises(BenchError, match="format 'gif': expected one of svg, png"):
        plots.write(BOTH, tmp_path, "gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="can't be written"):
        plots.write(BOTH, tmp_path / "file")
