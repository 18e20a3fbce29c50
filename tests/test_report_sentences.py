"""The sentences of the report: what they say, and what they keep from saying."""

import math

from record_factories import EPYC, XEON, measurement, points, record
from report_records import FAILED, SLOW, everything, floor, inverted, sampled, swept, timed, trained

from bench import tables
from bench.comparison.answers import sections
from bench.report import overview, sentences
from bench.tables.render import at_most


def sentences_on(*records):
    """The sentences of the only group of these records."""
    (found,) = map(sentences.sentences_of, sections(records))
    return found


def one(found, word):
    (sentence,) = [sentence for sentence in found if word in sentence]
    return sentence


def run(backend, *seconds, **options):
    return record(backend, measurements=timed(*seconds), **options)


# Speed


def test_faster_is_said_with_ratio_and_interval_where_rounds_tell_two_apart():
    found = sentences_on(run("torch", 60.0, 60.5, 61.0, 60.2), run("jax", 45.0, 45.3, 45.1, 45.6))
    assert "JAX is the fastest: 45.25 s an epoch (geometric mean)." in found
    assert one(found, "its time") == "PyTorch takes × 1.335 [1.314–1.357] its time: slower (4 paired rounds)."


def test_overlapping_rounds_are_within_noise_and_nobody_is_called_faster():
    found = sentences_on(run("torch", 45.0, 46.9, 46.0), run("jax", 45.2, 46.5, 45.9))
    assert "JAX has the shortest mean, 45.86 s an epoch, but these rounds can't tell who is fastest." in found
    assert one(found, "its time").startswith("PyTorch takes × 1.002 [0.98")
    assert "same within noise (3 paired rounds)" in one(found, "its time")


def test_two_rounds_apart_are_reported_but_not_called_faster():
    found = sentences_on(run("torch", 59.8, 58.9), run("jax", 46.9, 43.5))
    assert one(found, "its time").startswith("PyTorch takes × 1.314 [0.")
    assert one(found, "its time").endswith(": can't tell (2 paired rounds, 5 needed).")
    assert "can't tell who is fastest" in one(found, "fastest")


def test_of_single_rounds_noise_is_not_known():
    found = sentences_on(run("torch", 60.0), run("jax", 45.0))
    assert one(found, "its time") == "PyTorch takes × 1.333 its time: can't tell (one process)."


def test_a_backend_alone_is_compared_with_nothing():
    found = sentences_on(run("jax", 45.0, 46.0))
    assert one(found, "nothing was timed beside it").startswith("JAX takes 45.50 s an epoch")


def test_a_failed_backend_comes_first_and_its_part_of_a_time_compared_with_nothing():
    half = run("jax", 1.0, 1.1, 1.05, status="failed", reason="the worker died")
    found = sentences_on(run("torch", 60.0, 60.5, 61.0), half)
    assert found[0] == "JAX did not end well: failed (the worker died)."
    assert one(found, "an epoch").startswith("PyTorch takes 60.50 s an epoch; nothing was timed beside it")


def test_a_usual_backend_without_a_record_is_named():
    assert sentences_on(run("jax", 45.0))[0] == "No record of PyTorch and TensorFlow here."
    assert not [s for s in sentences_on(*(run(backend, 45.0) for backend in SLOW)) if "No record" in s]


# What is said beside it


def test_losses_that_go_together_are_reported_with_their_largest_difference_rounded_up():
    found = sentences_on(
        record("torch", curve=points(-100.0, -200.0)),
        record("jax", curve=points(-100.01, -200.3049)),
    )
    assert one(found, "training loss") == (
        "PyTorch and JAX: both have the same training loss within 0.31 nats (0.16 %) in every epoch that they share, "
        "up to epoch 2."
    )


def test_losses_that_part_are_reported_with_when_and_by_how_much():
    found = sentences_on(
        record("torch", curve=points(-100.0, -200.0, -300.0)),
        record("jax", curve=points(-100.0, -201.0, -240.0)),
    )
    assert one(found, "training losses") == (
        "The training losses of PyTorch and JAX agree within 1.0 nats (0.50 %) up to epoch 2, then differ: most in "
        "epoch 3, by 60.0 nats (20 %)."
    )


def test_losses_of_different_seeds_are_not_compared():
    found = sentences_on(
        record("torch", curve=points(-100.0, -200.0), seed=0), record("jax", curve=points(-100.0, -250.0), seed=1)
    )
    assert not [sentence for sentence in found if "training loss" in sentence]


def test_what_is_within_a_bound_is_within_what_is_said():
    assert at_most(12.449) == "13"
    assert at_most(0.3049) == "0.31"
    assert at_most(0.3) == "0.30"
    assert at_most(0.0) == "0"


def test_lowest_test_losses_are_reported_with_the_spread_over_seeds():
    several = [
        record(backend, seed=seed, curve=points(-1.0, -2.0, test=(-1.0, -100.0 - seed - shift)))
        for backend, shift in (("torch", 0.0), ("jax", 0.5))
        for seed in (0, 1, 2)
    ]
    assert one(sentences_on(*several), "Lowest selection") == (
        "Lowest selection article loss: JAX -101.500 and PyTorch -101.000, within 0.50 nats of each other (medians "
        "over 3 seeds, which differ by up to 2.0 nats)."
    )
    assert "one seed, so how far seeds differ is not known" in one(sentences_on(several[0]), "Lowest selection")


def test_the_target_is_reached_or_not():
    def towards(backend, epochs, seconds):
        return record(
            backend,
            target_loss=-20.0,
            measurements=[
                measurement("training", "epochs_to_target", epochs, "epochs", note=None if epochs else "not reached"),
                measurement("training", "seconds_to_target", seconds, "s", note=None if epochs else "not reached"),
                measurement("startup", "first_call_seconds", 5.0, "s"),
            ],
        )

    found = sentences_on(towards("torch", 2, 120.0), towards("jax", None, None))
    assert one(found, "was reached") == (
        "The target loss -20.0000 was reached by PyTorch in epoch 2 (125 s), first call included."
    )
    assert one(found, "did not reach") == "JAX did not reach the target loss -20.0000 in 3 epochs."


def test_floors_samples_and_round_trips():
    found = sentences_on(
        record("torch", measurements=[*timed(60.0), *floor(40.0, 1.5), *sampled(100.0), *inverted(0.7)]),
        record("jax", measurements=[*timed(45.0), *floor(40.0, 1.125), *sampled(102.0), *inverted(math.nan)]),
    )
    assert one(found, "floor") == ("How many times the machine's floor an epoch takes: JAX 1.12 and PyTorch 1.50.")
    assert one(found, "samples a second").endswith("The intervals of JAX and PyTorch overlap.")
    assert "JAX: the error of a round trip x → z → x is not finite." in found
    assert one(found, "Largest error").endswith("PyTorch 0.70; not all below half a level.")


def test_nothing_is_said_of_what_was_not_measured():
    assert sentences_on(*(record(backend) for backend in SLOW)) == []


# The whole set


def test_the_overview_counts_records_names_machines_and_what_is_absent():
    found = list(overview.overall(everything()))
    assert found == [
        "15 records (13 of runs and 2 of sweeps); 1 did not end well (see below).",
        ("2 machines: AMD EPYC, 2 cores; Intel Xeon, 4 cores. Their figures are nowhere compared with each other."),
        "Not in these records: profiles, comparisons with other libraries and micro-benchmarks.",
    ]


def test_failures_are_listed_with_their_reasons_equal_ones_together():
    assert overview.failures([FAILED, trained("jax"), FAILED]) == [
        "NumPy on AMD EPYC, 2 cores, article, float32: out of memory: <b>40 GiB</b> & more were asked for (2 records)"
    ]


def test_machines_have_sentences_of_their_own():
    records = [run("torch", 60.0, 61.0), run("jax", 45.0, 46.0, machine=XEON)]
    found = [sentences.sentences_of(section) for section in sections(records)]
    assert len(found) == 2
    assert all("nothing was timed beside it" in one(its, "an epoch") for its in found)


def test_figures_that_are_missing_are_a_table():
    lost = measurement("sampling", "latency", None, "s", note="out of memory", batch=65536)
    table = overview.missing_figures([record(measurements=[*timed(1.0), lost]), record("jax", machine=EPYC)])
    assert table.shown[["series", "of", "note"]].values.tolist() == [["torch", "batch 65536", "out of memory"]]


def test_sweeps_tell_the_best_throughput():
    (found,) = overview.sweep_sentences([swept("torch", 8e-3), swept("jax", 2e-3)]).values()
    assert found == [
        (
            "Swept over batch sizes, most examples a second (training step): PyTorch 969.7 at batch 256 and "
            "JAX 992.2 at batch 256."
        )
    ]


def test_other_libraries_are_reported_with_their_times_or_why_they_have_none():
    def steps(peer, *values):
        return [measurement("peers", "step_seconds", v, "s", peer=peer, round=i) for i, v in enumerate(values, 1)]

    lost = measurement("peers", "step_seconds", None, "s", note="not installed", peer="normflows", round=1)
    made = record(
        "torch",
        kind="peers",
        architecture={"couplings": 4, "hidden_layers": 5, "hidden_units": 1000},
        measurements=[*steps("this harness", 1.0, 1.0), *steps("nflows", 1.5, 1.7), *steps("zuko", 1.1, 1.2), lost],
    )
    assert overview.peer_sentences(tables.peers([made])) == [
        (
            "On AMD EPYC, 2 cores, float32, 4 × 5 × 1000, batch 128, PyTorch: times the step of this harness: "
            "zuko 1.15 [1.10–1.20] × and nflows 1.60 [1.50–1.70] ×."
        ),
        "On AMD EPYC, 2 cores, float32, 4 × 5 × 1000, batch 128, PyTorch: normflows: not installed.",
    ]
    without = made.model_copy(update={"measurements": steps("zuko", 1.1)})
    (zuko,) = [text for text in overview.peer_sentences(tables.peers([without])) if "zuko" in text]
    assert zuko.endswith("PyTorch: zuko: no ratio, since this harness has no time.")
