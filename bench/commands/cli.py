"""The command line: one command after the other, or registered from files of their own where one takes a page."""

import io
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

import backends
from bench import tables
from bench.agreement import agreement_runs
from bench.commands import (
    cli_campaign,
    cli_check,
    cli_compare,
    cli_doctor,
    cli_history,
    cli_peers,
    cli_profile,
    cli_sample,
    cli_sweep,
    options,
)
from bench.commands.options import Chosen, Device, Folders, Interpreters, Modes, Output, Precision, Seed
from bench.comparison import answers, revisions
from bench.errors import BenchError, writing
from bench.inputs import data as datasets
from bench.inputs import protocol
from bench.measures import disturbance
from bench.records import Record, collection
from bench.running import job, nodes, runner
from bench.running.variant import resolve_device
from bench.tables import readme
from bench.weights import porting
from bench.weights.probes import HOW

app = typer.Typer(
    name="nice-bench",
    help="One normalizing flow, three frameworks: PyTorch, TensorFlow and JAX compared in speed and in numbers. "
    "With --verbose every command shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; an error that the user can mend is one or two lines on standard error, exit code 1.

    A request to end (SIGTERM, as `timeout` and batch systems send it) and a closed terminal (SIGHUP, unless `nohup` has
    it ignored) are interruptions: what was measured is kept.
    """
    job.interrupt_on_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):  # the name of a file may be any bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = [argument for argument in sys.argv[1:] if argument != "--verbose"]
    try:
        app(arguments)
    except (BenchError, backends.ParameterError, backends.UnavailableError, OSError, MemoryError) as error:
        if "--verbose" in sys.argv:
            raise
        message = str(error) or "out of memory"
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        options.say(f"nice-bench: {message}")
        sys.exit(1)


@app.command(epilog="Example: nice-bench run --protocol article --backends torch,jax --epochs 3")
def run(
    context: typer.Context,
    protocol_name: Annotated[
        str, typer.Option("--protocol", help=f"One of {', '.join(protocol.names())}, or a .toml file.")
    ] = "article",
    chosen: Chosen = None,
    device: Device = "auto",
    precision: Precision = "float32",
    mode: Modes = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the protocol's.")] = None,
    rounds: Annotated[int | None, typer.Option(help="In place of the protocol's.")] = None,
    batch: Annotated[int | None, typer.Option(help="In place of the protocol's.")] = None,
    devices: Annotated[
        str,
        typer.Option(
            help="How many devices train side by side, on all nodes together; comma-separated, each is measured."
        ),
    ] = "1",
    scaling: Annotated[
        Literal["strong", "weak"],
        typer.Option(help="strong: the batch is shared by the devices; weak: each has the protocol's batch."),
    ] = "strong",
    seed: Seed = 0,
    python: Interpreters = None,
    output: Output = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the latest run in this folder that was cut off or failed, with its options."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds for one round of a backend.")] = 6 * 3600.0,
    shown: Annotated[
        Literal["brief", "all", "none"],
        typer.Option("--tables", help="What is printed after the answers; brief: speed and accuracy."),
    ] = "brief",
) -> None:
    """Put each backend through a protocol and say who is fastest.

    Each has a process of its own in each round. Printed are the answers, then the tables of speed and accuracy.
    """
    if rounds is None and epochs is not None:  # the protocol's, or fewer where there are fewer epochs or their parts
        its = protocol.load(protocol_name).training
        rounds = min(its.rounds, max(epochs, 1) * its.parts)
    loaded = protocol.load(protocol_name, training__epochs=epochs, training__batch=batch, training__rounds=rounds)
    place = nodes.here()
    shared = loaded.training.batch if scaling == "strong" else None
    counts = options.device_counts(devices, shared, place.nodes if place else 1)
    if max(counts) == 1 and resume is None:
        place = None
    names = options.backend_names(chosen)
    request = runner.Request(
        protocol=loaded,
        backends=names,
        device=device,
        precision=precision,
        modes=options.modes_of(mode, names if resume is None or chosen else backends.REGISTRY),
        devices=counts,
        nodes=place.nodes if place else 1,
        weak=scaling == "weak",
        seed=seed,
        folder=options.folder(output, loaded.name),
        interpreters=options.pairs(python, "--python"),
        timeout=timeout,
    )
    if place and place.rank:
        nodes.follow(place, request.interpreters, timeout)
        return
    if resume is not None:
        request = _resumed(runner.unfinished(resume), request, options.on_command_line(context))
        loaded = request.protocol
    if loaded.data.dataset == "mnist" and not datasets.complete():
        options.say(f"fetching MNIST into {datasets.folder()} …")
    _warn_if_busy(resolve_device(request.device))
    with nodes.lead(place) if place else nullcontext() as leader:
        if leader is not None:
            request = replace(request, supervise=leader.supervise)
        made = options.measured(lambda progress: runner.run(request, progress))
    _show(made, request.folder, shown)
    options.refuse_failures(made, asked=chosen is not None)


def _resumed(there: runner.Request, asked: runner.Request, given: set[str]) -> runner.Request:
    """The request of a run that goes on; options that were given must be those that it began with."""
    now, then = asked.protocol, there.protocol
    counts = {name: getattr(then.training, name) for name in ("epochs", "rounds", "batch")}
    values = {name: (getattr(now.training, name), count) for name, count in counts.items()}
    alike = now.model_copy(update={"training": now.training.model_copy(update=counts)})
    if alike.digest() != then.digest():
        values["protocol_name"] = (now.name, f"{then.name} ({then.digest()[:8]})")
    fields = {"chosen": "backends", "mode": "modes", "scaling": "weak", "output": "folder"}
    for option in ("chosen", "device", "precision", "mode", "devices", "nodes", "scaling", "seed", "output"):
        field = fields.get(option, option)
        values[option] = (getattr(asked, field), getattr(there, field))
    for option in sorted((given | {"nodes"}) & values.keys()):
        new, old = values[option]
        if new != old:
            name = {"protocol_name": "protocol", **fields}.get(option, option)
            raise BenchError(f"--resume {there.folder}: {name} is {new} here, and {old} in the run that was cut off")
    interpreters = asked.interpreters if "python" in given else there.interpreters
    return replace(there, interpreters=interpreters, timeout=asked.timeout if "timeout" in given else there.timeout)


def _show(made: list[Record], folder: Path, shown: str) -> None:
    """Write tables and report, then print the answers, and the tables that are asked for."""
    from bench.report import page  # here, since plotly would slow every command's start down

    there = collection.load_all(folder, [])
    places = {}
    for name, path, write in (
        ("Tables", folder / "tables", lambda path: tables.write(there, path)),
        ("Report", folder / "report.html", lambda path: page.write(there, [folder], path)),
    ):
        try:
            write(path)
            places[name] = str(path)
        except BenchError as error:  # the answers of a run of hours are printed all the same
            places[name] = f"not made: {error}"
    places["Records, weights"] = str(folder)
    typer.echo(answers.verdict(answers.sections(made), places))
    options.say_which(made, there)
    if shown != "none":
        typer.echo()
        options.show(tables.all_tables(made, brief=True) if shown == "all" else tables.in_short(made))


def _warn_if_busy(device: str) -> None:
    """Warn where other processes use the cores or the GPU now: a run beside them says nothing of speed."""
    if used := disturbance.busy_at_start(device):
        options.say(f"other processes use {used}: what is timed now will be disturbed")


for name, command, example in (
    ("campaign", cli_campaign.run_campaign, "gpu --output results --budget 540"),
    ("check", cli_check.check, "results/runs/20260131-120000-mine --fail-if-slower"),
    ("compare", cli_compare.compare, 'main results/runs/today --fail-if "speed worse by 10%" --format markdown'),
    ("history", cli_history.history, 'v1.0..main --fail-if "speed worse by 10%"'),
    ("peers", cli_peers.peers, "--frameworks torch,jax --rounds 5 --steps 20"),
    ("profile", cli_profile.profile, "--backends torch,jax --mode jax=jit --steps 5 --output profiles"),
    ("sample", cli_sample.sample, "weights.safetensors --temperature 0.8"),
    ("sweep", cli_sweep.sweep, "--axis batch --operations log_prob,train --backends torch,jax"),
    ("plots", cli_sweep.draw, "results --write results/plots"),
):
    app.command(name, epilog=f"Example: nice-bench {name} {example}")(command)


@app.command("tables", epilog="Example: nice-bench tables results --all --format markdown")
def show_tables(
    context: typer.Context,
    folders: Folders = None,
    every: Annotated[
        bool, typer.Option("--all", help="All tables. [default: the answers; of runs, their speed and accuracy]")
    ] = False,
    style: Annotated[str, typer.Option("--format", help="text, markdown, csv or latex.")] = "text",
    write: Annotated[Path | None, typer.Option(help="Write the tables as files into this folder instead.")] = None,
    formats: Annotated[
        str, typer.Option(help="With --write, comma-separated: text, markdown, csv, latex, parquet.")
    ] = "markdown,csv",
    text: Annotated[
        Path | None,
        typer.Option("--into", help="Make the tables between the marks of this Markdown file anew instead."),
    ] = None,
) -> None:
    """Say who is fastest, and make tables from records."""
    given = options.on_command_line(context)
    for option, others in (("text", {"folders", "write", "style", "formats", "every"}), ("write", {"style", "every"})):
        if option in given and (unused := sorted(given & others)):
            named = {"text": "--into", "style": "--format", "every": "--all", "folders": "RECORDS"}
            option, other = (named.get(name, f"--{name}") for name in (option, unused[0]))
            raise BenchError(f"{other} is of no use with {option}")
    if "formats" in given and write is None:
        raise BenchError("--formats is of no use without --write")
    if text is not None:
        made = readme.refresh(text)
        with writing(text) as temporary:
            temporary.write_text(made, encoding="utf-8")
        return
    loaded = options.loaded_records(folders)
    if write is not None:
        for path in tables.write(loaded, write, formats.split(",")):
            typer.echo(path)
        return
    if style == "text" and not every:
        for section in answers.sections(loaded):
            typer.echo(answers.verdict([section], {}))
    options.show(tables.all_tables(loaded) if every else tables.in_short(loaded), style)


@app.command(epilog="Example: nice-bench report results --output report.html")
def report(
    folders: Folders = None,
    output: Annotated[Path, typer.Option(help="The page: one HTML file that needs nothing else.")] = Path(
        "report.html"
    ),
    history: Annotated[
        list[str] | None,
        typer.Option(
            help="Git revisions as `git log` takes them (HEAD, v1.0..main): figures are shown over the commits that "
            "added records to results/; repeatable. [default: over the runs, by date]"
        ),
    ] = None,
) -> None:
    """Make one HTML page from records.

    It has the answers, plots, tables, figures over revisions, environments, and the pictures beside the records.
    """
    from bench.report import page  # here, since plotly's and pandas' parts would slow every command's start down

    sides = revisions.read_history(history) if history else None
    for side in sides or []:
        if side.note:
            options.say(f"nice-bench: {side.name}: {side.note}")
    written = page.write(options.loaded_records(folders), folders or [Path("results")], output, sides)
    typer.echo(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")


@app.command(
    help="Turn weights of one form into another.\n\n"
    "They are read back, and how well every backend agrees on them is printed. "
    "Weights trained elsewhere don't say what the flow computes. A probe does:\n\n"
    + "\n\n".join(f"\b\n{lines}" for lines in HOW.values()),
    epilog="Example: nice-bench port nice.pth weights.safetensors --probe probe.npz",
)
def port(
    source: Annotated[
        Path,
        typer.Argument(
            help="Weights: .safetensors, .npz or .pt of this program; or trained elsewhere: a PyTorch state_dict as "
            ".pt, .pth, .ckpt, .safetensors or .npz, Keras' .weights.h5 or .keras."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="Where to: .safetensors, .npz or .pt.")],
    probe: Annotated[
        Path | None,
        typer.Option(
            help="Of weights trained elsewhere: an .npz file with x, and z or log_prob, as that program has them. The "
            "one reading of the weights that gives these values is taken."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE, repeatable, of weights trained elsewhere: states what the file doesn't say, such as "
            "sign=add. Without a probe everything has to be stated; an error lists what isn't."
        ),
    ] = None,
) -> None:
    """Turn weights of one form into another."""
    typer.echo(porting.port(source, target, option or [], probe))


@app.command(epilog="Example: nice-bench agree --full --output results/agreement")
def agree(
    chosen: Annotated[
        str | None, typer.Option("--backends", help="Comma-separated. [default: all that can be imported]")
    ] = None,
    device: Device = "auto",
    full: Annotated[
        bool, typer.Option("--full", help="The full-size network on MNIST, rather than a narrow one.")
    ] = False,
    steps: Annotated[int, typer.Option(min=4, help="Training steps that are compared one by one.")] = 100,
    trained: Annotated[
        Path | None,
        typer.Option("--weights", help="Trained weights for the round trips. [default: trained briefly]"),
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Instead, compare trainings on several devices, such as 2,4.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the checks and tables. [default: none]")] = None,
) -> None:
    """Compare every backend with the reference in float64.

    Every ordered pair too: one breach, and the exit code is 1.
    """
    names = [*options.backend_names(chosen)] if chosen is not None else _importable()
    if chosen is None and devices:
        names = [name for name in names if backends.backend_class(name).parallel_modes]
    if trained is not None and devices:
        raise BenchError("--weights is of no use with --devices: no round trip is made there")
    on = resolve_device(device)
    with options.interruptible():
        made = agreement_runs.run(
            names,
            on,
            full=full,
            steps=steps,
            output=output,
            trained=trained,
            devices=options.device_counts(devices, agreement_runs.batch_of(full=full)) if devices else (),
            console=options.errors,
        )
    typer.echo(made)


def _importable() -> list[str]:
    """Return the backends that can be imported here, and name the others on standard error."""
    reasons = backends.available()
    for name, reason in reasons.items():
        if reason is not None:
            options.say(f"{name} is left out: {reason}")
    here = [name for name, reason in reasons.items() if reason is None]
    if here == ["numpy"]:  # the reference would be held against itself, and everything would agree
        raise BenchError("no framework can be imported here, so there is nothing to compare with the reference")
    return here


@app.command(epilog="Example: NICE_BENCH_DATA=/data/mnist nice-bench data")
def data() -> None:
    """Bring MNIST into the cache, or check what is there."""
    options.say(f"MNIST in {datasets.folder()} …")
    typer.echo(datasets.fetch())
    loaded = datasets.load("mnist")
    typer.echo(f"{len(loaded.train_images)} + {len(loaded.test_images)} images, SHA-256 {loaded.digest}")


app.command(epilog="Example: nice-bench doctor --device gpu --backends torch,jax")(cli_doctor.doctor)
