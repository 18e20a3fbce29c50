"""Planted faults: the agreement suite must turn red for every one of them, and for nothing else."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from factories import backend_names

import backends
from backends import UnavailableError
from bench.agreement import mutations
from bench.agreement.agree import Check, Setting
from bench.agreement.mutations import MUTATIONS, Mutation, Result
from bench.errors import BenchError
from bench.tables.render import render

FRAMEWORKS = ("torch", "tensorflow", "jax")
BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}

# TensorFlow and JAX compile each mutant, which takes seconds: only these here, from each suite at least one.
SAMPLE = {
    "kernel_transposed": "matrix",
    "decoder_sign_flipped": "matrix",
    "gradient_stopped": "matrix",
    "noise_by_65535": "lockstep",
    "schedule_by_epoch": "lockstep",
    "first_row_again": "lockstep",
    "moments_rounded": "resume",
    "temperature_ignored": "sampling",
}
EVERYTHING = [(m.name, name) for name in ("numpy", "torch") for m in MUTATIONS if name in m.changes and not m.needs_gpu]
SAMPLED = [(mutation, name) for name in ("tensorflow", "jax") for mutation in SAMPLE]
HARMLESS = Mutation("harmless", "nothing is wrong", {"torch": (("math.log(2 * math.pi)", "math.log(math.tau)"),)})


@pytest.fixture(scope="module")
def setting() -> Setting:
    return mutations.small_setting()


def judge(mutation: Mutation, name: str, setting: Setting) -> Result:
    (result,) = mutations.run([mutation], [name], setting)
    return result


def only_if_tested(name: str) -> None:
    if name not in backend_names():
        pytest.skip(f"NICE_BENCH_TEST_BACKENDS leaves {name} out")


# The list


def test_the_list_has_faults_enough_each_with_a_name_of_its_own():
    assert len(BY_NAME) == len(MUTATIONS) >= 25


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_fault_fits_the_present_sources(mutation):
    assert set(mutation.changes) <= set(backends.REGISTRY)
    assert set(mutation.changes) & set(FRAMEWORKS)
    for name in mutation.changes:
        mutated = mutations.mutate(mutation, name)
        assert mutated != mutations.source(name)
        compile(mutated, mutation.name, "exec")


def test_a_list_that_has_rotted_is_an_error_that_says_where():
    rotten = Mutation("rotten", "", {"jax": (("this text is nowhere", ""),)})
    with pytest.raises(BenchError, match=r"rotten: .* 0 times in backends/jax_backend\.py"):
        mutations.mutate(rotten, "jax")


def test_text_that_occurs_twice_is_an_error():
    ambiguous = Mutation("ambiguous", "", {"jax": (("jnp.exp(", ""),)})
    with pytest.raises(BenchError, match=r"ambiguous: .* 2 times"):
        mutations.mutate(ambiguous, "jax")


def test_changes_made_together_do_not_see_each_other():
    swap = Mutation("swap", "", {"numpy": (("[:, 0::2]", "[:, 1::2]"), ("[:, 1::2]", "[:, 0::2]"))})
    assert "return h[:, 1::2], h[:, 0::2]" in mutations.mutate(swap, "numpy")


# Planting


def test_a_planted_fault_is_made_by_create_and_goes_again():
    before, modules = dict(backends.REGISTRY), set(sys.modules)
    with mutations.planted(BY_NAME["noise_sign"], "numpy"):
        mutant = backends.backend_class("numpy")
        assert mutant.__module__ == "mutant_numpy_noise_sign"
        assert mutant.name == "numpy"
    assert before == backends.REGISTRY
    assert backends.backend_class("numpy") is not mutant
    assert not [name for name in set(sys.modules) - modules if name.startswith("mutant")]


@pytest.mark.parametrize("new", ["LOG_TWO_PI = ", "LOG_TWO_PI = 1 / 0 + "], ids=["inside", "while it is imported"])
def test_the_registry_is_restored_after_an_error(new):
    before = list(backends.REGISTRY.items())
    mutation = Mutation("broken", "", {"numpy": (("LOG_TWO_PI = ", new),)})
    with pytest.raises(ZeroDivisionError), mutations.planted(mutation, "numpy"):
        raise ZeroDivisionError
    assert list(backends.REGISTRY.items()) == before
    assert "mutant_numpy_broken" not in sys.modules


# The suite


# torch:compile is walked by `nox -s agreement`: it takes minutes to compile all of that.
@pytest.mark.parametrize("arm", [*backends.REGISTRY, "tensorflow:xla", "jax:jit"])
def test_backends_without_a_fault_pass_the_whole_walk(arm, setting):
    only_if_tested(arm.partition(":")[0])
    checks = list(mutations.walk(arm, setting, "cpu"))
    assert [check for check in checks if not check.passed] == []
    assert {check.suite for check in checks} == {"matrix", "lockstep", "resume", "sampling"}
    assert {check.precision for check in checks if check.suite == "matrix"} == {"float64", "float32"}


@pytest.mark.parametrize(("mutation", "name"), EVERYTHING)
def test_every_fault_in_numpy_and_torch_is_caught(mutation, name, setting):
    only_if_tested(name)
    result = judge(BY_NAME[mutation], name, setting)
    assert result.crash is None
    assert result.caught_by is not None


@pytest.mark.parametrize(("mutation", "name"), SAMPLED)
def test_faults_in_tensorflow_and_jax_are_caught_by_the_suite_that_is_there_for_them(mutation, name, setting):
    only_if_tested(name)
    result = judge(BY_NAME[mutation], name, setting)
    assert result.crash is None
    assert result.caught_by.suite == SAMPLE[mutation]


def test_what_is_no_fault_survives_and_is_said_to(setting):
    only_if_tested("torch")
    result = judge(HARMLESS, "torch", setting)
    assert result.survived
    assert mutations.table([result]).shown["torch"].tolist() == ["SURVIVED"]


def test_a_mutant_that_crashes_is_caught_and_said_to_have_crashed(setting):
    only_if_tested("torch")
    crashing = Mutation("crashing", "", {"torch": (("        h = x1\n", "        h = x1[:, :1]\n"),)})
    result = judge(crashing, "torch", setting)
    assert not result.survived
    assert result.caught_by is None
    assert result.crash.startswith("RuntimeError: ")
    assert mutations.table([result]).shown["torch"].tolist() == [f"crashed: {result.crash}"]


def test_a_framework_that_is_missing_is_no_catch(setting, monkeypatch):
    def unavailable(*_):
        raise UnavailableError("torch: no gpu")

    monkeypatch.setattr(mutations, "first_breach", unavailable)
    with pytest.raises(UnavailableError):
        judge(HARMLESS, "torch", setting)


def test_faults_that_need_a_gpu_are_left_out_on_a_cpu(setting):
    needing = [mutation for mutation in MUTATIONS if mutation.needs_gpu]
    assert needing
    assert list(mutations.run(needing, ["torch"], setting)) == []


# What is reported


def check(error: float) -> Check:
    return Check("lockstep", "paper, RMSProp", "jax", "float64", "", "loss", error, np.nan, 1e-11)


def test_first_breach_is_the_first_that_fails_and_nothing_after_it_is_computed(setting, monkeypatch):
    def walk(*_):
        yield check(1e-12)
        yield check(1e-10)
        raise AssertionError

    monkeypatch.setattr(mutations, "walk", walk)
    assert mutations.first_breach("jax", setting) == check(1e-10)


def test_an_error_that_is_not_a_number_is_a_breach(setting, monkeypatch):
    monkeypatch.setattr(mutations, "walk", lambda *_: iter([check(np.nan)]))
    assert mutations.first_breach("jax", setting) is not None


def test_table_has_a_row_for_each_fault_and_a_column_for_each_backend():
    both, torch_only = BY_NAME["floor_in_root"], BY_NAME["gradients_accumulated"]
    results = [
        Result(both, "torch", check(1e-10), None, 0.1),
        Result(both, "jax", replace(check(2e-3), suite="matrix", weights="trained"), None, 0.1),
        Result(torch_only, "torch", None, None, 0.1),
    ]
    table = mutations.table(results)
    assert table.shown.columns.tolist() == ["fault", "description", "torch", "jax"]
    assert table.shown["torch"].tolist() == ["lockstep, paper, RMSProp: loss 1.0e-10 > 1.0e-11", "SURVIVED"]
    assert table.shown["jax"].tolist() == ["matrix, paper, RMSProp, trained: loss 0.0020 > 1.0e-11", "–"]
    assert table.raw["survived"].tolist() == [False, False, True]
    assert table.raw["tolerance"].tolist()[:2] == [1e-11, 1e-11]
    assert "3 mutants, 1 of them not caught" in table.caption
    for format in ("text", "markdown", "csv", "latex"):
        assert "floor" in render(table, format)
