"""How fast trajectories part: the lockstep checks of an agreement run, step by step, as a figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from bench.agreement.agree_training import LOCKSTEP_TOLERANCE
from bench.errors import BenchError
from bench.figures.plots import STYLE, canvas, look, save

NAME = "agreement-lockstep"
LINES = {"float64": ":", "float32": "-"}
CAPTION = (
    "Norm of the difference of all parameters from the float64 reference's, over their norm, after each step of "
    "training from one start with the same order and noise. Dashed: the tolerance of float64."
)


def parting(data: pd.DataFrame, head: Sequence[str]) -> Figure:
    """Difference over step of checks as `agreement_report.load` gives them: a panel an optimiser, a line a variant.

    Raises:
        BenchError: there are no checks of single steps.
    """
    steps = data[(data["suite"] == "lockstep") & (data["quantity"] == "parameters") & data["step"].notna()]
    if steps.empty:
        raise BenchError("no lockstep check was made step by step; expected some to draw")
    cases, variants = list(dict.fromkeys(steps["case"])), list(dict.fromkeys(steps["backend"]))
    caption = " ".join([*(f"{line[0].upper()}{line[1:]}." for line in head), CAPTION])
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        figure, panels = canvas(len(cases), "How fast trajectories part", caption)
        for panel, case in zip(panels, cases, strict=True):
            panel.set(yscale="log", title=case, xlabel="step")
            panel.axhline(LOCKSTEP_TOLERANCE, color="black", linestyle="--", linewidth=0.9)
            here = steps[steps["case"] == case]
            for (precision, variant), rows in here.groupby(["precision", "backend"], sort=False):
                backend = str(variant).replace(":", " ")
                style = look(backend, [a.replace(":", " ") for a in variants]) | {"linestyle": LINES[str(precision)]}
                shown = rows["error"].where(rows["error"] > 0)  # none at all has no place on a logarithmic axis
                every = max(1, len(rows) // 10)
                panel.plot(rows["step"], shown, label=f"{backend}, {precision}", markevery=every, **style)
            panel.legend(ncols=2)
        panels[0].set_ylabel("relative difference of parameters")
    return figure


def write(data: pd.DataFrame, head: Sequence[str], folder: Path) -> Path:
    """Draw `parting` into a folder, as SVG: the same checks give the same bytes."""
    path = folder / f"{NAME}.svg"
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        save(parting(data, head), path)
    return path
