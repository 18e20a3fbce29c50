"""Live progress: each run moves its own bar, and off a terminal there are lines."""

from io import StringIO
from threading import Thread

from rich.console import Console

from bench.commands.progress import LiveProgress
from bench.records import EpochPoint
from bench.running.messages import EpochDone


def epoch(number):
    return EpochDone(
        point=EpochPoint(epoch=number, train_loss=-1.5, test_loss=None, seconds=2.0, round=1), first_epoch_losses=[]
    )


def test_of_runs_side_by_side_each_moves_its_own_bar():
    with LiveProgress(Console(file=StringIO())) as progress:
        progress.begin("torch", 1, 3)
        other = Thread(target=progress.begin, args=("torch", 1, 5))
        other.start()
        other.join()
        progress.event("torch", epoch(1))
        progress.end("torch", "ok", None)
        first, second = progress._progress.tasks
    assert (first.completed, first.fields["state"]) == (1, "ok")
    assert (second.completed, second.fields["state"]) == (0, "starting")


def test_off_a_terminal_an_epoch_and_a_failure_are_a_line_each():
    output = StringIO()
    with LiveProgress(Console(file=output)) as progress:
        progress.begin("jax", 1, 1)
        progress.event("jax", epoch(1))
        progress.end("jax", "failed", "it broke [at once]")
    assert output.getvalue().splitlines() == [
        "jax: epoch 1: loss -1.50, 2.0 s",
        "jax: failed: it broke [at once]",
    ]
