"""Text for a terminal: ASCII, 80 columns, no colour. The renderers lay out; how a line looks is decided here."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

COLUMNS = 80
TABLE_COLUMNS = 100
LABEL = 12  # columns of the names of facts
# What a line break must not part: groups of digits, and a number from its unit.
_ONE_NUMBER = re.compile(r"(?<=\d) (?=\d{3}(?!\w)|%|(?:[kM]?Wh|[TP]?FLOP(?:/s)?|J|ms|s|min|h|days|years|times)\b)")
_KEPT = "\N{NO-BREAK SPACE}"  # `one_line` lets none through


def one_line(text: object) -> str:
    """Text from a ledger or a log as one printable line: it must not move a terminal's cursor or look like ours."""
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in whole)


def named(text: object) -> str:
    """A name in a sentence: in quotes where it has a space, so that none can go on as the sentence does."""
    shown = one_line(text)
    if shown and " " not in shown:
        return shown
    escaped = shown.replace("'", r"\x27")
    return f"'{escaped}'"


def shell_command(words: Iterable[str]) -> str:
    """A command to be copied into a shell. Printable, and the same words still: names may come from an archive."""
    return " ".join(shlex.quote(word) if word.isprintable() else _spelled(word) for word in words)


def folded(command: str) -> list[str]:
    """A command of `shell_command`, indented, on several lines where it is too long for one."""
    if len(command) + 2 <= COLUMNS or "$(" in command:
        return [f"  {command}"]
    lines = [""]
    for word in shlex.split(command):
        if word.startswith("--") and len(lines[-1]) > COLUMNS // 2:
            lines.append("")
        lines[-1] += f" {shlex.quote(word)}"
    return (" " + " \\\n   ".join(lines)).split("\n")


def _spelled(word: str) -> str:
    """A word of a shell with escapes for what a terminal would act on, and for what is special to shell or printf."""
    spelled = "".join(
        char if char.isprintable() and char not in "\\'" else "".join(f"\\0{byte:03o}" for byte in os.fsencode(char))
        for char in word
    )
    return f"\"$(printf %b '{spelled}')\""


def counted(count: int, noun: str, several: str = "") -> str:
    """`1 device`, `2 devices`; `several` is the plural where it is not the noun with an s."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def sentence(words: str) -> str:
    """Words with a capital letter, and a full stop where they have no end; no words stay none."""
    return words[:1].upper() + words[1:] + ("" if not words or words.endswith((".", "!", "?")) else ".")


def wrapped(text: str, indent: str = "", first: str | None = None, columns: int = COLUMNS) -> list[str]:
    """Lines of at most `columns`, if the words allow; `first` stands in place of the first line's indent."""
    first = indent if first is None else first
    whole = _ONE_NUMBER.sub(_KEPT, text)
    lines = textwrap.wrap(
        whole, columns, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    return [_within(line.replace(_KEPT, " "), columns) for line in lines] or [first.rstrip()]


def _within(line: str, columns: int) -> str:
    """A line that one long word, such as a digest, makes too long: with less of its indent."""
    words = line.lstrip()
    return line if len(line) <= columns else words.rjust(columns)


def fact(name: str, value: str, label: int = LABEL, columns: int = COLUMNS) -> list[str]:
    """Name and value side by side, or one below the other where the name or a word of the value is long."""
    fits = max(map(len, value.split()), default=0) <= columns - label
    if len(name) > label - 2 or not fits:
        below = wrapped(value, " " * label if fits else "    ", columns=columns) if value else ()
        return [*wrapped(name), *below]
    return wrapped(value, " " * label, f"{name:<{label}}", columns)


def facts(rows: Iterable[tuple[str, str]], label: int = LABEL, columns: int = COLUMNS) -> Iterator[str]:
    """A name that repeats stands once."""
    before = None
    for name, value in rows:
        yield from fact("" if name == before else name, value, label, columns)
        before = name


def title(text: str) -> list[str]:
    return ["", text, "-" * len(text)]


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Columns as wide as their widest cell; those with the numbers in `right` align to the right."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return [
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def tables(rows: Sequence[Sequence[str]], columns: int = TABLE_COLUMNS) -> list[str]:
    """A table of names and columns, its first row the headings. Where it would be wider than `columns`, its columns
    stand in several tables below each other; a name that leaves them no room has a line of its own."""
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
    """The lines as they are printed. What a ledger, a journal or a log says reaches no terminal by another way."""
    return "".join(f"{one_line(line)}\n" for line in lines)
