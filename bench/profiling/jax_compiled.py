"""What XLA makes of JAX's and TensorFlow's code for an H100, without one: `python -m bench.profiling.jax_compiled`.

The training epoch, encode and sample of the article's network are compiled as they are for a described device, those of
TensorFlow from the folder that tensorflow_hlo.py has written. Which library multiplies is chosen by timing on a device;
without one each is compiled for both that XLA has. What is counted is what a GPU would be asked to do, not how long it
takes.
"""

import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from bench.profiling import hlo

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.20.0"
  name: "NVIDIA H100 80GB HBM3" platform_version: "Compute Capability 9.0a" device_vendor: "NVIDIA Corporation"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 20 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
PRECISIONS = ("tf32", "float32", "bfloat16")
LIBRARIES = ("Triton", "cuBLAS")
BATCH, IMAGES, SAMPLES = 128, 60_000, 1024

NOTES = """
Compiled by the XLA of jax {jax} for an NVIDIA H100 (sm_90a) without one, by `nox -s compile-gpu`; the network of
`article`, batches of {batch}, {samples} samples. TensorFlow's programs are what it hands to its own XLA, which is of
another revision and compiles only for a device that is there; the copies that it makes of an epoch's results are left
out. An epoch's kernels, launches and products are those of one training step. A launch is what the host starts: a
command buffer (CUDA graph) is one. A library of products is chosen by timing on a device, so both are compiled here and
none is timed; what runs there is a mixture of the two. The precision is what XLA was asked for. Seconds can't be seen
here, nor what a driver makes of the code. PyTorch is not here: its Inductor and Triton ask the device itself for its
properties, and take no description in its place.
"""


def programs(precision: str, place: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the lowered function of an epoch of training, encode and sample, as JAX has them on a GPU.

    Args:
        precision: of products.
        place: the sharding that says for which device.
    """
    import jax
    import numpy as np

    from backends import Adam, Architecture, Pixels
    from backends.jax_backend import JaxBackend, JaxTraining

    class Described(JaxBackend):
        """The backend as it is on a GPU, with its arrays on the CPU, since nothing is executed."""

        @classmethod
        def precisions(cls, device: str) -> tuple[str, ...]:
            return PRECISIONS

        def placed(self, *axes: str | None, everywhere: bool = False) -> jax.Device:
            return jax.devices("cpu")[0]

    def array(shape: tuple[int, ...], dtype: type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    architecture, optimiser, steps = Architecture.article(), Adam(), IMAGES // BATCH
    shapes = architecture.trainable_shapes
    tree = {name: array(shape, np.float32) for name, shape in shapes.items()}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    model = Described(architecture, zeros, device="cpu", precision=precision)
    model.device = "gpu"
    training = JaxTraining(model, np.zeros((1, architecture.dim), np.uint8), optimiser, Pixels(1 / 255))
    carry = (tree, {moment: dict(tree) for moment in optimiser.moments})
    inputs = (array((steps, BATCH), np.int32), None, array((steps, 2), np.float32))
    yield "epoch", training._function.lower(carry, inputs, array((IMAGES, architecture.dim), np.uint8))
    yield "encode", jax.jit(model.flow.encode).lower(tree, array((BATCH, architecture.dim), np.float32))
    yield "sample", model._latents_decoded.lower(tree, array((), np.uint32), SAMPLES, 0.8)


def compiled(folder: Path, of_tensorflow: Path) -> Iterator[dict[str, Any]]:
    """Compile everything, dumping it into `folder`; yield a row of the table for each.

    Args:
        folder: empty.
        of_tensorflow: what tensorflow_hlo.py has written.
    """
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    hlo.dump_into(folder)
    os.environ["XLA_FLAGS"] += " --xla_gpu_autotune_level=0"

    import jax
    from jax.experimental import topologies
    from jax.interpreters.mlir import make_ir_context
    from jaxlib import xla_client
    from jaxlib.mlir import ir

    from backends.jax_backend import UNROLLED_STEPS

    topology = topologies.get_topology_desc(platform="cuda", topology_name="H100", target_config=H100, topology="1x1x1")
    mesh = topologies.make_mesh(topology, (1,), ("device",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def compile_hlo(file: Path, options: dict[str, bool]) -> tuple[str, Any]:
        """The text of a serialised module that is compiled for the device, and what it says of memory."""
        chosen = xla_client.CompileOptions()
        chosen.env_option_overrides = list(options.items())
        with make_ir_context():
            computation = xla_client.XlaComputation(file.read_bytes())
            module = ir.Module.parse(xla_client._xla.mlir.xla_computation_to_mlir_module(computation))
            copies: list[Any] = []

            def visit(operation: Any) -> ir.WalkResult:
                if operation.name == "mhlo.copy":  # of a result; this compiler knows no such operation
                    copies.append(operation)
                return ir.WalkResult.ADVANCE

            module.operation.walk(visit)
            for copy in copies:
                copy.result.replace_all_uses_with(copy.operands[0])
                copy.erase()
            (device,) = topology.devices
            done = device.client.compile(module, xla_client.DeviceList((device,)), chosen)
        return done.hlo_modules()[0].to_string(), done.get_compiled_memory_stats()

    for precision in PRECISIONS:
        lowered = dict(programs(precision, place))
        for framework, library, what in product(("JAX", "TensorFlow"), LIBRARIES, lowered):
            for file in folder.iterdir():
                file.unlink()
            options = {"xla_gpu_enable_triton_gemm": library == "Triton"}
            if framework == "JAX":
                done = lowered[what].compile(compiler_options=options)
                text, memory = done.as_text(), done.memory_analysis()
            else:
                text, memory = compile_hlo(of_tensorflow / f"{what}-{precision}.hlo", options)
            (thunks,) = folder.glob("*thunk_sequence_after_thunk_passes.txt")
            found = hlo.demands(text, thunks.read_text(encoding="utf-8"))
            each = UNROLLED_STEPS if (framework, what) == ("JAX", "epoch") else 1
            yield {
                "framework": framework,
                "what": what,
                "precision": precision,
                "library": library,
                "kernels": found.kernels / each,
                "launches": found.launches / each,
                "products": found.products.total() / each,
                "multiplied in": ", ".join(sorted(found.products)),
                "trip count": {None: "unknown", 0: "–"}.get(found.trip_count, found.trip_count),
                "from or to the host": found.transfers,
                "temporary MB": round(memory.temp_size_in_bytes / 1e6),
            }


def exceeded(row: Mapping[str, Any], budgets: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a sentence for each budget that a row of the table exceeds, and for each fault that needs no budget."""
    name = f"{row['framework']}, {row['what']}, {row['precision']}, {row['library']}"
    over = [
        f"{name}: {column} is {row[column]:g}, more than the budget of {most:g}"
        for column, most in budgets.get(f"{row['framework']}, {row['what']}, {row['library']}", {}).items()
        if row[column] > most
    ]
    if row["trip count"] == "unknown":
        over.append(f"{name}: the number of steps isn't known to the compiler, so the device asks the host at each")
    if row["multiplied in"] != row["precision"]:
        over.append(f"{name}: products are made in {row['multiplied in'] or 'no precision at all'}")
    return over


def main() -> int:
    """Write the table into the folder that is named, and return 1 if a budget in its budgets.toml is exceeded."""
    output = Path(sys.argv[1])
    budgets = tomllib.loads((output / "budgets.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        rows = list(compiled(Path(folder), Path(sys.argv[2])))
    import jax

    data = pd.DataFrame(rows).sort_values("framework", kind="stable")
    known = set(data["framework"] + ", " + data["what"] + ", " + data["library"])
    if unknown := set(budgets) - known:
        sys.exit(f"{output}/budgets.toml: {'; '.join(sorted(unknown))}: expected some of {'; '.join(sorted(known))}")
    notes = NOTES.format(jax=jax.__version__, batch=BATCH, samples=SAMPLES)
    (output / "compiled.md").write_text(f"{data.to_markdown(index=False)}\n{notes}", encoding="utf-8")
    print(data.to_string(index=False))
    over = [sentence for row in rows for sentence in exceeded(row, budgets)]
    print(*over, sep="\n", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
