"""A picture on disk: a small PNG that says in its own text what it shows, and the same as JSON beside it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.errors import BenchError, writing

MOST_GREYS = 256
HIDDEN_COLOUR = (0, 114, 178)  # blue, in a picture that is grey otherwise
GAP = 6
"""Pixels between panels."""


@dataclass(frozen=True)
class Picture:
    """A picture of 8 bits a pixel or fewer, with its title and a caption: what is seen, and from what it was made."""

    image: Image.Image
    title: str
    caption: str


def levels(images: NDArray, greys: int = MOST_GREYS) -> NDArray[np.uint8]:
    """Return images in units of white as the nearest of `greys` levels; what is outside [0, 1] is clipped.

    Raises:
        BenchError: a value is not finite: no level is near it.
    """
    if not np.isfinite(images).all():
        raise BenchError("decoding gives values that are not finite: these weights or this temperature make no picture")
    return np.round(np.clip(images, 0, 1) * (greys - 1)).astype(np.uint8)


def tiled(images: NDArray[np.uint8], rows: int, side: int) -> NDArray[np.uint8]:
    """Return images [rows · columns, side²], row by row, as one array [side · rows, side · columns]."""
    columns = len(images) // rows
    return images.reshape(rows, columns, side, side).swapaxes(1, 2).reshape(rows * side, columns * side)


def side_by_side(panels: list[NDArray[np.uint8]], greys: int) -> NDArray[np.uint8]:
    """Return panels of one height in one array, from left to right with a grey band between them."""
    gap = np.full((len(panels[0]), GAP), greys // 2, np.uint8)
    return np.hstack([part for panel in panels for part in (gap, panel)][1:])


def grey_image(indices: NDArray[np.uint8], greys: int) -> Image.Image:
    """Return an image of grey levels, in which the index `greys` has the colour of hidden pixels."""
    image = Image.fromarray(indices)
    if greys < MOST_GREYS:
        palette = [level for i in range(greys) for level in [round(255 * i / (greys - 1))] * 3]
        image.putpalette(palette + (list(HIDDEN_COLOUR) if (indices == greys).any() else []))
    return image


def save(picture: Picture, output: Path) -> Path:
    """Write the PNG, with title and caption in its metadata, beside it a .json of both, and return the PNG's path.

    Raises:
        BenchError: `check_name` refuses it, or a file can't be written.
    """
    check_name(output)
    text = PngInfo()
    for keyword, words in (("Title", picture.title), ("Description", picture.caption), ("Software", "nice-bench")):
        text.add_text(keyword, words)
    beside = json.dumps({"title": picture.title, "caption": picture.caption}, ensure_ascii=False, indent=2)
    with writing(output) as temporary:
        picture.image.save(temporary, format="PNG", optimize=True, pnginfo=text)
    with writing(output.with_suffix(".json")) as temporary:
        temporary.write_text(beside + "\n", encoding="utf-8")
    return output


def check_name(output: Path) -> None:
    """Refuse a name that isn't a PNG's, or whose caption would take the place of something else, as of a record.

    Raises:
        BenchError: it is refused.
    """
    if output.suffix.lower() != ".png":
        raise BenchError(f"{output}: expected a name that ends in .png")
    beside = output.with_suffix(".json")
    if beside.exists() and not is_caption(beside):
        raise BenchError(f"{output}: its caption would replace {beside.name}, which is no caption; choose another name")


def is_caption(path: Path) -> bool:
    """Return whether a file is what lies beside a picture."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.keys() == {"title", "caption"}
