"""Tables inside a Markdown text: kept between two marks, and made anew from records.

    <!-- tables speed accuracy: results/article-cpu -->
    (what stands here is replaced)
    <!-- end tables -->

The folder is relative to the text's own.
"""

import re
from pathlib import Path

from bench import tables
from bench.errors import BenchError
from bench.records import collection
from bench.tables.render import render, said_once

BLOCK = re.compile(r"(<!-- tables (?P<names>[\w\- ]+): (?P<folder>[^ ]+) -->\n).*?(<!-- end tables -->)", re.DOTALL)


def refresh(path: Path) -> str:
    """Return the text of a file with every block of tables made anew; nothing is written.

    Raises:
        BenchError: a block names a table that its records don't give, or the text has no block.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not a text in UTF-8 ({error.reason})") from error
    if not BLOCK.search(text):
        raise BenchError(f"{path}: no block of tables; expected <!-- tables speed: results --> … <!-- end tables -->")

    def block(match: re.Match[str]) -> str:
        made = {table.name: table for table in tables.all_tables(collection.load_all(path.parent / match["folder"]))}
        missing = [name for name in match["names"].split() if name not in made]
        if missing:
            raise BenchError(f"{path}: no table {missing[0]!r} in {match['folder']}; it has {', '.join(made)}")
        shown = render(said_once([made[name] for name in match["names"].split()]), "markdown")
        return f"{match[1]}\n{shown.strip()}\n\n{match[4]}"

    return BLOCK.sub(block, text)
