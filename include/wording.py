"""Shows lists and values from outside in messages, reports and pages: shortened, and as plain text.

Text from data has no bound: a file may have 20,000 unknown columns, or one whose name is a
megabyte long. People read the first ten, and logs, XComs and reports stay small.
"""

import re
from collections.abc import Iterable, Sequence

MOST_LINES = 10
MOST_CHARACTERS = 100

MARKUP = re.compile(r"[][<>`*~&|\\$]|(^|\W)_|_(\W|$)|://|www\.|@|^\s*([#+-]|\d+[.)])\s")
"""Characters that a dialect of Markdown may read as markup: a link, a picture, a tag."""


def few(lines: Sequence[str], most: int = MOST_LINES) -> list[str]:
    """The first lines of one kind, then the number of the others."""
    rest = len(lines) - most
    return [*lines[:most], f"and {rest:,} more like these"] if rest > 0 else list(lines)


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 day, 2 days, 1,000 breaches."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def listed(names: Iterable[object], most: int = MOST_LINES) -> str:
    """Names separated by commas: the first ones, then the number of the others."""
    shown = [cut(str(name)) for name in names]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text, or its beginning with an ellipsis."""
    return text if len(text) <= most else f"{text[:most]}…"


def quoted(value: object, most: int = MOST_CHARACTERS) -> str:
    """A value as Python writes it (text in quotes), or its beginning with an ellipsis."""
    text = repr(cut(value, most)) if isinstance(value, str) else repr(value)
    return cut(text, 10 * most)


def literal(text: object) -> str:
    """A text as Markdown that shows exactly this text: links, pictures and tags in it do not work.

    Plain text is unchanged. Possible markup is shown as code, on one line; a backtick in it becomes
    an apostrophe, because it would end the code.
    """
    line = " ".join(str(text).split())
    if not MARKUP.search(line):
        return line
    return f"`{line.replace('`', chr(39)).replace('|', chr(92) + '|')}`"
