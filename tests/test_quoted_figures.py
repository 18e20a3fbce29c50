"""Figures that README.md and results/README.md quote in sentences: each is computed from the records again.

`readme()` and `results()` make phrases as the records have them; a page that lacks one quotes another figure. What is
found in README.md has no other figures: what is left without its phrases may hold those of `GIVEN` alone.
"""

import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from faults.plant import faults_of

from bench.comparison.compare import compare
from bench.comparison.matching import each_two
from bench.comparison.observations import observations
from bench.records import collection
from bench.tables.floor_tables import machine_floors
from bench.tables.headline_tables import PAPER, passing
from bench.tables.labels import prepare

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
TARGET = -2200.0

GIVEN = {f"{PAPER:.2f}": "the paper's", "67": "of MNIST: pixels that are black in each of its 60,000 training images"}
"""Figures that no record has."""


@cache
def records(folder):
    found = sorted(collection.load_all(RESULTS / folder), key=lambda record: record.plan.precision)
    return {record.plan.backend: record for record in found}  # of bfloat16 and float32 the latter


def bfloat16(folder):
    """The records with products in bfloat16, of several seeds."""
    return [record for record in collection.load_all(RESULTS / folder) if record.plan.precision == "bfloat16"]


def values(record, quantity):
    """What a record has of a quantity, by rounds."""
    found = [m for m in record.measurements if m.quantity == quantity and m.value is not None]
    return [m.value for m in sorted(found, key=lambda m: m.context.get("round", 0))]


def epoch(folder, backend):
    return float(np.median(values(records(folder)[backend], "seconds_per_epoch")))


def first_call(folder, backend):
    return values(records(folder)[backend], "first_call_seconds")[0]


def trained(folder, backend):
    """The seconds of all epochs and the first call."""
    return first_call(folder, backend) + sum(point.seconds for point in records(folder)[backend].curve)


def floor(folder):
    (found,) = machine_floors(prepare([*records(folder).values()])).values()
    return found


def log_likelihood(folder, backend):
    (found,) = values(records(folder)[backend], "dequantised_log_likelihood")
    return found


def passed(folder, backend, mark=PAPER):
    """Epoch and seconds, first call included, until a run's validation has a log-likelihood."""
    epochs, seconds = passing(prepare([records(folder)[backend]]), mark)
    return int(epochs.middle), seconds.middle


def losses(folder, backend, part="train"):
    """Epoch → loss."""
    return {point.epoch: getattr(point, f"{part}_loss") for point in records(folder)[backend].curve}


def below(folder, backend, part="train"):
    """The first epoch with a loss below the article's, and the seconds of training until then."""
    last = next((at for at, loss in sorted(losses(folder, backend, part).items()) if loss < TARGET), None)
    return last, sum(point.seconds for point in records(folder)[backend].curve if last and point.epoch <= last)


def apart(folder, *backends, part="train", until=math.inf):
    """The largest difference between losses of these backends in the epochs that all have."""
    found = [losses(folder, name, part) for name in backends]
    shared = [at for at in set.intersection(*map(set, found)) if at <= until]
    return max(np.ptp([its[at] for its in found]) for at in shared)


def timed(folder, *names):
    """The times of an epoch of these backends, or of all."""
    its = [found for name, found in records(folder).items() if name in (names or (name,))]
    return [each for each in observations(its) if each.quantity.topic == "speed"]


def ratio(folder, backend, to="jax"):
    """How many times as long a backend takes, and the verdict."""
    rows = {(row.pair.a_name, row.pair.b_name): row for row in compare(each_two(timed(folder)), runs=False)}
    return math.exp(rows[to, backend].estimate.value), rows[to, backend].verdict


@cache
def checks(folder):
    return pd.read_csv(RESULTS / folder / "checks.csv.gz", comment="#")


def best(folder, backend, part):
    at, loss = min(losses(folder, backend, part).items(), key=lambda point: point[1])
    return f"{loss:.1f}".replace("-", "−"), at


def at_least(value, digits=0):
    """`value` rounded up, as what something stays within."""
    return f"{math.ceil(value * 10**digits - 1e-9) / 10**digits:.{digits}f}"


# The phrases


def readme():
    """The figures of README.md's answer, of what was found, and of the planted faults."""
    tf32, float32 = ({name: epoch(f"article-{of}", name) for name in records("article-gpu")} for of in ("gpu", FLOAT32))
    less = [sorted(100 * (1 - its["jax"] / its[name]) for name in ("torch", "tensorflow")) for its in (tf32, float32)]
    (a, b), (c, d) = less
    (row,) = compare(each_two(timed("article-gpu", "torch", "jax")), runs=False)
    low, high = (100 * (1 - math.exp(-bound)) for bound in row.bounds())
    yield f"in TF32 {b:.0f} % less than PyTorch ({low:.0f} to {high:.0f} %)"
    yield f"and {a:.0f} % less than TensorFlow (another run, cut off)"
    yield f"in float32 {c:.0f} to {d:.0f} % less (cut off)."
    calls = [first_call("article-gpu", name) - first_call("article-gpu", "torch") for name in ("tensorflow", "jax")]
    yield f"In TF32 PyTorch is ready to train {min(calls):.0f} to {max(calls):.0f} s sooner"
    whole = [trained("article-gpu", name) for name in ("torch", "jax", "tensorflow")]
    phrase = "20 epochs take it {:.1f} s, first call included, JAX {:.1f} s and TensorFlow {:.1f} s."
    yield phrase.format(*whole)
    order = [tf32[name] for name in ("jax", "tensorflow", "torch")]
    yield "JAX takes {:.3f} s an epoch, TensorFlow {:.3f} s (cut off) and PyTorch {:.3f} s;".format(*order)
    yield f"the floor is {floor('article-gpu'):.3f} s."
    order = [float32[name] for name in ("jax", "tensorflow", "torch")]
    yield "In float32 (cut off) JAX takes {:.3f} s, TensorFlow {:.3f} s and PyTorch {:.3f} s".format(*order)
    found = checks("agreement-cpu").query("suite == 'lockstep' and precision == 'float64'")
    found = found[found["quantity"].isin(["loss", "parameters"])]
    assert (found["error"] <= found["tolerance"]).all()
    most, steps = f"{found['tolerance'].max():.0e}", int(found["step"].max())
    yield f"stay within a relative {most} of the reference over {steps} training steps"
    assert {ratio(folder, "tensorflow")[1] for folder in ("article-cpu", QUICK)} <= {"unclear", "same"}
    assert ratio(QUICK, "torch")[1] == "worse"
    yield f"PyTorch takes {ratio(QUICK, 'torch')[0]:.1f} times as long: its matrix products"
    rates = [np.median(values(records(QUICK)[name], "product_rate")) / 1e9 for name in ("torch", "jax", "tensorflow")]
    yield "run at {:.0f} GFLOP/s, JAX's at {:.0f}, TensorFlow's at {:.0f}.".format(*rates)
    yield f"On a slower host of the same label it took {ratio('article-cpu', 'torch')[0]:.1f} "
    yield f"and PyTorch takes {ratio(QUICK, 'torch')[0]:.1f} times as long. All three"
    had = [log_likelihood("recipe-cpu", name) for name in ("torch", "tensorflow", "jax")]
    yield "{:.1f} (PyTorch), {:.1f} (TensorFlow), {:.1f} (JAX), in float32".format(*had)
    minutes = [passed("recipe-cpu", name)[1] / 60 for name in ("jax", "tensorflow", "torch")]
    minutes += [passing(prepare(bfloat16("recipe-cpu")), PAPER)[1].middle / 60]
    yield "after {:.1f} minutes (JAX), {:.1f} (TensorFlow) and {:.1f} (PyTorch; {:.1f} with products in".format(
        *minutes
    )
    seconds = [passed("recipe-gpu", name)[1] for name in ("torch", "tensorflow")]
    yield "on an H100 after {:.0f} s (PyTorch) and {:.0f} s (TensorFlow).".format(*seconds)
    (at,) = {below(folder, name)[0] for folder in ("article-cpu", "article-gpu") for name in records(folder)}
    yield f"All three pass −{-TARGET:.0f} in epoch {at}, on a CPU and on a GPU"
    planted = [fault for fault in faults_of("agreement") if fault.device in (None, "cpu")]
    yield f"It also plants {len(planted)} faults, and"


FLOAT32, QUICK = "float32-gpu", "article-quick-cpu"


def results():
    """Figures of results/README.md, by its headings."""
    tf32 = {name: epoch("article-gpu", name) for name in records("article-gpu")}
    yield f"An epoch takes {min(tf32.values()):.2f} to {max(tf32.values()):.2f} s"
    (at,) = {below("article-gpu", name)[0] for name in tf32}
    spent = [below("article-gpu", name)[1] for name in ("jax", "tensorflow", "torch")]
    yield f"in epoch {at}, after {spent[0]:.1f} s (JAX), {spent[1]:.1f} s (TensorFlow) and {spent[2]:.1f} s (PyTorch)"
    times = [tf32[name] / floor("article-gpu") for name in ("jax", "tensorflow", "torch")]
    yield f"That alone is {floor('article-gpu'):.3f} s an epoch."
    yield "JAX is at {:.2f} times that floor, TensorFlow at {:.2f}, PyTorch at {:.2f}.".format(*times)
    jax, torch, tensorflow = (epoch("article-float32-gpu", name) for name in ("jax", "torch", "tensorflow"))
    yield (
        f"JAX takes {jax:.3f} s an epoch, PyTorch {torch:.3f} s (× {torch / jax:.2f}) and "
        f"TensorFlow {tensorflow:.3f} s (× {tensorflow / jax:.2f})"
    )
    yield f"the products alone take {floor('article-float32-gpu'):.3f} s by the fastest library"
    calls = {name: first_call("article-float32-gpu", name) for name in tf32}
    yield f"its first call takes {calls['jax']:.0f} s"
    yield f"against {calls['torch']:.1f} s (PyTorch) and {calls['tensorflow']:.1f} s (TensorFlow)"
    (cached,) = values(records("article-float32-gpu")["jax"], "warm_first_call_seconds")
    yield f"From a cache it takes {cached:.1f} s."
    yield f"JAX is ahead from epoch {math.ceil((calls['jax'] - calls['torch']) / (torch - jax))} on"

    count = {name: len(checks(f"agreement-gpu/{name}")) for name in tf32}
    yield f"reference in {count['torch']:,} checks"
    yield f"{count['jax']} of JAX and {count['tensorflow']} of TensorFlow"

    names = ("torch", "tensorflow", "jax")
    least = min(log_likelihood("recipe-cpu", name) for name in names) - PAPER
    yield f"by more than {10 * int(least / 10)} nats"
    every, two = (apart("recipe-cpu", *its, part="test") for its in (names, names[1:]))
    yield f"in float32 they lie within {at_least(every, 1)} nats of each other in every epoch"
    yield f"(JAX and TensorFlow within {at_least(two, 1)})"
    (at,) = {passed(folder, name)[0] for folder in ("recipe-cpu", "recipe-gpu") for name in names[:2]}
    order = ("jax", "tensorflow", "torch")
    minutes = [passed("recipe-cpu", name)[1] / 60 for name in order]
    yield f"Validation passes {PAPER:.2f} nats in epoch {at} with each: after {minutes[0]:.1f} minutes with JAX"
    yield f"{minutes[1]:.1f} with TensorFlow and {minutes[2]:.1f} with PyTorch, on two CPU cores, first call included"
    whole = [sum(point.seconds for point in records("recipe-cpu")[name].curve) / 60 for name in order]
    yield "take {:.0f}, {:.0f} and {:.0f} minutes".format(*whole)
    half, found = bfloat16("recipe-cpu"), []
    yield f"With products in bfloat16 (parameters and sums in float32) PyTorch needs, with {len(half)} seeds,"
    for record in half:
        (had,), whole = values(record, "dequantised_log_likelihood"), sum(point.seconds for point in record.curve)
        found.append((passing(prepare([record]), PAPER)[1].middle / 60, whole / 60, had))
    (low, high), whole, had = ((min(its), max(its)) for its in zip(*found, strict=True))
    yield f"{low:.1f} to {high:.1f} minutes, and {whole[0]:.0f} to {whole[1]:.0f} for all; on the test images it has"
    yield f"{had[0]:.1f} to {had[1]:.1f} nats"
    now, then = (
        [np.median(values(records(folder)[name], "product_rate")) / 1e9 for name in ("torch", "tensorflow", "jax")]
        for folder in (QUICK, "article-cpu")
    )
    yield f"{now[0]:.0f} GFLOP/s in place of {then[0]:.0f}, TensorFlow {now[1]:.0f} in place of {then[1]:.0f}"
    yield f"JAX {now[2]:.0f} in place of {then[2]:.0f}"
    there = {name: passed("recipe-gpu", name) for name in names[:2]}
    called = [there[name][1] - first_call("recipe-gpu", name) for name in there]
    yield f"after {called[0]:.1f} s of training with PyTorch and {called[1]:.1f} s with TensorFlow"
    yield "with the first call it is {:.1f} and {:.1f} s".format(*(seconds for _, seconds in there.values()))
    yield f"of the two lie within {at_least(apart('recipe-gpu', *names[:2]))} nats of each other in every epoch"

    slower = [ratio(QUICK, "torch", to) for to in ("jax", "tensorflow")]
    assert {verdict for _, verdict in slower} == {"worse"}
    assert ratio(QUICK, "tensorflow")[1] == "same"
    medians = [epoch(QUICK, "torch") / epoch(QUICK, to) for to in ("jax", "tensorflow")]
    yield "PyTorch takes {:.2f} times as long as JAX and {:.2f} times as long as TensorFlow".format(*medians)
    yield f"the floor of an epoch is {floor(QUICK):.1f} s, and it was {floor('article-cpu'):.1f} s in"

    (at,) = {below("article-cpu", name)[0] for name in names}
    first = [f"−{-losses('article-cpu', name)[at]:.1f}" for name in names]
    yield f"passes −2200 in epoch {at} with each of them ({first[0]} torch, {first[1]} TensorFlow, {first[2]} JAX)"
    trained, tested = ([best("article-cpu", name, part) for name in names] for part in ("train", "test"))
    yield "on train {} (torch, epoch {}), {} (TensorFlow, {}), {} (JAX, {})".format(
        *(x for pair in trained for x in pair)
    )
    yield "selects on, {} (torch, {}), {} (TensorFlow, {}), {} (JAX, {})".format(*(x for pair in tested for x in pair))
    start, later = (apart("article-cpu", *names, until=last) for last in (1, 18))
    yield f"The difference is {start:.2f} nats in epoch 1, under {at_least(later)} nats"
    yield f"{len(checks('agreement-cpu')):,} checks, all within their tolerances"
    yield f"{len(checks('agreement-full-cpu')):,} checks, all within their tolerances"
    (count,) = re.findall(r"(\d+) mutants, 0 of them", (RESULTS / "agreement-cpu" / "mutations.md").read_text("utf-8"))
    yield f"{count} planted, all found"


# The pages

FIGURE = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?:e-?\d+)?")  # float32, H100 and the like are names


def flat(page):
    """A page's text on one line, without the addresses of links and the numbers of a list."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", (ROOT / page).read_text(encoding="utf-8"))
    return " ".join(re.sub(r"(?m)^\d+\. ", "", text).split())


def findings(text):
    """README.md's answer, and what was found."""
    ends = (r"\*\*The answer so far.*?(?= The model is)", r"## What was found.*?(?= \| )")
    return [re.search(each, text)[0] for each in ends]


def wrong(text, phrases):
    """The phrases that README.md lacks, and the figures of its findings that no phrase has."""
    rest = " ".join(findings(text))
    for phrase in phrases:
        rest = rest.replace(phrase, "")
    return [phrase for phrase in phrases if phrase not in text] + [
        figure for figure in FIGURE.findall(rest) if figure not in GIVEN
    ]


def test_what_the_readme_says_in_sentences_is_what_the_records_say():
    assert wrong(flat("README.md"), [*readme()]) == []


def test_every_figure_of_the_readmes_findings_is_held():
    """Each, changed by one in its last digit, is found to be wrong."""
    text, phrases = flat("README.md"), [*readme()]
    found = [(part, figure) for part in findings(text) for figure in FIGURE.finditer(part)]
    assert len(found) >= 30
    for part, figure in found:
        at = figure.end() - 1
        other = f"{part[:at]}{(int(part[at]) + 1) % 10}{part[at + 1 :]}"
        assert wrong(text.replace(part, other), phrases) != wrong(text, phrases), part[at - 40 : at + 20]


@pytest.mark.parametrize("phrase", [*results()])
def test_what_the_page_of_results_says_in_sentences_is_what_the_records_say(phrase):
    assert phrase in flat("results/README.md")
