"""How lists and values from outside are shown in a message, a report or a page: in part, as text.

What comes from data has no bound: a file may have 20,000 unknown columns, or one whose name is a
megabyte long. People read the first ten; logs, XComs and reports stay small.
"""

import re
from collections.abc import Iterable, Sequence

MOST_LINES = 10
MOST_CHARACTERS = 100

MARKUP = re.compile(r"[][<>`*~&|\\$]|(^|\W)_|_(\W|$)|://|www\.|@|^\s*([#+-]|\d+[.)])\s")
"""What Markdown, in one of its dialects, may take for more than text: a link, a picture, a tag."""


def few(lines: Sequence[str], most: int = MOST_LINES) -> list[str]:
    """The first lines of one kind, then how many more there are."""
    rest = len(lines) - most
    return [*lines[:most], f"and {rest:,} more like these"] if rest > 0 else list(lines)


def counted(number: int, noun: str) -> str:
    """A number with what it counts: 1 day, 2 days, 1,000 breaches."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def listed(names: Iterable[object], most: int = MOST_LINES) -> str:
    """Names with commas between them: the first ones, then how many more there are."""
    shown = [cut(str(name)) for name in names]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text, or its beginning and an ellipsis."""
    return text if len(text) <= most else f"{text[:most]}…"


def quoted(value: object, most: int = MOST_CHARACTERS) -> str:
    """A value as Python writes it, in quotes if it is text, or its beginning and an ellipsis."""
    text = repr(cut(value, most)) if isinstance(value, str) else repr(value)
    return cut(text, 10 * most)


def literal(text: object) -> str:
    """A text as Markdown that shows it and nothing else: no link, no picture, no tag of it works.

    Plain text stays as it is. What could be markup is shown as code, on one line; a backtick in it
    becomes an apostrophe, as it would end the code.
    """
    line = " ".join(str(text).split())
    if not MARKUP.search(line):
        return line
    return f"`{line.replace('`', chr(39)).replace('|', chr(92) + '|')}`"
