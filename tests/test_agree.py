"""The agreement suite from end to end: its tables, its file, its exit."""

import pytest

from bench import agreement_report, agreement_runs, mutations
from bench.errors import BenchError


def test_the_suite_passes_and_leaves_its_checks_and_tables(tmp_path):
    text = agreement_runs.run(["numpy", "torch"], "cpu", full=False, steps=4, output=tmp_path)
    assert "FAILED" not in text
    assert "checks are within their tolerances" in text
    checks, head = agreement_report.load(tmp_path)
    assert set(checks["suite"]) == {"matrix", "lockstep", "resume", "sampling"}
    assert checks["passed"].all()
    assert head[0].startswith("machine: ")
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".md"}


def test_a_fault_is_an_error_that_names_the_check_and_the_checks_are_kept(tmp_path):
    (fault,) = [mutation for mutation in mutations.MUTATIONS if mutation.name == "sign_flipped"]
    with mutations.planted(fault, "torch"), pytest.raises(BenchError, match=r"checks failed, .*torch.* z: "):
        agreement_runs.run(["numpy", "torch"], "cpu", full=False, steps=4, output=tmp_path)
    checks, _ = agreement_report.load(tmp_path)
    assert not checks["passed"].all()
