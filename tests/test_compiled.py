"""What is read of code that was compiled for a GPU, and which of it breaks a budget."""

import re

import pytest
from factories import requires

from bench.profiling import hlo, jax_compiled, tensorflow_hlo
from bench.profiling.jax_compiled import exceeded

THUNKS = """\
001: kCopy         [source       | next=003 (2)] kCopy
002: kCustomKernel [source       | next=003 (1)] loop_broadcast_fusion grid: [4, 1, 1] threads: [128, 1, 1]
003: kWhile        [prev=002 (1) | sink        ]
condition:
    004: kCustomKernel [source | sink] loop_compare_fusion grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    000: kCommandBuffer [source | sink]
        005: kAsyncStart   [source         | next=207 (200)] stream=computation_stream[0], async_id=5
            007: kDynamicSliceFusion [source | sink] params=1, results=1
                006: kCopy [source | sink] kCopy
        008: kCustomKernel [source         | next=010 (2)  ] loop_pad_fusion_81 grid: [400, 1, 1]
        009: kCublasLtMatmul [prev=009 (1) | next=010 (1)  ] kCublasLtMatmul
        207: kAsyncDone    [prev=005 (1)   | sink          ] async_id=5
    010: kCustomKernel [source | sink] loop_add_fusion grid: [1, 1, 1]
011: kCopy         [prev=003 (1) | sink] kCopy
"""
TEXT = """
%fused (parameter_0: f32[8,4], parameter_1: f32[4,8]) -> f32[8,8] {
  %parameter_0 = f32[8,4]{1,0} parameter(0)
  %parameter_1 = f32[4,8]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,8]{1,0} dot(%parameter_0, %parameter_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %left = bf16[8,4]{1,0} convert(%a)
  %product = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%left, %b), custom_call_target="__cublas$lt$matmul"
  %sort = (f32[8,8]{1,0}, s8[64]{0}) custom-call(%left, %b), custom_call_target="__cub$DeviceRadixSort"
}
ENTRY %main () -> f32[] {
  %while.1 = (s32[]) while(%tuple), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"117"}}
}
"""


EXACT = {"float32": 1, "bfloat16": 1}


def test_an_iteration_of_the_loop_is_what_is_counted():
    found = hlo.demands(TEXT, THUNKS)
    assert (found.kernels, found.launches) == (4, 2)  # a command buffer, and what follows it
    assert found.products == {"tf32": 1, "bfloat16": 1}
    assert (found.trip_count, found.transfers) == (117, 0)


def test_without_a_loop_all_of_it_is_counted():
    found = hlo.demands(
        TEXT, "\n".join(line for line in THUNKS.splitlines() if line[:1] == "0" and "While" not in line)
    )
    assert (found.kernels, found.launches, found.trip_count) == (3, 3, 0)


@pytest.mark.parametrize(
    ("there", "instead", "quantity", "value"),
    [
        ("rhs_contracting_dims={0}\n", "operand_precision={highest,highest}\n", "products", EXACT),
        ("rhs_contracting_dims={0}\n", 'x={"operand_precision":["HIGHEST","HIGHEST"]}\n', "products", EXACT),
        ("%left = bf16[", "%left = f64[", "products", {"tf32": 1, "float64": 1}),
        ("%sort = (f32[8,8]{1,0},", "%sort = (f32[8,8]{1,0:S(5)},", "transfers", 1),
        ("__cub$DeviceRadixSort", "xla_ffi_python_gpu_callback", "transfers", 1),
        ('"known_trip_count":{"n":"117"}', "", "trip_count", None),
    ],
)
def test_precisions_transfers_and_trip_counts_are_read(there, instead, quantity, value):
    assert TEXT.count(there) == 1
    assert getattr(hlo.demands(TEXT.replace(there, instead), THUNKS), quantity) == value


@pytest.mark.parametrize("thunks", ["", "no sequence", THUNKS + "012: kWhile [source]\n"])
def test_a_dump_that_is_not_understood_is_an_error(thunks):
    with pytest.raises(ValueError, match="expected one loop at most"):
        hlo.demands(TEXT, thunks)


ROW = {
    "framework": "JAX",
    "what": "epoch",
    "precision": "tf32",
    "library": "cuBLAS",
    "kernels": 150.0,
    "multiplied in": "tf32",
    "trip count": 117,
    "from or to the host": 0,
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"what": "encode", "kernels": 900}, None),
        ({"framework": "TensorFlow", "kernels": 900}, None),
        ({"library": "Triton", "kernels": 900}, None),
        ({"kernels": 150.25}, "kernels is 150.25, more than the budget of 150"),
        ({"from or to the host": 1}, "from or to the host is 1, more than the budget of 0"),
        ({"trip count": "unknown"}, "isn't known to the compiler"),
        ({"multiplied in": "float32, tf32"}, "products are made in float32, tf32"),
        ({"multiplied in": ""}, "products are made in no precision at all"),
    ],
)
def test_what_breaks_a_budget_is_named(change, told):
    found = exceeded(ROW | change, {"JAX, epoch, cuBLAS": {"kernels": 150, "from or to the host": 0}})
    assert [sentence.partition(": ")[0] for sentence in found] == ([] if told is None else ["JAX, epoch, tf32, cuBLAS"])
    assert told is None or told in found[0]


@requires("jax")
@pytest.mark.parametrize(("precision", "asked"), [("float32", "HIGHEST"), ("tf32", "DEFAULT"), ("bfloat16", "bf16")])
def test_jax_programs_are_those_of_a_gpu(precision, asked):
    import jax

    here = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    texts = {name: lowered.as_text() for name, lowered in jax_compiled.programs(precision, here)}
    products = {name: re.findall("^.*stablehlo.dot_general.*$", text, re.MULTILINE) for name, text in texts.items()}
    assert {name: len(lines) for name, lines in products.items()} == {"epoch": 71, "encode": 24, "sample": 24}
    assert all(asked in line for lines in products.values() for line in lines)


@requires("tensorflow")
@pytest.mark.parametrize(("precision", "asked"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_tensorflow_programs_are_those_of_a_gpu(precision, asked):
    products = {}
    for name, function, arguments in tensorflow_hlo.programs(precision):
        text = function.experimental_get_compiler_ir(*arguments)(stage="hlo")
        products[name] = re.findall(r"^.* dot\(.*$", text, re.MULTILINE)
    assert {name: len(lines) for name, lines in products.items()} == {"epoch": 71, "encode": 24, "sample": 24}
    assert all(f" {asked}[" in line for lines in products.values() for line in lines)
