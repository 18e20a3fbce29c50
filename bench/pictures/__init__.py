"""Pictures of a model: each kind is a function from weights and options to a `Picture`, the same for every backend.

grid            digits drawn from the prior, at one temperature or at several, with the same latents
interpolation   from one test digit to another, along the straight line between their encodings
traversal       single latent dimensions from −3 to 3 standard deviations, the others held
spectrum        the deviations σ = exp(−s), sorted
inpainting      the paper's: test digits of which a part is hidden, completed (`bench.pictures.inpaint`)
"""

import io
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from backends import Backend
from bench.errors import BenchError
from bench.pictures import inpaint as paper
from bench.pictures import picture_source
from bench.pictures.picture_files import MOST_GREYS, Picture, check_name, grey_image, levels, save, side_by_side, tiled
from bench.pictures.picture_source import Source
from bench.tables.render import listed

STEPS_BETWEEN = 11
"""Points of an interpolation and of a traversal, ends included."""
FARTHEST = 3.0
"""Standard deviations to either side, of a traversal."""
STANDARD_DEVIATION = {"gaussian": 1.0, "logistic": np.pi / np.sqrt(3)}

MOST_ROWS = 100
"""The most rows of a grid, which has as many columns, all of them decoded at once."""


@dataclass(frozen=True)
class Settings:
    """What a picture is drawn with: the options of `nice-bench sample`, of which each kind has some."""

    kind: str
    backend: str | None = None
    device: str = "auto"
    temperatures: tuple[float, ...] = ()
    rows: int = 0
    greys: int = MOST_GREYS
    seed: int = 0
    steps: int = 0
    protocol: str | None = None


ANY: dict[str, Any] = {"backend": None, "device": "auto", "greys": MOST_GREYS}
DEFAULTS: dict[str, dict[str, Any]] = {
    "grid": {**ANY, "temperatures": (0.8,), "rows": 15, "seed": 0},
    "interpolation": {**ANY, "rows": 10, "protocol": None},
    "traversal": {**ANY, "temperatures": (0.5,), "rows": 10, "seed": 0},
    "spectrum": {},
    "inpainting": {**ANY, "greys": 64, "seed": 0, "steps": paper.STEPS, "protocol": None},
}
"""Kind → the options that go with it, and what they are if not given."""


def draw(kind: str, weights: Path, output: Path, options: Mapping[str, Any], console: Console | None = None) -> Path:
    """Draw a picture of canonical weights, and write it as `picture_files.save` does.

    The options are those of `Settings`, None for the kind's own default; progress is shown where the console is a
    terminal.

    Raises:
        BenchError: an option that doesn't go with the kind, weights whose dimensions make no such picture, or a file
            that can't be written.
        ParameterError: weights that can't be used.
        UnavailableError: a backend or a device that isn't there.
    """
    settings = resolved(kind, options)
    check_name(output)
    source = picture_source.read(weights)
    if kind == "spectrum":
        return save(spectrum(source), output)
    source.side()  # raises where there is none, before a framework is loaded
    model = source.model(settings.backend, settings.device)
    if kind == "inpainting":
        return save(inpainting(source, model, settings, console or Console(stderr=True)), output)
    return save(KINDS[kind](source, model, settings), output)


def resolved(kind: str, options: Mapping[str, Any]) -> Settings:
    """The options with the kind's defaults filled in.

    Raises:
        BenchError: no such kind, or an option that doesn't go with it.
    """
    if kind not in DEFAULTS:
        raise BenchError(f"--kind is {kind!r}; expected one of {', '.join(DEFAULTS)}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in DEFAULTS[kind]:
            kinds = [other for other, known in DEFAULTS.items() if name in known]
            option = name.replace("temperatures", "temperature")
            raise BenchError(f"--{option} doesn't go with --kind {kind}, but with {', '.join(kinds)}")
    if kind == "traversal" and len(given.get("temperatures", (1,))) > 1:
        raise BenchError("--kind traversal takes one --temperature")
    if kind == "grid" and given.get("rows", 1) > MOST_ROWS:
        raise BenchError(f"--rows is {given['rows']}; expected {MOST_ROWS} at most")
    if kind == "inpainting" and given.get("greys", 2) >= MOST_GREYS:
        raise BenchError(f"--greys {given['greys']}: inpainting has {MOST_GREYS - 1} at most, besides its one colour")
    return Settings(kind, **(DEFAULTS[kind] | given))


# Kinds


def grid(source: Source, model: Backend, settings: Settings) -> Picture:
    """Rows × rows latents decoded, once for each temperature."""
    rows, temperatures = settings.rows, settings.temperatures
    latents = source.latents(settings.seed, rows * rows)
    panels = [tiled(levels(model.decode(t * latents), settings.greys), rows, source.side()) for t in temperatures]
    scales = listed([f"{t:g}" for t in temperatures])
    several = len(temperatures) > 1
    seen = f"{rows} × {rows} images decoded from latents of the prior times the temperature {scales}"
    seen += ", from left to right; the same latents in each panel" if several else ""
    title = f"Samples at temperature{'s' if several else ''} {scales}"
    return _picture(title, seen, side_by_side(panels, settings.greys), source, model, settings)


def interpolation(source: Source, model: Backend, settings: Settings) -> Picture:
    """A row for each pair of test digits: the encodings of both, and points on the line between them, decoded."""
    pairs = settings.rows
    images = source.test_digits(2 * pairs)
    protocol, pixels = source.pixels(settings.protocol)
    white = 255 * pixels.scale
    # The middle of the noise's cell, as there is nothing random about these digits.
    z = model.encode(images * pixels.scale + pixels.noise / 2)[0].astype(np.float64)
    t = np.linspace(0, 1, STEPS_BETWEEN)[None, :, None]
    between = (1 - t) * z[0::2, None, :] + t * z[1::2, None, :]
    decoded = model.decode(between.reshape(-1, z.shape[1])) - pixels.noise / 2
    picture = tiled(levels(decoded / white, settings.greys), pairs, source.side())
    seen = (
        f"in each row, {STEPS_BETWEEN} points on the straight line from the encoding of one test digit to that of "
        f"another, decoded; the first and the last are the digits themselves. The first {2 * pairs} test digits of "
        f"MNIST, in pairs, with pixels as in protocol {protocol}"
    )
    return _picture("Interpolation between test digits", seen, picture, source, model, settings)


def traversal(source: Source, model: Backend, settings: Settings) -> Picture:
    """A row for each of some latent dimensions, in order of σ: one sample, that dimension alone changed."""
    rows, (temperature,) = settings.rows, settings.temperatures
    sigma = source.deviations
    order = np.argsort(-sigma, kind="stable")
    # From the largest σ to the smallest, evenly on a logarithmic scale of rank: most of the model is in the first few.
    ranks = np.unique(np.round(np.geomspace(1, len(order), min(rows, len(order)))).astype(int))
    base = temperature * source.latents(settings.seed, 1)[0]
    latents = np.tile(base, (len(ranks), STEPS_BETWEEN, 1))
    span = FARTHEST * STANDARD_DEVIATION[source.architecture.prior]
    for row, rank in enumerate(ranks):
        latents[row, :, order[rank - 1]] = np.linspace(-span, span, STEPS_BETWEEN)
    decoded = model.decode(latents.reshape(-1, len(base)))
    picture = tiled(levels(decoded, settings.greys), len(ranks), source.side())
    sigmas = ", ".join(f"{sigma[order[rank - 1]]:.2g}" for rank in ranks)
    seen = (
        f"one latent of the prior times the temperature {temperature:g}, decoded with a single dimension changed from "
        f"−{FARTHEST:g} to {FARTHEST:g} standard deviations of the prior. Rows: the dimensions of rank "
        f"{listed([f'{rank}' for rank in ranks])} by σ = exp(−s), with σ = {sigmas}"
    )
    return _picture("Traversal of single latent dimensions", seen, picture, source, model, settings)


def spectrum(source: Source) -> Picture:
    """σ = exp(−s) from largest to smallest, on a logarithmic scale (the paper's figure 4 sorts them likewise)."""
    import matplotlib as mpl

    from bench.figures.plots import STYLE, canvas

    sigma = np.sort(source.deviations)[::-1]
    title = "Scale spectrum"
    seen = (
        f"the {len(sigma)} deviations σ = exp(−s) of the latent dimensions from largest to smallest: "
        f"{sigma[0]:.2g} to {sigma[-1]:.2g}, median {np.median(sigma):.2g}. A small σ marks a dimension that the model "
        f"has all but collapsed"
    )
    caption = _caption(seen, source)
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        figure, (panel,) = canvas(1, title, caption)
        panel.plot(np.arange(1, len(sigma) + 1), sigma, color="black")
        panel.set(yscale="log", xlabel="rank", ylabel="σ = exp(−s)", xlim=(1, len(sigma)))
        encoded = io.BytesIO()
        figure.savefig(encoded, format="png", dpi=150)
    return Picture(Image.open(encoded).convert("L").quantize(16), title, caption)


def inpainting(source: Source, model: Backend, settings: Settings, console: Console) -> Picture:
    """The first 100 test digits as they are, with what is hidden in colour, and completed."""
    seed, steps, greys = settings.seed, settings.steps, settings.greys
    images = source.test_digits(paper.DIGITS)
    protocol, pixels = source.pixels(settings.protocol)
    hidden = paper.hidden_pixels(seed)
    made = paper.ascent(model.score, images, hidden, pixels, seed, steps)
    shown = track(made, "inpainting", steps, console=console, disable=not console.is_terminal)
    completed = deque(shown, maxlen=1).pop()
    given = levels(images / 255, greys)
    panels = [
        tiled(panel, 10, source.side())
        for panel in (given, np.where(hidden, np.uint8(greys), given), levels(completed, greys))
    ]
    seen = (
        f"the first {paper.DIGITS} test digits of MNIST, the same with what is hidden in blue, and completed by "
        f"{steps} steps of noisy ascent on log p. Hidden, row by row: {', '.join(paper.ROWS)}. Pixels as in protocol "
        f"{protocol}; procedure of arXiv 1410.8516, section 5.2, which makes {paper.STEPS} steps in its public code"
    )
    return _picture("Inpainting", seen, side_by_side(panels, greys), source, model, settings)


KINDS: dict[str, Callable[[Source, Backend, Settings], Picture]] = {
    "grid": grid,
    "interpolation": interpolation,
    "traversal": traversal,
}


def _picture(
    title: str, seen: str, indices: NDArray[np.uint8], source: Source, model: Backend, settings: Settings
) -> Picture:
    drawn = f"{model.name} on {model.device}, {model.precision}"
    if "seed" in DEFAULTS[settings.kind]:
        drawn += f"; seed {settings.seed}"
    return Picture(grey_image(indices, settings.greys), title, _caption(seen, source, drawn))


def _caption(seen: str, source: Source, drawn: str = "") -> str:
    text = f"{seen[0].upper()}{seen[1:]}. Model: {source.described()}."
    return f"{text} Drawn with {drawn}." if drawn else text
