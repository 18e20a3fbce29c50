"""Pictures: the PNG files that lie beside the records, with their captions, inside the page.

A caption is the file of the same name with the suffix .txt, or .json with the keys `caption` and, if it has one,
`title`; without either the file's name has to do.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.errors import BenchError
from bench.records.collection import files_below
from bench.records.fields import printable

MOST_BYTES = 1_800_000
"""The most bytes of all pictures, which become a third more as text; what goes beyond is left out, by name."""


@dataclass(frozen=True)
class Picture:
    """One picture: its file's name, title (or ""), caption, size in pixels and a data URI."""

    name: str
    title: str
    caption: str
    width: int
    height: int
    source: str


def pictures(paths: Iterable[Path], most: int = MOST_BYTES) -> tuple[list[Picture], list[str]]:
    """The pictures in folders, and the names of those for which there is no room; small ones go first.

    Raises:
        BenchError: a file that can't be read, or is no picture.
    """
    files = [file for path in paths if path.is_dir() for file in files_below(path, "*.png")]
    files = list({file.resolve(): file for file in files}.values())
    kept, room = set(), most
    for file in sorted(files, key=lambda file: (file.stat().st_size, file)):
        if file.stat().st_size <= room:
            room -= file.stat().st_size
            kept.add(file)
    left_out = [printable(str(file)) for file in files if file not in kept]
    return [_picture(file) for file in files if file in kept], left_out


def _picture(file: Path) -> Picture:
    try:
        with Image.open(file) as image:
            width, height = image.size
            is_png = image.format == "PNG"
        data = base64.b64encode(file.read_bytes()).decode("ascii")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # of damaged chunks, or too many
        raise BenchError(f"{file}: can't be read as a picture ({error})") from error
    if not is_png:
        raise BenchError(f"{file}: not a PNG file")
    name, title, caption = (printable(text) for text in (file.stem, *_title_and_caption(file)))
    return Picture(name, title, caption, width, height, f"data:image/png;base64,{data}")


def _title_and_caption(file: Path) -> tuple[str, str]:
    """Return the title and caption that lie beside the picture, or its name."""
    text, facts = file.with_suffix(".txt"), file.with_suffix(".json")
    try:
        if text.is_file():
            return "", " ".join(text.read_text(encoding="utf-8").split())
        if facts.is_file():
            found = json.loads(facts.read_text(encoding="utf-8"))
            if isinstance(found, dict) and isinstance(found.get("caption"), str):
                return " ".join(str(found.get("title") or "").split()), " ".join(found["caption"].split())
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"{file}: its caption can't be read ({error})") from error
    return "", file.stem.replace("-", " ").replace("_", " ")
