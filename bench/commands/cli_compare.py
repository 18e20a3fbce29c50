"""The command `nice-bench compare`."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.commands import options
from bench.commands.options import Chosen, Device, Precision
from bench.comparison import compare_tables, conditions, matching, revisions
from bench.comparison.compare import Margins, Row
from bench.comparison.compare import compare as compared
from bench.comparison.observations import TOPICS, observations
from bench.errors import BenchError, writing
from bench.inputs import protocol
from bench.records import Record, environment
from bench.running import interleaved
from bench.running.runner import Request
from bench.tables.render import WIDTH, render

FAILS, CANNOT_TELL = 1, 3
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        help='Repeatable: "TOPIC worse by N%", in nats for loss and likelihood, in × for agreement; "TOPIC worse" for '
        f"any difference that is more than noise. TOPIC: {', '.join(TOPICS)}. Exit code 1 if one fails, 3 if none does "
        "but one can't be decided (too few rounds, or nothing comparable)."
    ),
]
UnclearPasses = Annotated[
    bool, typer.Option("--unclear-passes", help="Exit with 0, and a warning, where a condition can't be decided.")
]
Interleave = Annotated[
    bool,
    typer.Option(
        "--interleave",
        help="Measure two git revisions of nice-bench, or two folders that are checkouts of it, now: their processes "
        "alternate, so that drift of the machine hits both, and they are compared within rounds. Packages, protocol "
        "and images are those of here.",
    ),
]
MEASURING = {"protocol_name", "chosen", "device", "precision", "epochs", "rounds", "output"}
Write = Annotated[Path | None, typer.Option(help="Write it into this file instead.")]


def compare(
    context: typer.Context,
    sets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A [B]",
            help="Records, folders of records, or git revisions (their results/; REVISION:FOLDER for another folder). "
            "With --by: one, the folder results by default.",
        ),
    ] = None,
    by: Annotated[matching.By | None, typer.Option(help="Compare within one set instead.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="With --by: what the others are compared with. [default: the first]")
    ] = None,
    fail_if: FailIf = None,
    unclear_passes: UnclearPasses = False,
    margin: Annotated[
        float, typer.Option(min=0.1, help="Per cent: a change beyond this must be ruled out for “the same”.")
    ] = 10.0,
    margin_nats: Annotated[float, typer.Option(min=1e-6, help="The same for losses, in nats.")] = 1.0,
    ignore_digest: Annotated[
        bool,
        typer.Option(
            "--ignore-digest",
            help="Take protocols of one name for the same where network, optimiser, batch, epochs and loss are, "
            "whatever else was edited (the number of rounds, the caption).",
        ),
    ] = False,
    style: Annotated[Literal["text", "markdown", "json"], typer.Option("--format")] = "text",
    write: Write = None,
    interleave: Interleave = False,
    protocol_name: Annotated[str, typer.Option("--protocol", help="With --interleave: as of `run`.")] = "article",
    chosen: Chosen = None,
    device: Device = "auto",
    precision: Precision = "float32",
    epochs: Annotated[int | None, typer.Option(help="With --interleave: in place of the protocol's.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="With --interleave: in place of the protocol's, an even number.")
    ] = None,
    output: options.Output = None,
) -> None:
    """Compare sets of records: faster, slower, the same, can't tell."""
    asked = [conditions.parse(text) for text in fail_if or []]
    margins = Margins(margin / 100, margin_nats)
    if interleave:
        if by is not None or baseline is not None:
            raise BenchError("--by and --baseline compare within one set; --interleave measures two revisions")
        loaded = protocol.load(protocol_name, training__epochs=epochs, training__rounds=rounds)
        request = Request(
            protocol=loaded,
            backends=options.backend_names(chosen),
            device=device,
            precision=precision,
            folder=options.folder(output, f"{loaded.name}-interleaved"),
        )
        rows, notes, made = _interleaved(_two(sets or []), request, margins)
    else:
        given = [p.opts[0] for p in context.command.params if p.name in MEASURING & options.on_command_line(context)]
        if given:
            raise BenchError(f"{given[0]} is of what is measured: it goes with --interleave")
        (rows, notes), made = _rows(sets or [], by, baseline, margins, ignore_digest, strict=bool(asked)), []
    if not rows:
        raise BenchError(f"nothing to compare: no figures on either side. {' '.join(notes)}")
    judgements = [conditions.judge(condition, rows) for condition in asked]
    if style == "json":
        text = _json(rows, notes, judgements)
    else:
        said = f"{margin:g} % or {margin_nats:g} nats"
        text = render(compare_tables.table(rows, notes, said), style, WIDTH if write else options.columns())
        text += "".join(f"\n{sentence_of(each)}\n" for each in judgements)
    put(text, write)
    if made:
        options.refuse_failures(made, asked=chosen is not None)
    end(judgements, unclear_passes)


def _two(sets: Sequence[str]) -> Sequence[str]:
    if len(sets) != 2:
        raise BenchError(f"expected two sets to compare, or one with --by; found {len(sets)}")
    return sets


def _interleaved(names: Sequence[str], request: Request, margins: Margins) -> tuple[list[Row], list[str], list[Record]]:
    """Measure two revisions in alternation; return their comparison, what has to be said about them, the records."""
    if (rounds := request.protocol.training.rounds) % 2:
        raise BenchError(f"--interleave: {rounds} rounds; expected an even number, so that each is first equally often")
    with ExitStack() as stack:
        trees = {side: stack.enter_context(interleaved.checkout(name)) for side, name in zip("AB", names, strict=True)}
        notes = [f"{side}: {name} ({_commit(trees[side])})." for side, name in zip("AB", names, strict=True)]
        made = options.measured(lambda progress: interleaved.run(request, trees, progress))
    options.say(f"Records: {request.folder}")
    notes += [sentence for side, its in made.items() for sentence in failures(side, its)]
    rows = compared(matching.sides(observations(made["A"]), observations(made["B"])), margins)
    return rows, notes, [*made["A"], *made["B"]]


def _commit(tree: Path) -> str:
    """The commit of a checkout, and whether its code was changed since."""
    git = environment.git_state(tree)
    return f"{git['commit'][:8]}{', edited' if git['dirty'] else ''}" if git else "no git checkout"


def _rows(
    sets: Sequence[str],
    by: matching.By | None,
    baseline: str | None,
    margins: Margins,
    ignore_digest: bool,
    *,
    strict: bool,
) -> tuple[list[Row], list[str]]:
    """Return the comparison, and what has to be said about the sets; `strict` refuses records that can't be read."""
    if by is None:
        if baseline is not None:
            raise BenchError("--baseline goes with --by")
        a, b = (revisions.read(name, strict=strict) for name in _two(sets))
        notes = [f"A: {a.name}. B: {b.name}.", *_noted(a), *_noted(b)]
        notes += [*failures("A", a.records), *failures("B", b.records)]
        pairs = [*matching.sides(observations(a.records), observations(b.records), ignore_digest=ignore_digest)]
        return compared(pairs, margins), notes
    if len(sets) > 1:
        raise BenchError(f"--by compares within one set; found {len(sets)}")
    side = revisions.read(sets[0] if sets else revisions.FOLDER, strict=strict)
    found = matching.by(observations(side.records), by, baseline, ignore_digest=ignore_digest)
    notes = [f"{side.name}, by {by}.", *_noted(side), *failures("", side.records)]
    return compared(found, margins, runs=False), notes


def _json(rows: Sequence[Row], notes: Sequence[str], judgements: Sequence[conditions.Judgement]) -> str:
    """Everything, with every digit."""
    decided = [{"condition": each.condition.text, "answer": each.answer, "reason": each.reason} for each in judgements]
    found = {"notes": [*notes], "rows": [compare_tables.plain(row) for row in rows], "conditions": decided}
    return json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1)


def _noted(side: revisions.Side) -> list[str]:
    if side.note is None:
        return []
    options.say(f"nice-bench: {side.note}")
    return [f"{side.note}."]


def failures(name: str, records: Sequence[Record]) -> list[str]:
    """A sentence on the records that are not complete, none where all are."""
    failed = [record for record in records if record.status != "ok"]
    each = (
        f"{' '.join(filter(None, (record.plan.backend, record.plan.mode)))}: {record.status} "
        f"({record.reason or 'no reason recorded'})"
        for record in failed
    )
    return [f"Not complete{f' in {name}' if name else ''}: {'; '.join(each)}."] if failed else []


def sentence_of(judgement: conditions.Judgement) -> str:
    """A condition, its answer and the reason, in a line."""
    return f"{judgement.condition.text}: {judgement.answer}" + (f": {judgement.reason}" if judgement.reason else "")


def put(text: str, write: Path | None) -> None:
    """Print a text, or write it into a file and print the file's name."""
    if write is None:
        typer.echo(text)
        return
    with writing(write) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    typer.echo(write)


def end(judgements: Sequence[conditions.Judgement], unclear_passes: bool) -> None:
    """Say on standard error what failed or can't be decided, and end with the exit code that says so too."""
    bad = [each for each in judgements if each.answer != "holds"]
    for each in bad:
        options.say(f"nice-bench: {sentence_of(each)}")
    if any(each.answer == "fails" for each in bad):
        raise typer.Exit(FAILS)
    if bad and not unclear_passes:
        raise typer.Exit(CANNOT_TELL)
