"""What a round says and leaves on disk: names and units of its figures, parts of epochs, states, the best weights."""

from types import SimpleNamespace

import numpy as np
import pytest
from factories import SMALL, assert_same_bits, create, images
from test_worker_figures import DATA_DEPENDENT, Others, Trained, plan_of, trained

from backends import EpochReport, Nodes, Pixels, TrainingState, parameters, state
from bench.errors import DivergedError
from bench.inputs import data, protocol
from bench.inputs.streams import TrainingStream, pixels_to_x
from bench.measures import floor, likelihood
from bench.records import Measurement
from bench.running import worker
from bench.running.messages import EpochDone, Finished, Started, StateLeft


def named(events):
    """(measure, quantity, unit, round) of each figure, in their order."""
    figures = [event for event in events if isinstance(event, Measurement)]
    return [(m.measure, m.quantity, m.unit, m.context.get("round")) for m in figures]


# Figures of the epochs


def test_the_figures_of_the_epochs_are_of_these_measures_and_units(monkeypatch):
    model = Trained()
    model.replicas = 2
    assert {name: (m.measure, m.unit) for name, m in trained(monkeypatch, model)[1].items()} == {
        "first_call_seconds": ("startup", "s"),
        "seconds_per_epoch": ("training", "s"),
        "images_per_second": ("training", "images/s"),
        "harness_fraction": ("training", "1"),
        "others_share": ("training", "1"),
        "wait_fraction": ("training", "1"),
        "reduced_bytes": ("training", "bytes"),
    }


def test_the_first_call_of_a_process_that_goes_on_is_neither_cold_nor_warm(monkeypatch):
    monkeypatch.setattr("test_worker_figures.plan_of", lambda **_: plan_of().model_copy(update={"resumed": True}))
    figures = trained(monkeypatch)[1]
    assert {name for name in figures if "first_call" in name} == {"resumed_first_call_seconds"}


def test_of_one_epoch_nothing_is_said_of_a_wait(monkeypatch):
    monkeypatch.setattr("test_worker_figures.plan_of", lambda **_: plan_of().model_copy(update={"epochs": 1}))
    figures = trained(monkeypatch)[1]
    assert "wait_fraction" not in figures
    assert figures["seconds_per_epoch"].value == 1.0
    monkeypatch.setattr("test_worker_figures.plan_of", lambda **_: plan_of().model_copy(update={"epochs": 2}))
    assert trained(monkeypatch)[1]["wait_fraction"].value == pytest.approx(0.1 / 9)


class Parted(Trained):
    """Two epochs in two parts of 3 steps each, of 1, 9, 2 and 4 s; the losses of one of its parts may be others."""

    def __init__(self, **lost):
        super().__init__((7.0, 6.0, 5.0, 4.0))
        self.lost = lost

    def train(self, images, optimiser, stream, epochs):
        for part, seconds in enumerate((1.0, 9.0, 2.0, 4.0), 1):
            self.now, self.epoch = self.now + seconds, part
            losses = np.array(self.lost.get(f"part{part}", [part, part, part + 3.0]))
            yield EpochReport(part, losses, seconds, 0.0, 0.0)


def parted(monkeypatch, model, leaving=None, **plan):
    """The events of a training in parts."""
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: model.now))
    monkeypatch.setattr(worker.disturbance, "Others", Others)
    monkeypatch.setattr(Others, "share", lambda self: None)
    given = worker.Images(images(12), images(4) * 0, images(4), digest="")
    stream = TrainingStream(3, 12, 12, 2, Pixels(1), parts=2)
    leaving = leaving or SimpleNamespace(best=None, between_epochs=lambda: iter(()))
    yield from worker._train(model, given, stream, plan_of().model_copy(update={"epochs": 4} | plan), leaving)


def test_an_epoch_in_parts_is_evaluated_at_its_end_and_timed_as_a_whole(monkeypatch):
    events = list(parted(monkeypatch, Parted()))
    done = [event for event in events if isinstance(event, EpochDone)]
    assert [(e.point.epoch, e.part, e.point.seconds, e.point.train_loss, e.point.test_loss) for e in done] == [
        (1, 1, 1.0, 2.0, None),
        (1, 2, 9.0, 3.0, 6.0),
        (2, 1, 2.0, 4.0, None),
        (2, 2, 4.0, 5.0, 4.0),
    ]
    assert [e.first_epoch_losses for e in done] == [[1.0, 1.0, 4.0], [2.0, 2.0, 5.0], [], []]
    found = {e.quantity: e.value for e in events if isinstance(e, Measurement)}
    assert (found["seconds_per_epoch"], found["images_per_second"]) == (2 * 3.0, 3 * 2 / 3.0)


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ({"part1": [1.0, np.nan, 2.0]}, "loss is nan at step 2 of epoch 1"),
        ({"part2": [1.0, 2.0, np.inf]}, "loss is inf at step 6 of epoch 1"),
        ({"part3": [-np.inf, np.nan, 2.0]}, "loss is -inf at step 1 of epoch 2"),
    ],
)
def test_training_ends_after_the_first_loss_that_is_no_number(monkeypatch, lost, told):
    events = []
    with pytest.raises(DivergedError, match=f"^{told}$"):
        events.extend(events.append(event) for event in parted(monkeypatch, Parted(**lost)))
    last = [event for event in events if isinstance(event, EpochDone)][-1]
    (part,) = lost
    assert 2 * (last.point.epoch - 1) + last.part == int(part[-1])
    if part != "part3":
        assert last.first_epoch_losses == [x if np.isfinite(x) else None for x in lost[part]]


@pytest.mark.parametrize(("rank", "calls"), [(0, 3), (1, 0)])
def test_a_state_may_be_left_between_epochs_by_the_first_node(monkeypatch, rank, calls):
    asked = []
    leaving = SimpleNamespace(best=None, between_epochs=lambda: iter(asked.append(1) or ()))
    list(parted(monkeypatch, Parted(), leaving, nodes=Nodes(rank=rank)))
    assert len(asked) == calls


def test_what_is_left_between_epochs_takes_no_time_of_theirs(monkeypatch):
    model = Parted()

    def slowly():
        model.now += 1000.0
        return iter(())

    leaving = SimpleNamespace(best=None, between_epochs=slowly)
    events = parted(monkeypatch, model, leaving)
    found = {e.quantity: e.value for e in events if isinstance(e, Measurement)}
    assert found["harness_fraction"] == pytest.approx(0.0)


# What is left on disk


@pytest.fixture
def leaving(tmp_path, monkeypatch):
    """What leaves states, of a model whose state takes 2 s to fetch, by a clock to set; and what it measured."""
    clock, measured = SimpleNamespace(now=100.0), []
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    model = create("numpy", precision="float32")
    fetch = model.training_state

    def slowly():
        clock.now += 2.0
        return fetch()

    model.training_state = slowly

    def memory():
        measured.append(clock.now)
        yield Measurement.of("training", "peak_memory", 1.0, "bytes", round=1)

    def make(**changes):
        paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("state", "best", "weights")}
        return worker._Leaving(model, plan_of().model_copy(update=paths | changes), memory)

    return SimpleNamespace(make=make, clock=clock, measured=measured, model=model, folder=tmp_path)


def test_a_state_is_left_at_once_and_then_after_twenty_times_what_that_took(leaving):
    left = leaving.make()
    times = []
    for now in (0.5, 3.0, 42.4, 42.5, 84.4, 84.6):
        leaving.clock.now = now
        times += [now for event in left.between_epochs() if isinstance(event, StateLeft)]
    assert times == [0.5, 42.5, 84.6]


def test_memory_is_measured_once_and_before_anything_is_copied(leaving):
    left = leaving.make()
    kinds = [type(event) for event in left.between_epochs()]
    assert kinds == [Measurement, StateLeft]
    assert [*left.memory()] == []
    assert leaving.measured == [100.0]
    assert [*leaving.make(resumed=True).memory()] == []


def test_a_state_on_disk_is_the_models_and_is_named_by_its_step(leaving):
    list(
        leaving.model.train(
            images(12), protocol.load("smoke").make_optimiser(), TrainingStream(0, 12, 12, 4, Pixels(1)), 1
        )
    )
    (event,) = leaving.make().files()
    assert event.path == str(leaving.folder / "state.3.safetensors")
    architecture, found = state.load(event.path)
    expected = leaving.model.training_state()
    assert (architecture, found.step) == (SMALL, 3)
    assert_same_bits(found.parameters, expected.parameters)
    assert_same_bits(found.moments["mean"], expected.moments["mean"])


def test_the_best_weights_are_left_once(leaving):
    left, path = leaving.make(), leaving.folder / "best.safetensors"
    left.save_best()
    assert not path.exists()
    left.best = leaving.model.parameters()
    assert [type(event) for event in left.files()] == [StateLeft]
    assert_same_bits(parameters.load(path)[1], leaving.model.parameters())
    assert left.best is None
    path.unlink()
    left.save_best()
    assert not path.exists()


def test_weights_that_are_not_finite_are_not_left_and_training_goes_on(leaving):
    left = leaving.make()
    left.best = leaving.model.parameters() | {"log_scale": np.full(12, np.nan, np.float32)}
    assert [type(event) for event in left.between_epochs()] == [Measurement]


# A whole round


def whole_round(folder, monkeypatch, overrides=None, *, training_only=False, **changes):
    """The events of a round of the smoke protocol by NumPy, in which nothing is timed for long."""
    monkeypatch.setattr(floor, "MEMORY_BYTES", 2**10)
    quick = {"measure__seconds_per_timing": 1e-9, "measure__sampling_batches": [1]}
    loaded = protocol.load("smoke", **quick | (overrides or {}))
    paths = {name: str(folder / f"{name}.safetensors") for name in ("state", "best", "weights")}
    plan = plan_of().model_copy(update={"protocol": loaded, "epochs": 1} | paths | changes)
    return list(worker.carry_out(plan, **{"training_only": True} if training_only else {}))


ALWAYS = [
    ("startup", "import_seconds", "s", 1),
    ("startup", "first_call_seconds", "s", 1),
    ("training", "seconds_per_epoch", "s", 1),
    ("training", "images_per_second", "images/s", 1),
    ("training", "harness_fraction", "1", 1),
    ("training", "peak_memory", "bytes", 1),
    ("training", "training_memory", "bytes", 1),
    ("training", "training_memory_ratio", "1", 1),
]


def test_a_training_alone_is_timed_against_its_floor_and_a_calibration(tmp_path, monkeypatch):
    events = whole_round(tmp_path, monkeypatch, training_only=True)
    found = [each for each in named(events) if each[1] != "others_share"]
    assert found[:8] == ALWAYS
    assert {each[0] for each in found[8:]} == {"floor", "calibration"}
    assert {each[3] for each in found} == {1}
    start, end = events[0], events[-1]
    assert isinstance(start, Started)
    assert start.mode == "eager"
    assert {"framework", "gpu_before", "packages"} <= set(start.environment)
    assert isinstance(end, Finished)
    assert (end.status, set(end.environment)) == ("ok", {"gpu_after"})
    assert not [*tmp_path.glob("state*")]  # no round follows
    on_disk = parameters.load(tmp_path / "weights.safetensors")[1]
    assert end.digests == {"final_parameters": parameters.digest(on_disk)}
    assert start.digests["initial_parameters"] != parameters.digest(on_disk)


def test_a_round_before_the_last_leaves_a_state_and_no_weights(tmp_path, monkeypatch):
    events = whole_round(tmp_path, monkeypatch, training_only=True, rounds=2)
    assert isinstance(events[-2], StateLeft)
    assert events[-1].digests == {}
    assert not (tmp_path / "weights.safetensors").exists()
    assert state.load(events[-2].path)[1].step == 8


def test_a_process_that_goes_on_says_nothing_of_its_import_and_memory(tmp_path, monkeypatch):
    first = whole_round(tmp_path, monkeypatch, training_only=True, rounds=2)[-2].path
    events = whole_round(tmp_path, monkeypatch, training_only=True, state=first, resumed=True)
    quantities = {quantity for _, quantity, _, _ in named(events)}
    assert "resumed_first_call_seconds" in quantities
    assert not quantities & {"import_seconds", "peak_memory"}
    assert [event.point.epoch for event in events if isinstance(event, EpochDone)] == [2]


def test_a_later_round_goes_on_from_the_state_and_measures_no_start(tmp_path, monkeypatch):
    first = whole_round(tmp_path, monkeypatch, rounds=3)
    assert any(each.context.get("weights") == "initial" for each in first if isinstance(each, Measurement))
    later = whole_round(tmp_path, monkeypatch, rounds=3, round=2, state=first[-2].path)
    assert not any("weights" in each.context for each in later if isinstance(each, Measurement))
    assert [event.point.epoch for event in later if isinstance(event, EpochDone)] == [2]


def test_where_an_average_is_evaluated_the_likelihood_without_it_is_told_too(tmp_path, monkeypatch):
    overrides = DATA_DEPENDENT | {
        "optimiser__name": "adamw",
        "training__loss": "nll",
        "training__target_of": "selection",
    }
    told, asked = [], likelihood.mean_log_prob
    monkeypatch.setattr(likelihood, "mean_log_prob", lambda model, x: told.append((model, x)) or asked(model, x))
    events = whole_round(tmp_path, monkeypatch, overrides)
    (found,) = (each for each in events if getattr(each, "quantity", "") == "log_likelihood_without_average")
    assert (found.measure, found.unit, found.context) == ("likelihood", "nats", {})
    x = pixels_to_x(data.load("mnist-subset").test_images, likelihood.DEQUANTISED, 3)
    (model, _) = next(each for each in told if each[1].shape == x.shape and np.array_equal(each[1], x))
    averaged, last = asked(model, x), found.value  # the model is left with the average
    assert last != averaged
    trained = whole_round(tmp_path, monkeypatch, overrides, training_only=True, rounds=2)[-2].path
    model.resume(TrainingState(state.load(trained)[1].parameters))
    assert asked(model, x) == pytest.approx(last, rel=1e-6)


def test_the_best_weights_are_kept_or_there_are_none(tmp_path, monkeypatch):
    kept = {"training__keep": "best"}
    whole_round(tmp_path, monkeypatch, kept, training_only=True)
    best = (parameters.load(tmp_path / f"{name}.safetensors")[1] for name in ("best", "weights"))
    assert_same_bits(*best)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(DivergedError, match="no weights are the best"):
        whole_round(tmp_path, monkeypatch, kept, training_only=True, best_loss=-1e9)


def test_the_calibration_takes_half_the_time_of_another_timing(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(worker.calibration, "measure", lambda model, seconds, round_: asked.append(seconds) or iter(()))
    whole_round(tmp_path, monkeypatch, {"measure__seconds_per_timing": 0.25}, training_only=True)
    assert asked == [0.125]
