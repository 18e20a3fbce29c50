"""The agreement suite at a size that takes seconds, up to the first check that fails.

    python -m faults.walk VARIANT DEVICE

The last line of standard output is JSON: what failed, or null. A variant is BACKEND, BACKEND:MODE, or
BACKEND×DEVICES, of which the training alone is looked at.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

import backends
from backends import Architecture, UnavailableError
from bench.agreement.agree import Check, Setting, parts
from bench.agreement.agree_matrix import matrix, sampling
from bench.agreement.agree_training import lockstep, resume
from bench.inputs import data
from bench.tables.render import number

LOCKSTEPS = (
    *("article, noise, Adam, epochs of 4", "paper, RMSProp", "paper, RMSProp, epochs of 4"),
    *("recipe, AdamW", "article, Adam"),
)
"""All of `agree_training.LOCKSTEPS`, those first that have the most to find."""


def small_setting() -> Setting:
    """4 × 4 pixels of real images, two couplings, 12 steps."""
    images = data.load("mnist-subset").train_images[:64].reshape(-1, 28, 28)[:, 12:16, 12:16].reshape(-1, 16)
    article, paper = (
        replace(named, dim=images.shape[1], couplings=2, hidden_layers=2, hidden_units=12)
        for named in (Architecture.article(), Architecture.paper())
    )
    architectures = {"article": article, "paper": paper, "article, shuffle": replace(article, permutation="shuffle")}
    return Setting(np.ascontiguousarray(images), architectures, steps=12, batch=16)


def walk(variant: str, setting: Setting, device: str) -> Iterator[Check]:
    """The whole suite for one variant, cheapest part first.

    A framework is compared with the reference; the reference, with the first framework that can be imported. A
    framework that compiles does so for every quantity of the matrix, which makes that the dearest part.
    """
    if "×" in variant:
        yield from lockstep(setting, [variant], "float64", device, LOCKSTEPS[:1])
        yield from resume(setting, [variant], device, ["article"])
        return
    chosen = [variant if variant != "numpy" else _companion(), "numpy"]
    frameworks = chosen[:1]
    cases = list(setting.architectures)
    first, rest = (
        replace(setting, architectures={case: setting.architectures[case] for case in part})
        for part in (cases[:1], cases[1:])
    )
    yield from matrix(first, frameworks, ["float64"], device)
    yield from lockstep(setting, frameworks, "float64", device, LOCKSTEPS)
    yield from resume(setting, chosen, device)
    yield from sampling(setting, chosen, device)
    yield from matrix(rest, frameworks, ["float64"], device)
    yield from matrix(first, frameworks, ["float32"], device)


def _companion() -> str:
    """The framework that the reference is compared with."""
    for name in backends.REGISTRY:
        if name != "numpy":
            try:
                backends.backend_class(name)
            except UnavailableError:
                continue
            return name
    raise UnavailableError("numpy: no framework is here to compare the reference with")


def judge(variant: str, device: str, setting: Setting | None = None) -> str | None:
    """The first check that fails, or the error that ends the suite; None if nothing was noticed.

    Raises:
        UnavailableError: the framework or the device is missing, which says nothing about a fault.
    """
    backends.backend_class(parts(variant)[0])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a fault may let numbers overflow
        try:
            checks = walk(variant, setting or small_setting(), device)
            failed = next((check for check in checks if not check.passed), None)
        except UnavailableError:
            raise
        except Exception as error:  # whatever a broken backend raises
            return f"crashed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None if failed is None else described(failed)


def described(check: Check) -> str:
    """Which check failed, with its error and its tolerance."""
    where = ", ".join(part for part in (check.suite, check.case, check.weights) if part)
    return f"{where}: {check.quantity} {number(check.error, 2)} > {number(check.tolerance, 2)}"


if __name__ == "__main__":
    print(json.dumps(judge(*sys.argv[1:])))
