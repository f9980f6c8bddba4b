"""Text for a terminal: ASCII, 80 columns, no colour. Other modules choose the contents; this one formats the lines."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

COLUMNS = 80
TABLE_COLUMNS = 100
LABEL = 12  # columns for the names of facts
# No line break may separate groups of digits, or a number and its unit.
_ONE_NUMBER = re.compile(r"(?<=\d) (?=\d{3}(?!\w)|%|(?:[kM]?Wh|[TP]?FLOP(?:/s)?|J|ms|s|min|h|days|years|times)\b)")
_KEPT = "\N{NO-BREAK SPACE}"  # cannot be in a text: `one_line` escapes it


def one_line(text: object) -> str:
    """Text from a ledger or a log as one printable line: it must not move the terminal's cursor or imitate our text."""
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in whole)


def named(text: object) -> str:
    """A name in a sentence: in quotes if it contains a space, so that it cannot pass for part of the sentence."""
    shown = one_line(text)
    if shown and " " not in shown:
        return shown
    escaped = shown.replace("'", r"\x27")
    return f"'{escaped}'"


def shell_command(words: Iterable[str]) -> str:
    """A command to copy into a shell: printable, but with exactly the same words. Names may come from an archive."""
    return " ".join(shlex.quote(word) if word.isprintable() else _spelled(word) for word in words)


def folded(command: str) -> list[str]:
    """A command of `shell_command`, indented, on several lines if it is too long for one."""
    if len(command) + 2 <= COLUMNS or "$(" in command:
        return [f"  {command}"]
    lines = [""]
    for word in shlex.split(command):
        if word.startswith("--") and len(lines[-1]) > COLUMNS // 2:
            lines.append("")
        lines[-1] += f" {shlex.quote(word)}"
    return (" " + " \\\n   ".join(lines)).split("\n")


def _spelled(word: str) -> str:
    """A shell word with escapes for characters that a terminal acts on or that are special to the shell or printf."""
    spelled = "".join(
        char if char.isprintable() and char not in "\\'" else "".join(f"\\0{byte:03o}" for byte in os.fsencode(char))
        for char in word
    )
    return f"\"$(printf %b '{spelled}')\""


def counted(count: int, noun: str, several: str = "") -> str:
    """`1 device`, `2 devices`. `several`: the plural, if it is not the noun with an s."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def capital(words: str) -> str:
    """The words with a capital letter; `str.capitalize` would make the other letters small."""
    return words[:1].upper() + words[1:]


def sentence(words: str) -> str:
    """The words with a capital letter, and a full stop unless they end in a punctuation mark; empty stays empty."""
    return capital(words) + ("" if not words or words.endswith((".", "!", "?")) else ".")


def wrapped(text: str, indent: str = "", first: str | None = None, columns: int = COLUMNS) -> list[str]:
    """Lines of at most `columns`, if the words allow. `first`: the indent of the first line."""
    first = indent if first is None else first
    whole = _ONE_NUMBER.sub(_KEPT, text)
    lines = textwrap.wrap(
        whole, columns, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    return [_within(line.replace(_KEPT, " "), columns) for line in lines] or [first.rstrip()]


def _within(line: str, columns: int) -> str:
    """A line, with less indent if one long word, such as a digest, makes it too long."""
    words = line.lstrip()
    return line if len(line) <= columns else words.rjust(columns)


def fact(name: str, value: str, label: int = LABEL, columns: int = COLUMNS) -> list[str]:
    """Name and value on one line, or the value below the name if the name or a word of the value is long."""
    fits = max(map(len, value.split()), default=0) <= columns - label
    if len(name) > label - 2 or not fits:
        below = wrapped(value, " " * label if fits else "    ", columns=columns) if value else ()
        return [*wrapped(name), *below]
    return wrapped(value, " " * label, f"{name:<{label}}", columns)


def facts(rows: Iterable[tuple[str, str]], label: int = LABEL, columns: int = COLUMNS) -> Iterator[str]:
    """The lines of several facts; a repeated name is shown once."""
    before = None
    for name, value in rows:
        yield from fact("" if name == before else name, value, label, columns)
        before = name


def stated(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The facts that have a value."""
    return [row for row in rows if row[1]]


def title(text: str) -> list[str]:
    return ["", text, "-" * len(text)]


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines with columns as wide as their widest cell. `right`: the numbers of right-aligned columns."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return [
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def tables(rows: Sequence[Sequence[str]], columns: int = TABLE_COLUMNS) -> list[str]:
    """A table of names and columns; the first row holds the headings. If it is wider than `columns`, it is split into
    several tables below each other. A name too long to leave room for the columns has its own line."""
    widths = [max(map(len, column)) for column in zip(*(row[1:] for row in rows if len(row) > 1), strict=True)]
    room = columns - max(widths) - 2
    label = max((len(row[0]) for row in rows if len(row) > 1 and len(row[0]) <= room), default=0)
    lines: list[str] = []
    begin = 0
    while begin < len(widths):
        end = begin + 1
        while end < len(widths) and label + sum(2 + width for width in widths[begin : end + 1]) <= columns:
            end += 1
        lines += [""] if lines else []
        for name, *cells in rows:
            if not cells or len(name) > room:
                lines += wrapped(name.strip(), "    ", " " * (len(name) - len(name.lstrip())))
            if cells:
                kept = ["" if len(name) > room else name, *cells[begin:end]]
                padded = (cell.ljust(width) for cell, width in zip(kept, (label, *widths[begin:end]), strict=True))
                lines.append("  ".join(padded).rstrip())
        begin = end
    return lines


def shown(lines: Iterable[str]) -> str:
    """The text to print. Text of a ledger, a journal or a log must reach a terminal only through this function."""
    return "".join(f"{one_line(line)}\n" for line in lines)
