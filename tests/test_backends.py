"""The registry, what is refused, and what precision means."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from factories import (
    SMALL,
    TINY,
    Stream,
    backend_names,
    cases,
    create,
    frameworks,
    images,
    requires,
    rows,
    shared,
    weights,
)

import backends
from backends import Adam, UnavailableError
from bench.measures.floor import workloads

ROOT = Path(__file__).parent.parent
names = pytest.mark.parametrize("name", backend_names())
everywhere = pytest.mark.parametrize(("name", "mode"), cases())


def python(code, *, first_in_path=""):
    """What a fresh Python prints."""
    path = os.pathsep.join(filter(None, [str(first_in_path), str(ROOT)]))
    environment = os.environ | {"PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# The registry


@names
def test_every_backend_under_test_can_be_imported_here(name):
    assert backends.available()[name] is None


def test_importing_backends_imports_no_framework():
    found = python(
        "import backends, sys; print([m for m in ('torch', 'tensorflow', 'jax', 'keras', 'bench') if m in sys.modules])"
    )
    assert found == "[]"


def test_importing_one_backend_imports_no_other_framework():
    found = python(
        "import backends, sys; backends.backend_class('numpy');"
        "print([m for m in ('torch', 'tensorflow', 'jax', 'bench') if m in sys.modules])"
    )
    assert found == "[]"


def test_a_framework_is_imported_only_in_files_that_begin_with_its_name():
    strangers = [
        (str(path.relative_to(ROOT)), framework)
        for package in ("backends", "bench")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for module in imported(node)
        if (framework := module.partition(".")[0]) in ("torch", "tensorflow", "jax")
        if not path.name.startswith(framework)
    ]
    assert strangers == []


def imported(node):
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_an_unknown_backend_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="backend is 'mxnet'; expected one of torch, tensorflow, jax, numpy"):
        backends.backend_class("mxnet")


STUBS = {"torch": "OSError('libcudart.so: cannot open')", "tensorflow": "TypeError('bad protobuf\\nmore')"}


def test_available_says_why_a_framework_cannot_be_imported(tmp_path):
    # What a missing library, a wrong protobuf and a wrong jaxlib raise.
    for module, error in (STUBS | {"jax": "RuntimeError('jaxlib is too old')"}).items():
        (tmp_path / f"{module}.py").write_text(f"raise {error}")
    assert python("import backends; print(backends.available())", first_in_path=tmp_path) == str(
        {
            "torch": "torch: can't be imported here (OSError: libcudart.so: cannot open)",
            "tensorflow": "tensorflow: can't be imported here (TypeError: bad protobuf)",
            "jax": "jax: can't be imported here (RuntimeError: jaxlib is too old)",
            "numpy": None,
        }
    )


def test_creating_a_backend_whose_framework_is_missing_says_so(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    code = (
        "import backends\n"
        "try: backends.create('torch', backends.Architecture.article(), {})\n"
        "except backends.UnavailableError as error: print(error)"
    )
    assert python(code, first_in_path=tmp_path) == "torch: can't be imported here (No module named 'torch')"


@names
def test_versions_name_the_framework(name):
    assert name in backends.backend_class(name).versions()


# Device, precision, mode


@names
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"device": "tpu"}, "device is 'tpu'; expected one of .*auto.*cpu.*gpu"),
        ({"precision": "float16"}, "precision is 'float16'; .* has .*float64"),
        ({"mode": "fast"}, "mode is 'fast'; .* has"),
    ],
)
def test_an_unknown_option_is_refused_with_what_is_allowed(name, option, expected):
    with pytest.raises(ValueError, match=expected):
        backends.create(name, SMALL, weights(SMALL, "float32"), **{"device": "cpu"} | option)


@names
def test_a_gpu_that_is_not_there_is_unavailable(name):
    if "gpu" in backends.backend_class(name).devices():
        pytest.skip(f"{name} sees a GPU here")
    reason = "" if name == "numpy" else r" \(.+\)"  # each framework's own
    with pytest.raises(UnavailableError, match=f"{name}: no gpu is visible to it here{reason}; it has cpu"):
        backends.create(name, SMALL, weights(SMALL, "float32"), device="gpu")


@names
def test_auto_takes_a_device_that_is_there(name):
    model = backends.create(name, SMALL, weights(SMALL, "float32"))
    assert model.device == ("gpu" if "gpu" in backends.backend_class(name).devices() else "cpu")


@names
def test_tf32_on_a_cpu_is_unavailable(name):
    with pytest.raises(UnavailableError, match=f"{name}: no precision tf32 on device cpu; it has float64, float32"):
        create(name, precision="tf32")


def test_bfloat16_in_the_reference_is_unavailable():
    with pytest.raises(UnavailableError, match="numpy: no precision bfloat16 on device cpu; it has float64, float32"):
        create("numpy", precision="bfloat16")


@requires("torch")
def test_a_cuda_graph_on_a_cpu_is_unavailable():
    with pytest.raises(UnavailableError, match="torch: no mode cudagraph on device cpu; it has eager, compile"):
        create("torch", mode="cudagraph")


@names
def test_without_a_mode_it_is_the_default_of_the_device_and_can_be_asked_for(name):
    model = shared(name)
    kind = type(model)
    assert model.mode == kind.default_mode("cpu")
    assert {kind.default_mode(device) for device in ("cpu", "gpu")} <= set(kind.modes)
    assert model.mode in kind.modes_on("cpu")


# Input


@names
@pytest.mark.parametrize("shape", [(12,), (3, 11), (3, 13), (0, 12), (2, 3, 12), ()])
@pytest.mark.parametrize("method", ["encode", "decode", "log_prob", "score", "gradients"])
def test_input_of_a_wrong_shape_is_refused(name, method, shape):
    with pytest.raises(ValueError, match=r"input has shape .*; expected \[B, 12\] with B ≥ 1"):
        getattr(shared(name), method)(np.zeros(shape))


@names
@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "complex128", "object"])
@pytest.mark.parametrize("method", ["encode", "decode", "log_prob", "score", "gradients"])
def test_input_that_is_not_floating_point_is_refused(name, method, dtype):
    with pytest.raises(ValueError, match=rf"input has dtype {dtype}; expected floating point"):
        getattr(shared(name), method)(np.zeros((3, 12), dtype))


@names
def test_input_may_be_strided_and_of_another_float_type(name):
    x = rows(SMALL, 6)
    strided = np.asfortranarray(x.astype(np.float32))[::2]
    assert np.array_equal(shared(name).encode(strided)[0], shared(name).encode(x[::2])[0])


@names
def test_a_single_row_is_a_batch(name):
    assert shared(name).log_prob(rows(SMALL, 1)).shape == (1,)


# Precision


def kept_bits(model):
    """How many bits after the leading one a factor of a product keeps: the largest k where 1 + 2⁻ᵏ is not 1."""
    size = 16
    kept = [k for k in range(1, 60) if model.product(np.diag(np.full(size, 1 + 2.0**-k)), np.eye(size))[5, 5] != 1]
    assert kept == list(range(1, len(kept) + 1))
    return len(kept)


BITS = {"float64": 52, "float32": 23, "bfloat16": 7}
PROBES = [
    pytest.param(*case.values, precision, id=f"{case.id}-{precision}")
    for case in cases()
    for precision in BITS
    if (case.values[0], precision) != ("numpy", "bfloat16")  # which it doesn't have
]


@pytest.mark.parametrize(("name", "mode", "precision"), PROBES)
def test_a_product_keeps_the_bits_of_its_precision(name, mode, precision):
    assert kept_bits(shared(name, SMALL, mode, precision)) == BITS[precision]


@names
def test_a_product_is_the_product(name):
    a, b = np.random.default_rng(0).standard_normal((2, 5, 5))
    assert shared(name).product(a, b[:, :3]) == pytest.approx(a @ b[:, :3], rel=1e-12)


def everything(model):
    """Arrays of each kind that a float32 model computes."""
    z, log_det = model.encode(rows(TINY))
    (report,) = model.train(images(), Adam(), Stream(), 1)
    computed = {"z": z, "log_det": log_det, "sample": model.sample(3, seed=1), "log_prob": model.log_prob(z)}
    return computed | model.training_state().parameters | {"decode": model.decode(z)}, report.losses


@names
@pytest.mark.slow
def test_a_float64_model_does_not_change_what_a_float32_model_computes(name):
    if name == "jax":  # which has one switch for the whole process, on already if another test has run
        import jax

        jax.config.update("jax_enable_x64", False)
    expected, expected_losses = everything(create(name, TINY, precision="float32"))
    earlier = create(name, TINY, precision="float32")
    list(create(name, TINY, precision="float64").train(images(), Adam(), Stream(), 1))
    for model in (earlier, create(name, TINY, precision="float32")):
        found, losses = everything(model)
        assert {array.dtype for array in found.values()} == {np.dtype("float32")}
        assert losses.tobytes() == expected_losses.tobytes()
        for key in set(expected) - {"sample"}:  # JAX's generator may draw other bits once it has 64-bit types
            assert found[key].tobytes() == expected[key].tobytes(), key


# Workloads


@everywhere
@pytest.mark.parametrize(
    ("operation", "shapes"),
    [("encode", [(8, 12), (8,)]), ("decode", [(8, 12)]), ("log_prob", [(8,)]), ("sample", [(8, 12)])],
)
def test_a_workload_leaves_its_result_on_the_device_each_time(name, mode, operation, shapes):
    model = shared(name, SMALL, mode, "float32")
    call = model.workload(operation, 8)
    for _ in range(2):
        result = call()
        model.synchronise(result)
        assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes


@everywhere
def test_a_sampling_workload_draws_anew_each_time(name, mode):
    model = shared(name, SMALL, mode, "float32")
    call = model.workload("sample", 8)
    first = model._to_numpy(call()).copy()
    assert not np.array_equal(first, model._to_numpy(call()))


@pytest.mark.parametrize(("name", "mode"), frameworks())
@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_a_products_workload_multiplies_in_the_models_precision(name, mode, precision):
    model = shared(name, SMALL, mode, precision)
    results = workloads(model).products(model, [(4, 8, 2), (3, 5, 6)])()
    assert [tuple(product.shape) for product in results] == [(4, 2), (3, 6)]
    assert all(precision in str(product.dtype) for product in results)
    assert [float(product[0, 0]) for product in results] == [8 / 4, 5 / 4]


@everywhere
def test_a_memory_workload_adds_one_to_every_number(name, mode):
    model = shared(name, SMALL, mode, "float32")
    call = workloads(model).memory(model, 400)
    call()
    found = model._to_numpy(call())
    assert np.array_equal(found, np.full(len(found), 2, np.float32))
    passes = 3 if name == "tensorflow" else 2  # it reads the ones that it adds, too
    assert abs(4 * len(found) * passes - 2 * 400) < 4 * passes
