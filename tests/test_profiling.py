"""Profiles: how a trace is summed up (on traces made by hand), how each kind of trace is read, and a real one."""

import os

import numpy as np
import pytest
from factories import TINY, Stream, backend_names, create, images, requires

import backends
from bench import tables
from bench.commands.progress import LiveProgress
from bench.errors import BenchError
from bench.inputs import data, protocol
from bench.profiling import hlo, runs, summary, worker, xplane
from bench.profiling.events import MARK, Category, Span, Trace, TraceError, Work, category_of, checked, window_of
from bench.records import collection
from bench.running import runner
from bench.running.runner import Request

PRODUCTS, OPTIMISER, COPIES, OTHER = Category.PRODUCTS, Category.OPTIMISER, Category.COPIES, Category.OTHER


def work(*pieces):
    """Pieces of work, each as (category, line, start, end)."""
    return [Work(category.value, category, line, Span(start, end)) for category, line, start, end in pieces]


def divided(*pieces, window=(0, 10)):
    """How a window is divided, without what got nothing."""
    parts = summary.divide(Trace(Span(*window), work(*pieces)))
    assert sum(parts.values()) == pytest.approx(window[1] - window[0])
    return {name: pytest.approx(seconds) for name, seconds in parts.items() if seconds}


# The sum


def test_what_no_line_is_busy_in_is_idle():
    assert divided() == {"idle": 10}
    assert divided((PRODUCTS, "a", 2, 5), (COPIES, "a", 6, 7)) == {"products": 3, "copies": 1, "idle": 6}


def test_an_instant_of_two_busy_lines_is_divided_among_them_and_counted_once():
    assert divided((PRODUCTS, "a", 0, 8), (COPIES, "b", 4, 10)) == {"products": 6, "copies": 4}
    assert divided((PRODUCTS, "a", 0, 8), (PRODUCTS, "b", 0, 8)) == {"products": 8, "idle": 2}


def test_of_nested_pieces_the_innermost_is_counted():
    pieces = (OTHER, "a", 0, 10), (PRODUCTS, "a", 2, 8), (COPIES, "a", 3, 4)
    assert divided(*pieces) == {"other": 4, "products": 5, "copies": 1}
    assert divided(*reversed(pieces)) == {"other": 4, "products": 5, "copies": 1}


def test_of_pieces_that_begin_together_the_shorter_is_the_inner_one():
    assert divided((PRODUCTS, "a", 0, 4), (OTHER, "a", 0, 10)) == {"products": 4, "other": 6}
    assert divided((OTHER, "a", 0, 10), (PRODUCTS, "a", 0, 4)) == {"products": 4, "other": 6}


def test_what_lies_outside_the_window_is_not_counted():
    assert divided((PRODUCTS, "a", -5, 2), (COPIES, "a", 9, 20), (OTHER, "a", 30, 40)) == {
        "products": 2,
        "copies": 1,
        "idle": 7,
    }


def test_pieces_one_after_the_other_leave_no_gap():
    assert divided(*((PRODUCTS, "a", i, i + 1) for i in range(10))) == {"products": 10}


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(1, 3), (2, 5)], 4),  # overlapping: the union, not the sum
        ([(1, 8), (2, 3)], 7),  # nested
        ([(4, 5), (1, 2)], 2),
        ([(-3, 1), (9, 30)], 2),
    ],
)
def test_covered_time_is_that_of_the_union(spans, seconds):
    assert summary.covered([Span(*span) for span in spans], Span(0, 10)) == seconds


def figures(trace, steps=2, step_seconds=4.0):
    return {m.quantity: m.value for m in summary.measurements(trace, steps, step_seconds)}


def test_figures_are_a_step():
    trace = Trace(Span(0, 10), work((PRODUCTS, "a", 0, 6), (OPTIMISER, "a", 6, 8), (COPIES, "a", 20, 21)))
    found = figures(trace)
    assert found["step_seconds"] == 4.0
    assert found["traced_step_seconds"] == 5.0
    assert (found["products_seconds"], found["products_share"]) == (3.0, 0.6)
    assert (found["optimiser_share"], found["copies_share"], found["idle_share"]) == pytest.approx((0.2, 0.0, 0.2))
    assert found["operations_per_step"] == 1.0
    assert "launches_per_step" not in found


def test_on_a_gpu_the_hosts_launches_and_waits_are_counted():
    launches = [Span(i, i + 0.5) for i in range(6)] + [Span(50, 51)]
    found = figures(Trace(Span(0, 10), [], launches, [Span(2, 6), Span(5, 7)]))
    assert (found["launches_per_step"], found["host_waiting_share"]) == (3.0, 0.5)


def test_a_trace_of_a_gpu_without_its_work_is_refused():
    on_host = Trace(Span(0, 10), work((PRODUCTS, "a", 0, 6)))
    assert checked(on_host, "cpu") is on_host
    with pytest.raises(TraceError, match="no work of the GPU"):
        checked(on_host, "gpu")
    on_device = Trace(Span(0, 10), work((PRODUCTS, "a", 0, 6)), [], [])
    assert checked(on_device, "gpu") is on_device


# Names


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("aten::addmm", PRODUCTS),
        ("aten::mm", PRODUCTS),
        ("_MklNativeFusedMatMul", PRODUCTS),
        ("dot", PRODUCTS),
        ("custom-call __cublas$gemm", PRODUCTS),
        ("nvjet_tst_128x64_64x6_2x1_v_bz_TNT", PRODUCTS),
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x128>", PRODUCTS),
        ("aten::_fused_adam_", OPTIMISER),
        ("ResourceApplyAdam", OPTIMISER),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<float>>", OPTIMISER),
        ("aten::_foreach_addcmul_", OPTIMISER),
        ("aten::_foreach_lerp_", OPTIMISER),
        ("void at::native::multi_tensor_apply_kernel<TernaryOpScalarFunctor<float>, LerpFunctor<float>>", OPTIMISER),
        ("jit(epoch)/while/body/optimiser/mul", OPTIMISER),
        ("aten::copy_", COPIES),
        ("aten::_foreach_copy_", COPIES),
        ("void at::native::multi_tensor_apply_kernel<CopyFunctor<c10::BFloat16, float>, Copy<float>>", COPIES),
        ("aten::index_select", COPIES),
        ("ConcatV2", COPIES),
        ("dynamic-update-slice", COPIES),
        ("Memcpy HtoD (Pinned -> Device)", COPIES),
        ("convert", COPIES),
        ("aten::add_", OTHER),
        ("aten::clamp_min", OTHER),
        ("reduce", OTHER),
        ("multiply", OTHER),
        ("BiasAdd", OTHER),
        ("exponential", OTHER),
    ],
)
def test_a_name_tells_the_kind_of_work(name, category):
    assert category_of(name) is category


HLO = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4,4]{1,0})->f32[4,4]{1,0}}

%region_1.5 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%fused_dot (p: f32[4,4], q: f32[4]) -> f32[4,4] {
  %p = f32[4,4]{1,0} parameter(0)
  %q = f32[4]{0} parameter(1)
  %dot.7 = f32[4,4]{1,0} dot(%p, %p), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %add.2 = f32[4,4]{1,0} add(%dot.7, %broadcast.1), metadata={op_name="jit(step)/jvp()/add"}
}

%fused_update (p: f32[4,4]) -> f32[4,4] {
  %p.1 = f32[4,4]{1,0} parameter(0)
  ROOT %sqrt.1 = f32[4,4]{1,0} sqrt(%p.1), metadata={op_name="jit(step)/optimiser/sqrt" stack_frame_id=3}
}

%fused_move (p: f32[4,4]) -> f32[4,4] {
  %p.2 = f32[4,4]{1,0} parameter(0)
  ROOT %transpose.1 = f32[4,4]{0,1} transpose(%p.2), dimensions={1,0}
}

ENTRY %main.9 (x: f32[4,4]) -> (f32[4,4], s32[]) {
  %x = f32[4,4]{1,0} parameter(0)
  %ynn_fusion.1 = f32[4,4]{1,0} fusion(%x, %x), kind=kCustom, calls=%fused_dot, metadata={op_name="jit(step)/add"}
  %loop.2 = f32[4,4]{1,0} fusion(%x), kind=kLoop, calls=%fused_update
  %loop.3 = f32[4,4]{1,0} fusion(%x), kind=kLoop, calls=%fused_move
  %reduce.1 = f32[4]{0} reduce(%x, %c), dimensions={1}, to_apply=%region_1.5
  %cublas.1 = (f32[4,4]{1,0}, s8[1024]{0}) custom-call(%x, %x), custom_call_target="__cublas$gemm"
  %while.1 = (f32[4,4]{1,0}, s32[]) while(%init), condition=%region_1.5, body=%region_1.5
  ROOT %tuple.1 = (f32[4,4]{1,0}, s32[]) tuple(%loop.3, %c)
}
"""


def test_what_xla_compiled_is_known_by_what_its_instructions_hold():
    module = hlo.parse(HLO)
    found = module.categories()
    assert module.name == "jit_step"
    assert {name: found[name] for name in ("ynn_fusion.1", "loop.2", "loop.3", "reduce.1", "cublas.1", "while.1")} == {
        "ynn_fusion.1": PRODUCTS,
        "loop.2": OPTIMISER,
        "loop.3": COPIES,
        "reduce.1": OTHER,
        "cublas.1": PRODUCTS,
        "while.1": None,
    }


def test_modules_that_share_the_names_of_instructions_are_kept_apart(tmp_path):
    (tmp_path / "module_0001.jit_step.cpu_after_optimizations.txt").write_text(HLO)
    other = HLO.replace("jit_step,", "jit_other,").replace("dot(", "add(")
    (tmp_path / "module_0002.jit_other.cpu_after_optimizations.txt").write_text(other)
    (tmp_path / "module_0002.jit_other.cpu_after_optimizations-buffer-assignment.txt").write_text("no module")
    found = hlo.categories(tmp_path)
    assert (found["jit_step", "ynn_fusion.1"], found["jit_other", "ynn_fusion.1"]) == (PRODUCTS, OTHER)


@requires("jax")
@pytest.mark.parametrize("optimiser", [backends.Adam(), backends.AdamW(1e-3, epochs=1), backends.RMSProp()])
def test_all_that_jax_does_to_update_a_parameter_is_the_optimisers(optimiser):
    import jax

    from backends import jax_backend

    rule = getattr(jax_backend, optimiser.name)
    arrays = [np.ones((8, 8), np.float32)] * (2 + len(optimiser.moments)) + [np.ones(3, np.float32)]
    text = jax.jit(lambda *arrays: rule(optimiser, *arrays)).lower(*arrays).compile().as_text()
    found = set(hlo.parse(text).categories().values())
    assert OPTIMISER in found
    assert OTHER not in found


# Reading


def event(name, start, end, plane="/host:CPU", line="a", **stats):
    return xplane.Event(plane, line, name, Span(start, end), stats)


def test_on_a_cpu_xlas_instructions_and_tensorflows_operations_are_work():
    trace = xplane.read(
        [
            event(MARK, 0, 10, line="python"),
            event("while.1", 0, 9, hlo_op="while.1", hlo_module="m"),
            event("fusion.1", 1, 2, hlo_op="fusion.1", hlo_module="m"),
            event("copy.3", 2, 3, hlo_op="copy.3", hlo_module="unknown"),
            event("gradient_tape/MatMul_5/MatMul_1:_MklMatMul", 3, 4),
            event("while/body:While", 3, 9),
            event("__inference_step_1231:__inference_step_1231", 3, 9),
            event("ExecutorState::Process", 0, 9),
        ],
        {("m", "while.1"): None, ("m", "fusion.1"): OPTIMISER},
    )
    assert [(piece.span.start, piece.category) for piece in trace.work] == [(1, OPTIMISER), (2, COPIES), (3, PRODUCTS)]
    assert (trace.launches, trace.waits) == (None, None)


def test_tensorflows_operations_in_the_scope_of_the_update_are_the_optimisers():
    names = ["optimiser/mul_3:Mul", "while/body/optimiser/AssignVariableOp:AssignVariableOp", "optimiser/Const:Const"]
    names += ["mul_3:Mul", "gradient_tape/MatMul:MatMul"]
    found = [OPTIMISER, OPTIMISER, OTHER, PRODUCTS]
    trace = xplane.read([event(MARK, 0, 10), *(event(name, 1, 2) for name in names)], {})
    assert [piece.category for piece in trace.work] == found
    gpu = "/device:GPU:0", "Stream #14(Compute)/1"
    kernels = (event("void kernel<float>", 1, 2, *gpu, tf_op=name) for name in names if not name.endswith("Const"))
    assert [piece.category for piece in xplane.read([event(MARK, 0, 10), *kernels], {}).work] == found


def test_on_a_gpu_streams_are_work_and_the_host_launches_and_waits():
    gpu = "/device:GPU:0"
    trace = xplane.read(
        [
            event(MARK, 0, 10, line="python"),
            event("loop_fusion", 1, 2, gpu, "Stream #14(Compute)/1", hlo_op="fusion.1", hlo_module="m"),
            event("void kernel<float>", 2, 3, gpu, "Stream #14(Compute)/1", tf_op="a/MatMul:MatMul"),
            event("MemcpyH2D", 3, 4, gpu, "Stream #15(MemcpyH2D)/2"),
            event("fusion.1", 1, 2, gpu, "XLA Ops/9", hlo_op="fusion.1", hlo_module="m"),
            event("a/MatMul:MatMul", 0, 5),
            event("cuLaunchKernel", 0, 1, "/host:CUPTI"),
            event("cuStreamSynchronize", 5, 9, "/host:CUPTI"),
        ],
        {("m", "fusion.1"): OPTIMISER},
    )
    assert [piece.category for piece in trace.work] == [OPTIMISER, PRODUCTS, COPIES]
    assert (trace.launches, trace.waits) == ([Span(0, 1)], [Span(5, 9)])


def test_a_kernel_of_xlas_whose_instruction_is_not_told_is_known_by_its_name():
    names = ["loop_multiply_fusion_2", "loop_add_fusion", "loop_other_fusion"]
    kernels = (event(name, 1, 2, "/device:GPU:0", "Stream #14(Compute)/1") for name in names)
    compiled = {("m", "loop_multiply_fusion.2"): OPTIMISER, ("m", "loop_multiply_fusion"): PRODUCTS}
    compiled |= {("m", "loop_add_fusion"): OPTIMISER, ("other", "loop_add_fusion"): PRODUCTS}
    trace = xplane.read([event(MARK, 0, 10), *kernels], compiled)
    assert [piece.category for piece in trace.work] == [OPTIMISER, OTHER, OTHER]


def test_a_trace_without_the_mark_is_refused():
    with pytest.raises(TraceError, match="holds no event"):
        window_of([])


def chrome(cat, name, ts, dur, tid=1):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts * 1e6, "dur": dur * 1e6, "pid": 7, "tid": tid}


@pytest.fixture
def torch_trace():
    if "torch" not in backend_names():
        pytest.skip("torch is not tested")
    backends.backend_class("torch")
    from bench.profiling import torch_trace

    return torch_trace


def test_of_torchs_operators_those_that_only_look_or_pass_on_are_no_work(torch_trace):
    trace = torch_trace.read(
        [
            {"ph": "M", "name": "process_name"},
            chrome("user_annotation", MARK, 0, 10),
            chrome("cpu_op", "aten::linear", 1, 4),
            chrome("cpu_op", "aten::t", 1, 1),
            chrome("cpu_op", "aten::addmm", 2, 3),
            chrome("cpu_op", "aten::copy_", 2, 1),
            chrome("cpu_op", "AddmmBackward0", 5, 4),
            chrome("cpu_op", "aten::_fused_adam_", 9, 1),
        ]
    )
    assert [piece.name for piece in trace.work] == ["aten::addmm", "aten::copy_", "aten::_fused_adam_"]
    parts = summary.divide(trace)
    assert parts == pytest.approx({"products": 2, "copies": 1, "optimiser": 1, "other": 0, "idle": 6})


def test_what_torch_compiled_for_a_cpu_is_the_optimisers_or_other_work(torch_trace):
    trace = torch_trace.read(
        [
            chrome("user_annotation", MARK, 0, 10),
            chrome("cpu_op", "Torch-Compiled Region: 0/0", 0, 9),
            chrome("cpu_op", "graph_0_cpp_fused_cat_index_select_relu_split_sub_2", 1, 1),
            chrome("cpu_op", "aten::addmm", 2, 1),
            chrome("cpu_op", "cpp_fused_neg_sum_threshold_backward_1", 3, 1),
            chrome("cpu_op", "graph_1_cpp_fused__foreach_add__foreach_mul__foreach_sqrt_copy__select_0", 4, 1),
        ]
    )
    assert [piece.category for piece in trace.work] == [OTHER, PRODUCTS, OTHER, OPTIMISER]


def test_what_an_update_of_many_tensors_is_made_of_is_the_optimisers(torch_trace):
    trace = torch_trace.read(
        [
            chrome("user_annotation", MARK, 0, 10),
            chrome("cpu_op", "aten::mul_", 2, 1),
            chrome("cpu_op", "aten::_foreach_mul_", 1, 3),
            chrome("cpu_op", "aten::lerp_", 1, 1),
            chrome("cpu_op", "aten::mul_", 2, 1, tid=2),  # beside it, in another thread
            chrome("cpu_op", "aten::mul_", 4, 1),  # after it
            chrome("cpu_op", "aten::_foreach_add_", 6, 2),
        ]
    )
    assert [(piece.name, piece.line) for piece in trace.work] == [
        ("aten::_foreach_mul_", "7/1"),
        ("aten::mul_", "7/2"),
        ("aten::mul_", "7/1"),
        ("aten::_foreach_add_", "7/1"),
    ]


def test_where_torch_ran_on_a_gpu_its_kernels_are_the_work(torch_trace):
    trace = torch_trace.read(
        [
            chrome("user_annotation", MARK, 0, 10),
            chrome("cpu_op", "aten::addmm", 0, 1),
            chrome("cuda_runtime", "cudaLaunchKernel", 0, 1),
            chrome("cuda_runtime", "cudaGraphLaunch", 1, 1),
            chrome("cuda_runtime", "cudaMalloc", 1, 1),
            chrome("kernel", "nvjet_tst_64x8", 1, 4, tid=99),
            chrome("gpu_memcpy", "Memcpy DtoH", 5, 1, tid=98),
            chrome("cuda_runtime", "cudaStreamSynchronize", 2, 4),
        ]
    )
    assert [piece.category for piece in trace.work] == [PRODUCTS, COPIES]
    assert (len(trace.launches), trace.waits) == (2, [Span(2, 6)])


# Really


def test_a_profile_of_torch_leaves_a_trace_that_holds_the_steps(torch_trace, tmp_path):
    model = create("torch", TINY)
    reports = model.train(images(), backends.Adam(), Stream(), 3)
    next(reports)
    found = torch_trace.trace(tmp_path, lambda: next(reports), dict)
    steps, products = Stream().steps, len(TINY.training_products(4))
    assert sum(piece.category is PRODUCTS for piece in found.work) == steps * products
    assert sum(piece.name == "aten::_fused_adam_" for piece in found.work) == steps
    assert sum(summary.divide(found).values()) == pytest.approx(found.window.end - found.window.start)
    assert (tmp_path / "trace.json.gz").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a compiler warns as it likes
def test_a_profile_of_compiled_torch_has_the_fused_update_of_each_step(torch_trace, tmp_path):
    from torch._inductor import config

    with config.patch({"cpp.enable_kernel_profile": True}):  # as a profile's worker has it
        reports = create("torch", TINY, mode="compile").train(images(), backends.RMSProp(), Stream(), 3)
        next(reports)
        found = torch_trace.trace(tmp_path, lambda: next(reports), dict)
    assert sum(piece.category is OPTIMISER for piece in found.work) == Stream().steps


def test_a_profiles_worker_has_torch_trace_what_it_compiles(monkeypatch, tmp_path):
    seen, name = [], "TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE"
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv(name, "0")
    monkeypatch.setattr(worker, "serve", lambda *_: seen.append(os.environ[name]) or 0)
    assert worker.main(2, tmp_path) == 0
    assert seen == ["1"]


def profile(folder, names):
    loaded = protocol.load("article", training__batch=8, architecture__hidden_units=8)
    with LiveProgress() as progress:
        return runs.profile(Request(protocol=loaded, backends=names, device="cpu", folder=folder), 2, progress)


@pytest.mark.slow
def test_a_profile_is_a_record_and_a_trace_and_a_row_of_a_table_of_its_own(tmp_path):
    name = next(name for name in backend_names() if name != "numpy")
    [record] = profile(tmp_path, [name])
    assert (record.status, record.plan.kind, record.plan.protocol) == ("ok", "profile", "article")
    found = {m.quantity: m.value for m in record.measurements if m.measure == "profile"}
    shares = [found[f"{part}_share"] for part in ("products", "optimiser", "copies", "other", "idle")]
    assert sum(shares) == pytest.approx(1)
    assert min(shares[:2]) > 0
    assert [path for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert collection.load_all(tmp_path) == [record]
    [table] = tables.all_tables([record])
    assert (table.name, list(table.raw["backend"])) == ("profile", [name])


def test_a_backend_without_a_profiler_is_unavailable():
    with pytest.raises(backends.UnavailableError, match="numpy: has no profiler of its own"):
        worker._tracer("numpy")


def test_a_profile_that_failed_stands_beside_those_that_did_not_and_is_no_run(tmp_path):
    def record(backend, status="ok", reason=None, measurements=()):
        asked = Request(protocol=protocol.load("smoke"), kind="profile")
        plan = runner.plan_of(asked, asked.protocol, "cpu", backend, None, kind="profile", epochs=1, rounds=1)
        made = runner.Training(asked, backend, plan, "a", tmp_path).record
        message = {"status": status, "reason": reason, "measurements": list(measurements)}
        return made.model_copy(update=message)

    trace = Trace(Span(0, 10), work((PRODUCTS, "a", 0, 6), (OPTIMISER, "a", 6, 8)))
    made = [record("torch", measurements=summary.measurements(trace, 2, 4.0)), record("jax", "failed", "it broke")]
    [table] = tables.all_tables(made)
    [row] = table.shown.to_dict("records")
    assert (row["ms/step"], row["ms/step traced"], row["products, %"], row["idle, %"]) == (
        "4000",
        "5000",
        "60.0",
        "20.0",
    )
    assert "launches/step" not in row  # a CPU has none
    assert "failed (it broke)" in table.caption


def test_a_folder_that_holds_a_profile_is_not_written_over(tmp_path):
    (tmp_path / "jax").mkdir()
    with pytest.raises(BenchError, match="exists; choose another --output"):
        profile(tmp_path, ["jax"])


def test_a_profiles_protocol_is_that_of_the_run_but_for_its_data_and_length():
    loaded = protocol.load("paper")
    short = runs.shortened(loaded, 3)
    assert (short.architecture, short.optimiser, short.pixels) == (loaded.architecture, loaded.optimiser, loaded.pixels)
    assert (short.training.epochs, short.training.rounds, short.training.target_loss) == (1, 1, None)
    assert short.data.train == 3 * loaded.training.batch


@pytest.mark.parametrize("name", ["recipe", "recipe-narrow"])
def test_a_protocol_whose_scale_is_of_its_data_can_be_profiled(name):
    loaded = protocol.load(name)
    assert loaded.initial.log_scale == "data"
    short = runs.shortened(loaded, 5)
    assert short.data.train > len(data.load(short.data.dataset).train_images)
    assert short.initial == loaded.initial.model_copy(update={"log_scale": "zeros"})


def test_an_epoch_in_parts_can_be_profiled():
    assert runs.shortened(protocol.load("article-quick"), 5).training.parts == 1


def test_xlas_flags_of_the_user_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_one=1")
    hlo.dump_into(tmp_path)
    assert os.environ["XLA_FLAGS"].split()[:2] == ["--xla_one=1", f"--xla_dump_to={tmp_path}"]
