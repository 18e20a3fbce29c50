"""The source of a picture: weights, the run that they come from, and the backend that draws them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import backends
from backends import Architecture, Backend, Pixels, parameters
from backends.parameters import Parameters
from bench import records
from bench.errors import BenchError
from bench.inputs import data, protocol
from bench.inputs.streams import normals, uniforms
from bench.pictures.picture_files import is_caption
from bench.records import Record

MNIST_SIDE = 28
AS_RUN = ("epochs", "batch", "rounds")  # what `run` may have changed in a protocol


@dataclass(frozen=True)
class Source:
    """Weights to draw from, and the record of their run where `run` left it beside them."""

    path: Path
    architecture: Architecture
    parameters: Parameters
    digest: str
    record: Record | None

    def described(self) -> str:
        """Return the digest of the weights and the run that they come from, for a caption."""
        if self.record is None:
            return f"weights {self.digest[:12]} ({self.path.name})"
        plan = self.record.plan
        return (
            f"weights {self.digest[:12]} (protocol {plan.protocol}, {plan.epochs} epochs, {plan.backend} on "
            f"{plan.device}, {plan.precision}, seed {plan.seed})"
        )

    def side(self) -> int:
        """Pixels down and across of an image.

        Raises:
            BenchError: the dimensions are not those of a square.
        """
        side = math.isqrt(self.architecture.dim)
        if side * side != self.architecture.dim:
            raise BenchError(f"{self.path}: dim is {self.architecture.dim}; expected a square, as 784 = 28²")
        return side

    @property
    def deviations(self) -> NDArray[np.float64]:
        """σ = exp(−s) of each latent dimension, [D] (arXiv 1410.8516, section 3.3)."""
        return np.exp(-self.parameters["log_scale"].astype(np.float64))

    def model(self, backend: str | None, device: str) -> Backend:
        """The model, in the precision of the weights; without a name, in the first backend that can be used here."""
        held = "float64" if self.parameters["log_scale"].dtype == np.float64 else "float32"
        name = backend or first_available()
        return backends.create(name, self.architecture, self.parameters, device=device, precision=held)

    def latents(self, seed: int, count: int) -> NDArray[np.float64]:
        """Draws from the prior [count, D], the same ones for every backend."""
        shape = (count, self.architecture.dim)
        if self.architecture.prior == "gaussian":
            return normals(seed, "latents", 0, shape)
        u = uniforms(seed, "latents", 0, shape)
        return np.log(u) - np.log1p(-u)

    def test_digits(self, count: int) -> NDArray[np.uint8]:
        """The first test digits of MNIST, bytes [count, 784], from the embedded subset.

        Raises:
            BenchError: the weights are of images of another size, or there are not so many digits.
        """
        if self.architecture.dim != MNIST_SIDE**2:
            raise BenchError(f"{self.path}: dim is {self.architecture.dim}; expected 784, that of MNIST's digits")
        images = data.load("mnist-subset").test_images
        if count > len(images):
            raise BenchError(f"{count} test digits are asked for; the embedded subset has {len(images)}")
        return images[:count]

    def pixels(self, protocol_name: str | None) -> tuple[str, Pixels]:
        """The protocol that says how bytes become x, and how: as it evaluates.

        Raises:
            BenchError: none is named, and no record beside the weights says one.
        """
        if protocol_name is None and self.record is None:
            raise BenchError(
                f"{self.path}: no record of their run lies beside these weights; "
                f"give --protocol for its pixels: {', '.join(protocol.names())}, or a .toml file"
            )
        if protocol_name is not None or self.record is None:
            return str(protocol_name), protocol.load(str(protocol_name)).evaluation_pixels()
        plan = self.record.plan
        if plan.protocol not in protocol.names():
            raise BenchError(
                f"{self.path}: trained by the protocol {plan.protocol!r}, which is none that comes with nice-bench; "
                "give its .toml file as --protocol"
            )
        own = protocol.load(plan.protocol, **{f"training__{name}": getattr(plan, name) for name in AS_RUN})
        if own.digest() != plan.protocol_digest:
            raise BenchError(
                f"{self.path}: trained by another protocol {plan.protocol} than the one here; give --protocol"
            )
        return plan.protocol, own.evaluation_pixels()


def read(path: Path) -> Source:
    """Read weights, and their record if it lies beside them and is of these weights.

    Raises:
        ParameterError: they can't be used.
        FileNotFoundError: there is no such file.
    """
    architecture, loaded = parameters.load(path)
    digest, beside = parameters.digest(loaded), path.with_suffix(".json")
    record = records.load(beside) if beside.is_file() and not is_caption(beside) else None
    if record is not None and record.digests.get("final_parameters") != digest:
        record = None
    return Source(path, architecture, loaded, digest, record)


def first_available() -> str:
    """The first backend whose framework can be imported here."""
    for name in backends.REGISTRY:
        try:
            backends.backend_class(name)
        except backends.UnavailableError:
            continue
        return name
    raise BenchError("no backend can be used here")
