"""The likelihood of the test set: as the protocol reports it, and properly dequantised.

The two must not be confused. The protocol's own test loss may be evaluated on pixels without noise, where the density
of discrete data has no upper bound. The dequantised log-likelihood, of x = (byte + u)/256 (Theis, van den Oord,
Bethge, arXiv 1511.01844, section 3.1), bounds the log-probability of the bytes, and can be compared between models.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from backends import Backend, Pixels
from bench.inputs.protocol import Protocol
from bench.inputs.streams import pixels_to_x
from bench.measures.timing import time_calls
from bench.records import Measurement

CHUNK = 5000
DEQUANTISED = Pixels(1 / 256, 1 / 256)


def reported_loss(nll: float, dim: int, loss: str) -> float:
    """Return a mean −log p in nats as a protocol reports it: "article" leaves ½ D log 2π out."""
    return nll - 0.5 * dim * math.log(2 * math.pi) if loss == "article" else nll


def mean_log_prob(model: Backend, x: NDArray) -> float:
    """Return the mean of log p over [N, D], in nats, summed in float64."""
    parts = [model.log_prob(x[i : i + CHUNK]).astype(np.float64) for i in range(0, len(x), CHUNK)]
    return float(np.concatenate(parts).mean())


def test_loss(model: Backend, x: NDArray, protocol: Protocol) -> float:
    """Return the protocol's loss on x [N, D], pixels as `Protocol.evaluation_pixels` makes them."""
    return reported_loss(-mean_log_prob(model, x), model.architecture.dim, protocol.training.loss)


def bits_per_dim(log_likelihood: float, dim: int) -> float:
    """Return bits a dimension of bytes, from a log-likelihood in nats of pixels scaled to [0, 1]."""
    return (math.log(256) - log_likelihood / dim) / math.log(2)


def measure(model: Backend, images: NDArray[np.uint8], protocol: Protocol, seed: int) -> Iterator[Measurement]:
    """Yield test loss, dequantised log-likelihood over noise draws with its standard error, and throughput."""
    dim, rule = model.architecture.dim, protocol.measure
    loss = test_loss(model, pixels_to_x(images, protocol.evaluation_pixels(), seed), protocol)
    yield Measurement.of("likelihood", "test_loss", loss, "nats")
    draws = [
        mean_log_prob(model, pixels_to_x(images, DEQUANTISED, seed, draw)) for draw in range(rule.dequantisation_draws)
    ]
    mean, error, n = float(np.mean(draws)), float(np.std(draws, ddof=1) / math.sqrt(len(draws))), len(draws)
    ends = {"low": mean - error, "high": mean + error}
    yield Measurement.of("likelihood", "dequantised_log_likelihood", mean, "nats", **ends, n=n)
    yield Measurement.of("likelihood", "bits_per_dim", bits_per_dim(mean, dim), "bits", n=n)
    batch = min(rule.likelihood_batch, len(images))
    timing = time_calls(model, model.workload("log_prob", batch), rule.seconds_per_timing)
    yield timing.rate("likelihood", "images_per_second", batch, "images/s", batch=batch)
