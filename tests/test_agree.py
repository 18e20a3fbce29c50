"""The agreement suite from end to end: its tables, its file, its exit."""

import gzip
import math
from dataclasses import replace

import numpy as np
import pytest
from factories import ARTICLE, backend_names, requires, rows, weights
from faults.walk import small_setting

import backends
from backends import parameters
from bench.agreement import agree, agree_matrix, agreement_plots, agreement_report, agreement_runs
from bench.errors import BenchError

pytestmark = pytest.mark.slow

SUITES = {"matrix", "lockstep", "resume", "sampling", "determinism", "invertibility"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One mode a backend, a small network, few images: what compiles and what is long has tests of its own."""
    small = small_setting()
    more = {"article, halves, add": small.architectures["article"]}
    setting = replace(small, architectures=small.architectures | more, steps=4)
    monkeypatch.setattr(agreement_runs, "setting", lambda **_: setting)
    monkeypatch.setattr(agreement_runs, "every_mode", lambda name, device: [name])
    monkeypatch.setattr(agreement_runs, "ROUND_TRIP_IMAGES", 4)


@pytest.fixture
def without_processes(monkeypatch):
    monkeypatch.setattr(agreement_runs, "determinism", lambda *_: iter(()))


def run(folder, **options):
    options = {"full": False, "steps": 4, "output": folder} | options
    return agreement_runs.run(["numpy", "torch"], "cpu", **options)


def test_the_suite_passes_and_leaves_its_checks_and_tables(tmp_path):
    text = run(tmp_path)
    assert "FAILED" not in text
    assert "checks are within their tolerances" in text
    checks, head = agreement_report.load(tmp_path)
    assert set(checks["suite"]) == SUITES
    assert checks["passed"].all()
    assert head[0].startswith("machine: ")
    assert {path.suffix for path in tmp_path.iterdir()} == {".gz", ".md", ".svg"}
    check_the_figure(checks, head, tmp_path)
    assert "in another process" in (tmp_path / "agreement-determinism.md").read_text()


def test_every_check_is_on_disk_before_the_next_one_is_made(tmp_path, monkeypatch):
    checks = [
        agree.Check("matrix", "article, shuffle", "torch", "float64", "initial", "z", 1 / 3, float("nan"), 1.0),
        *(agree.Check("lockstep", "a", "torch", "float64", "", "loss", 0.0, 1e-9, float("inf"), n) for n in range(60)),
    ]

    def suite():
        for number, check in enumerate(checks):
            assert len(agreement_report.load(tmp_path)[0]) == number
            yield check
        raise KeyboardInterrupt

    monkeypatch.setattr(agreement_runs, "_suites", lambda *_, **__: [suite()])
    monkeypatch.setattr(agreement_report, "MEMBER", 1000)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    found = gzip.decompress((tmp_path / agreement_report.FILE).read_bytes()).decode()
    whole = agreement_report.frame(checks).to_csv(index=False, lineterminator="\n", float_format="%.4g")
    assert "".join(line for line in found.splitlines(keepends=True) if not line.startswith("# ")) == whole


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement_runs, "_suites", lambda *_, **__: [pytest.fail("something was compared")])
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="can't be written"):
        run(tmp_path / "file" / "out")


def test_a_fault_is_an_error_that_names_the_check_and_the_checks_are_kept(tmp_path, without_processes, monkeypatch):
    kind = backends.backend_class("torch")
    right = kind.encode
    monkeypatch.setattr(kind, "encode", lambda self, x: (-right(self, x)[0], right(self, x)[1]))
    with pytest.raises(BenchError, match=r"checks failed, .*torch.* z: "):
        run(tmp_path)
    checks, _ = agreement_report.load(tmp_path)
    assert not checks["passed"].all()


def test_weights_of_another_network_are_refused_before_anything_is_compared(tmp_path):
    parameters.save(tmp_path / "w.safetensors", ARTICLE, parameters.astype(weights(ARTICLE), "float32"))
    with pytest.raises(BenchError, match=r"w\.safetensors: the weights are of .*expected"):
        run(tmp_path / "output", trained=tmp_path / "w.safetensors")
    assert not (tmp_path / "output").exists()


def check_the_figure(checks, head, folder):
    figure = agreement_plots.parting(checks, head)
    assert [panel.get_title() for panel in figure.axes] == ["article, Adam", "paper, RMSProp", "recipe, AdamW"]
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert {"torch, float64", "torch, float32", "numpy, float32"} <= set(lines)
    steps = checks[(checks["case"] == "article, Adam") & (checks["backend"] == "torch") & checks["step"].notna()]
    drawn = steps[(steps["precision"] == "float32") & (steps["quantity"] == "parameters")]
    assert lines["torch, float32"].get_xdata().tolist() == [1, 2, 3, 4]
    assert lines["torch, float32"].get_ydata().tolist() == drawn["error"].tolist()
    first = (folder / "agreement-lockstep.svg").read_bytes()
    assert agreement_plots.write(checks, head, folder).read_bytes() == first


def test_pairs_of_variants_that_were_not_made_have_no_figure():
    pairs = {"numpy → torch": 0.0, "torch → numpy": 1.0, "jax:jit → jax:jit": 0.0}
    checks = [
        agree.Check("matrix", "article", pair, "float64", "initial", "parameters", error, float("nan"), 0.0)
        for pair, error in pairs.items()
    ]
    (table,) = agreement_report.tables(agreement_report.frame(checks), ["machine: a machine"])
    rows = table.shown.set_index("from")
    assert rows.loc["numpy", "to torch"] == "1 of 1"
    assert rows.loc["torch", "to numpy"] == "0 of 1"
    assert rows.loc["jax:jit", "to jax:jit"] == "1 of 1"
    assert rows.loc["jax:jit", "to torch"] == "–"


def test_what_is_no_number_is_shown_as_the_worst(recwarn):
    def check(case, error):
        return agree.Check("matrix", case, "torch", "float32", "initial", "z", error, 1e-6, float("nan"))

    head = ["machine: a machine"]
    (alone,) = agreement_report.tables(agreement_report.frame([check("article", math.nan)]), head)
    assert alone.shown["torch"].tolist() == ["– FAILED"]
    both = agreement_report.frame([check("article", 1e-9), check("paper", math.nan)])
    (brief,) = agreement_report.tables(both, head, brief=True)
    assert brief.shown["torch"].tolist() == ["– FAILED"]


def test_nothing_to_draw_is_an_error():
    with pytest.raises(BenchError, match="step by step"):
        agreement_plots.parting(agreement_report.frame([]), [])


# What the matrix sees beyond values


def matrix_of(name: str, precision: str, quantity: str):
    """The checks of one quantity in the article's architecture."""
    setting = small_setting()
    one = replace(setting, architectures={"article": setting.architectures["article"]})
    return [c for c in agree_matrix.matrix(one, [name], [precision], "cpu") if c.quantity == quantity]


def test_parameters_that_pass_through_float32_are_not_the_same_bits(monkeypatch):
    kind = backends.backend_class("numpy")
    right = kind.parameters
    monkeypatch.setattr(
        kind,
        "parameters",
        lambda self: {name: a.astype("f4").astype(a.dtype) for name, a in right(self).items()},
    )
    ported = matrix_of("numpy", "float32", "parameters")
    assert {check.precision for check in ported if not check.passed} == {"float64"}


# The first coupling has no gradient, as where nothing flows back through a coupling's input.
@requires("torch")
@pytest.mark.parametrize(
    ("precision", "quantity"), [("bfloat16", "gradient norm"), ("float32", "gradient")], ids=["by norm", "by error"]
)
def test_gradients_are_judged_in_bfloat16_by_their_norm_and_in_float32_by_their_largest_error(
    precision, quantity, monkeypatch
):
    checks = matrix_of("torch", precision, quantity)
    assert len(checks) == 2
    assert all(check.passed for check in checks), checks
    kind = backends.backend_class("torch")
    right = kind.gradients

    def without_the_first_coupling(self, x):
        loss, gradients = right(self, x)
        return loss, {name: 0 * g if name.startswith("coupling.0.") else g for name, g in gradients.items()}

    monkeypatch.setattr(kind, "gradients", without_the_first_coupling)
    checks = matrix_of("torch", precision, quantity)
    assert len(checks) == 2
    assert not any(check.passed for check in checks), checks


def test_gradients_are_compared_where_rounding_changes_no_relu():
    given, x = weights(ARTICLE), rows(ARTICLE, 6)
    kernel, bias = given["coupling.0.dense.0.kernel"], given["coupling.0.dense.0.bias"]
    read = x[2, ::-1][0::2]  # what the first coupling reads of row 2: reversed, then the even ones
    bias[3] = np.float32(-(read @ kernel[:, 3]))  # its unit 3 is now at zero, but for what float32 rounds
    settled = agree_matrix.Expected(ARTICLE, given, x).settled
    assert len(settled) == 5
    assert not (settled == x[2]).all(axis=1).any()


def test_rows_that_all_have_a_relu_at_zero_are_an_error():
    with pytest.raises(BenchError, match="take more rows"):
        agree_matrix.Expected(ARTICLE, weights(ARTICLE) | zero_bias(), np.ones((2, ARTICLE.dim)))


def zero_bias():
    name = "coupling.0.dense.0"
    kernel = weights(ARTICLE)[f"{name}.kernel"]
    return {f"{name}.bias": -kernel.sum(axis=0)}


MODES = [("torch", ["torch", "torch:compile"]), ("jax", ["jax", "jax:jit"]), ("numpy", ["numpy"])]


@pytest.mark.parametrize(("name", "variants"), MODES)
def test_every_mode_is_a_variant_the_default_one_by_the_bare_name(name, variants):
    if name not in backend_names():
        pytest.skip(f"NICE_BENCH_TEST_BACKENDS leaves {name} out")
    assert agree.every_mode(name, "cpu") == variants


@requires("jax")
def test_a_variant_is_made_in_its_mode():
    assert agree.make("jax:jit", ARTICLE, weights(ARTICLE), "cpu", "float32").mode == "jit"
    assert agree.make("jax", ARTICLE, weights(ARTICLE), "cpu", "float32").mode == "scan"


def test_a_backend_that_trains_on_one_device_alone_is_no_agreement_of_several(nice_bench):
    said = nice_bench("agree", "--backends", "numpy", "--devices", "1,2", "--device", "cpu")
    assert said.code == 1
    assert "numpy trains on one device alone" in said.err


def test_by_default_those_train_on_several_devices_that_can(nice_bench, monkeypatch):
    chosen = []
    monkeypatch.setattr(agreement_runs, "run", lambda names, *_, **__: chosen.extend(names) or "made")
    assert nice_bench("agree", "--devices", "1,2", "--device", "cpu").code == 0
    assert chosen
    assert "numpy" not in chosen
