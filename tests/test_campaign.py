"""Campaigns: what is done once, what is done again, and what a file must say."""

import os
import signal
import sys
import time
from threading import Thread

import pytest

from bench.errors import BenchError
from bench.running import campaign

# A command of which the third argument says what comes of it; it leaves a mark in its folder each time.
PROGRAM = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.default_int_handler)
kind, fate, *options = sys.argv[1:]
folder = Path(options[options.index("--output") + 1])
folder.mkdir(parents=True)
(folder / "traces").mkdir()
(folder / "made.safetensors").touch()
(folder / "record.json").write_text(kind)
with (folder / "calls").open("a") as calls:
    print(kind, fate, *options, file=calls)
if fate == "long":
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        (folder / "kept").touch()
        raise SystemExit(130)
sys.exit(3 if fate == "fails" else 0)
"""


def of(*fates):
    steps = [campaign.Step(name=fate, folder=fate, command=("run", fate)) for fate in fates]
    return campaign.Campaign(device="cpu", step=steps)


def carry_out(wanted, folder, budget=60.0, interpreters=()):
    told = []
    program = (sys.executable, "-c", PROGRAM)
    state = campaign.carry_out(wanted, folder, budget, told.append, interpreters, program)
    return {name: end.status for name, end in state.steps.items()}, told


def calls(folder, fate):
    """The command line of every time that a step was begun."""
    return [path.read_text().strip() for path in sorted((folder / "runs").glob(f"{fate}*/calls"))]


def test_a_step_that_fails_keeps_no_other_from_being_done(tmp_path):
    wanted = of("fails", "works")
    ends, told = carry_out(wanted, tmp_path)
    assert ends == {"fails": "failed", "works": "done"}
    assert campaign.remaining(wanted, campaign._read(tmp_path)) == {"fails": "failed"}
    assert any(line.startswith("fails: failed after") for line in told)


def test_what_has_been_done_is_not_done_again_unless_it_is_asked_for_otherwise(tmp_path):
    wanted = of("fails", "works")
    carry_out(wanted, tmp_path)
    carry_out(wanted, tmp_path)
    assert len(calls(tmp_path, "works")) == 1
    assert len(calls(tmp_path, "fails")) == 2  # what kept it from working may have been mended
    changed = campaign.Step(name="works", folder="works", command=("sweep", "works"))
    other = campaign.Campaign(device="cpu", step=[changed])
    assert campaign.remaining(other, campaign._read(tmp_path)) == {"works": "not begun"}
    carry_out(other, tmp_path)
    assert campaign.remaining(other, campaign._read(tmp_path)) == {}
    assert sorted(call.split()[0] for call in calls(tmp_path, "works")) == ["run", "sweep"]


def test_what_is_at_work_when_the_budget_ends_is_interrupted_and_begun_again(tmp_path):
    wanted = of("works", "long", "never")
    ends, _ = carry_out(wanted, tmp_path, budget=3.0)
    assert ends == {"works": "done", "long": "cut off"}
    assert (tmp_path / "runs" / "long" / "kept").exists()
    assert not (tmp_path / "long").exists()
    assert campaign.remaining(wanted, campaign._read(tmp_path)) == {"long": "cut off", "never": "not begun"}
    ends, told = carry_out(of("works", "long", "fails"), tmp_path, budget=3.0)
    assert ends == {"works": "done", "long": "cut off", "fails": "failed"}
    assert [line.split(":")[0] for line in told] == ["fails", "fails", "long", "long"]  # lest it keep all others
    assert len(calls(tmp_path, "long")) == 2
    assert len(calls(tmp_path, "works")) == 1


def test_a_signal_to_the_campaign_alone_ends_what_is_at_work(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "GRACE_SECONDS", 1.0)
    made = tmp_path / "made"

    def interrupt():
        while not (made / "calls").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line has it
    try:
        Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            campaign._run([sys.executable, "-c", PROGRAM, "run", "long", "--output", str(made)], time.monotonic() + 60)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (made / "kept").exists()


def test_device_folder_and_interpreters_are_handed_on(tmp_path):
    steps = [campaign.Step(name=kind, folder=kind, command=(kind, "works")) for kind in ("run", "agree")]
    carry_out(campaign.Campaign(device="gpu", step=steps), tmp_path, interpreters=["jax=/python"])
    handed = {kind: calls(tmp_path, kind)[0] for kind in ("run", "agree")}
    folders = {kind: tmp_path / "runs" / kind for kind in handed}
    assert handed["run"] == f"run works --python jax=/python --device gpu --output {folders['run']}"
    assert handed["agree"] == f"agree works --device gpu --output {folders['agree']}"


def test_records_are_kept_in_the_steps_folder_without_weights_and_traces_the_newest_of_a_name(tmp_path):
    for kind in ("run", "sweep"):
        step = campaign.Step(name="works", folder="kept", command=(kind, "works"))
        carry_out(campaign.Campaign(device="cpu", step=[step]), tmp_path)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["calls", "record.json"]
    assert (tmp_path / "kept" / "record.json").read_text() == "sweep"
    assert (tmp_path / "runs" / "works" / "record.json").read_text() == "run"


def test_a_step_that_fails_keeps_what_it_made(tmp_path):
    carry_out(of("fails"), tmp_path)
    assert (tmp_path / "fails" / "record.json").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("device = ", "no TOML"),
        ('device = "tpu"\n[[step]]\nname = "a"\nfolder = "a"\ncommand = ["run"]', "device"),
        ('device = "cpu"\n[[step]]\nname = "a"\nfolder = "../a"\ncommand = ["run"]', "folder"),
        ('device = "cpu"\n[[step]]\nname = "a"\nfolder = "a"\ncommand = ["rm"]', "begins with 'rm'"),
        ('device = "cpu"\n' + '[[step]]\nname = "a"\nfolder = "a"\ncommand = ["run"]\n' * 2, "not unique"),
        ('device = "cpu"\nsteps = []\nstep = []', "step"),
    ],
)
def test_a_file_that_is_no_campaign_is_refused(tmp_path, text, told):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BenchError, match=told):
        campaign.load(str(path))


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / campaign.STATE).write_text("[]")
    with pytest.raises(BenchError, match="not the state of a campaign"):
        carry_out(of("works"), tmp_path)
    assert (tmp_path / campaign.STATE).read_text() == "[]"


def test_a_name_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(BenchError, match="expected one of cpu, gpu, or a"):
        campaign.load("tpu")


@pytest.mark.parametrize("name", campaign.names())
def test_the_commands_of_the_campaigns_that_come_along_are_understood(name):
    import typer

    from bench.commands.cli import app

    group = typer.main.get_command(app)
    for step in campaign.load(name).step:
        command = group.commands[step.command[0]]
        context = command.make_context("nice-bench", [*step.command[1:], "--device", "cpu", "--output", "x"])
        given = context.params.get("protocol_name")
        if given is not None:
            from bench.inputs import protocol

            protocol.load(given)
