"""Campaigns as files: what one must say, and what a matrix of steps stands for."""

import re

import pytest

from bench.errors import BenchError
from bench.running import campaign

STEP = '[[step]]\nname = "a"\nfolder = "a"\ncommand = ["run"]\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("device = ", "no TOML"),
        ('device = "tpu"\n' + STEP, "device"),
        ('device = "cpu"\n[[step]]\nname = "a"\nfolder = "../a"\ncommand = ["run"]', "folder"),
        ('device = "cpu"\n[[step]]\nname = "a"\nfolder = "a"\ncommand = ["rm"]', "begins with 'rm'"),
        ('device = "cpu"\n' + STEP * 2, "not unique: a"),
        ('device = "cpu"\nsteps = []\nstep = []', "step"),
        ('device = "cpu"\n' + STEP + "nodes = 2", "step.0.nodes: found 2, expected one of the keys name"),
        ('device = "cpu"\n' + STEP + "matrix.seed = [0]", "step.0.matrix.seed: found .0., expected"),
        ('device = "cpu"\n' + STEP + "matrix.seeds = []", "step.0.matrix.seeds: .* at least 1"),
        ('device = "cpu"\n' + STEP + "matrix.seeds = [0, -1]", "step.0.matrix.seeds.1: found -1, expected greater"),
        ('device = "cpu"\n' + STEP + "matrix.seeds = [0, 1, 0]", "seeds: 0 is listed twice"),
        ('device = "cpu"\n' + STEP + "matrix.seeds = [true]", "step.0.matrix.seeds.0"),
        (
            'device = "cpu"\n' + STEP + f"matrix.seeds = [{2**63}]",
            f"seeds.0: found {2**63}, expected less than or equal to {2**63 - 1}",
        ),
        *(
            (
                'device = "cpu"\n' + STEP.replace('"run"', f'"run", "{option}", "x"'),
                f"{option.partition('=')[0]} is in the command",
            )
            for option in ("--device=cpu", "--output", "--resume")
        ),
        (
            'device = "cpu"\n' + STEP + 'matrix.backends = ["torch", "jaxx"]',
            "'jaxx' is no backend; expected one of torch",
        ),
        ('device = "cpu"\n' + STEP + 'matrix.precisions = ["half"]', "step.0.matrix.precisions.0: .*'float64'"),
        ('device = "cpu"\n' + STEP + 'matrix.protocols = ["articel"]', "protocol 'articel': expected one of article"),
        (
            'device = "cpu"\n' + STEP + 'matrix.modes = { jax = ["scan"] }',
            "modes of jax, which is not among its backends",
        ),
        (
            'device = "cpu"\n' + STEP.replace('"run"', '"run", "--seed=1"') + "matrix.seeds = [0]",
            "--seed is in the command",
        ),
        (
            'device = "cpu"\n' + STEP.replace("run", "agree") + "matrix.seeds = [0]",
            "--seed, which `agree` does not take",
        ),
        ('device = "cpu"\nslurm.time = "soon"\n' + STEP, 'slurm.time: found "soon", expected'),
        ('device = "cpu"\nslurm.cpus-per-task = 0\n' + STEP, "slurm.cpus-per-task: found 0, expected greater than 0"),
        ('device = "cpu"\n' + STEP + 'slurm.partition = "a b"', 'step.0.slurm.partition: found "a b", expected'),
        (
            'device = "cpu"\n' + STEP + 'slurm.job-name = "mine"',
            "step.0.slurm.job-name: found .mine., expected one of the keys partition",
        ),
    ],
)
def test_a_file_that_is_no_campaign_is_refused(tmp_path, text, told):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BenchError, match=told) as caught:
        campaign.load(str(path))
    assert "\n" not in str(caught.value)


def test_a_matrix_stands_for_a_step_of_each_combination(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'device = "gpu"\n[[step]]\nname = "speed"\nfolder = "speed"\ncommand = ["run", "--rounds", "5"]\n'
        "[step.matrix]\n"
        'protocols = ["article", "paper"]\nprecisions = ["tf32"]\nbackends = ["torch", "jax"]\nseeds = [0, 7]\n'
        'modes = { torch = ["cudagraph", "eager"] }\n[step.slurm]\ntime = "10"\n' + STEP
    )
    steps = campaign.load(str(path)).step
    assert [step.name for step in steps[:6]] == [
        "speed, article, tf32, seed 0, torch, cudagraph",
        "speed, article, tf32, seed 0, torch, eager",
        "speed, article, tf32, seed 0, jax",
        "speed, article, tf32, seed 7, torch, cudagraph",
        "speed, article, tf32, seed 7, torch, eager",
        "speed, article, tf32, seed 7, jax",
    ]
    assert len(steps) == 13
    assert steps[-1].name == "a"
    assert " ".join(steps[3].command) == (
        "run --rounds 5 --protocol article --precision tf32 --seed 7 --backends torch --mode torch=cudagraph"
    )
    assert " ".join(steps[11].command) == "run --rounds 5 --protocol paper --precision tf32 --seed 7 --backends jax"
    assert {step.slurm.time for step in steps} == {"10", None}


def test_what_the_command_line_asks_of_slurm_goes_before_the_step_and_that_before_the_campaign():
    given = campaign.resources_of(["time=1-12:00", "exclusive=true", "gres=gpu:h100:1"])
    step = campaign.Resources.model_validate({"time": "5", "partition": "long", "exclusive": False})
    both = campaign.Resources.model_validate({"partition": "main", "account": "me", "cpus-per-task": 8})
    assert sorted(given.over(step).over(both).options()) == [
        *("--account=me", "--cpus-per-task=8", "--exclusive", "--gres=gpu:h100:1", "--partition=long"),
        "--time=1-12:00",
    ]
    assert step.options() == ["--partition=long", "--time=5"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--slurm", "time=5"], "go with --engine slurm"),
        (["--watch"], "go with --engine slurm"),
        (["--engine", "slurm", "--budget", "5"], "--budget goes with --engine local"),
        (["--engine", "slurm", "--slurm", "time"], "--slurm 'time': expected KEY=VALUE"),
        (["--engine", "slurm", "--slurm", "nodes=2"], '--slurm: nodes: found "2", expected one of the keys partition'),
        (["--engine", "slurm", "--slurm", "cpus_per_task=2"], "mem, cpus-per-task, exclusive"),
        (["--engine", "slurm", "--slurm", "time=late"], '--slurm: time: found "late", expected'),
        (["--engine", "cloud"], "cloud"),
    ],
)
def test_options_that_do_not_go_together_are_refused(nice_bench, tmp_path, options, told):
    called = nice_bench("campaign", "gpu", "--output", tmp_path / "made", *options)
    assert called.code in (1, 2)
    assert re.search(told, called.err)
    assert not (tmp_path / "made").exists()


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
