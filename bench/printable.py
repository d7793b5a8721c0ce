"""Names that others chose, made safe to print: control characters and terminal escapes become visible, never act.

What must not reach a terminal raw: control characters (an escape sequence may clear the screen or rename the window),
marks that turn the direction of writing, line and paragraph separators, lone surrogates.
"""

from __future__ import annotations

import re

_FORMULA = tuple("=+-@\t\r\n")
_JSON_RAW = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(words: str) -> str:
    r"""Replace every character that cannot be seen by its escape, "\x1b"; blanks of any kind become spaces."""
    if words.isprintable():
        return words
    return "".join(each if each.isprintable() else " " if _is_blank(each) else _escape(each) for each in words)


def printable_lines(text: str) -> str:
    """Do so within each line; lines stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def spreadsheet(words: str) -> str:
    """Give words for a cell of a CSV file: what a spreadsheet would take for a formula is led by an apostrophe."""
    return f"'{printable(words)}" if words.startswith(_FORMULA) else printable(words)


def json_safe(text: str) -> str:
    """Escape in JSON what `json.dumps` leaves raw and a terminal may obey; it reads back as the same value."""
    return _JSON_RAW.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _is_blank(character: str) -> bool:
    return character.isspace() and character not in "\x0b\x0c\x1c\x1d\x1e\x1f\x85\r"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
