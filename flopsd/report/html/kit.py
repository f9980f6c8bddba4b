"""The only functions that make HTML, for the report and the live page. Text is escaped unless they made it."""

from __future__ import annotations

import re
from html import escape

from flopsd.report.terminal import one_line

_VOID = ("meta", "link", "br")
_EMPTY = ("rect", "line", "path", "circle")
# Elements between which white space has no meaning: each ends its line, so that pages can be read and compared.
_BLOCKS = re.compile(
    "head|title|style|body|header|main|footer|aside|section|article|nav|div|p|ul|ol|li|dl|dt|dd|table|caption|thead|"
    "tbody|tr|th|td|details|summary|h[1-4]|blockquote|pre"
)
_POWER = re.compile(r"(?<![\w.^])(?:(\d(?:\.\d+)?)x)?10\^(-?\d{1,6})(?!\w|\.\d)")
_GROUP = re.compile(r"(?<=\d) (?=\d{3}(?!\w))")
_UNIT = re.compile(r"(?<=[\d⁰¹²³⁴⁵⁶⁷⁸⁹]) (?=%|[TP]?FLOP\b)")
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_TIMES, _NARROW, _KEPT = "\N{MULTIPLICATION SIGN}", "\N{NARROW NO-BREAK SPACE}", "\N{NO-BREAK SPACE}"


class Html(str):
    """Markup made by this module."""

    __slots__ = ()


def text(*children: object) -> Html:
    """The children joined; None is skipped, and everything that is not markup is escaped text."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(typeset(one_line(child)))
            for child in children
            if child is not None
        )
    )


def verbatim(characters: str) -> Html:
    """Unchanged text, such as a command to copy."""
    return Html(escape(characters))


def typeset(words: str) -> str:
    """Typographic numbers, each kept on one line: `1.23x10^24 FLOP` gets a multiplication sign and an exponent."""
    words = _POWER.sub(_power, _GROUP.sub(_NARROW, words))
    return _UNIT.sub(_KEPT, words)


def _power(match: re.Match[str]) -> str:
    mantissa = f"{match[1]}{_KEPT}{_TIMES}{_KEPT}" if match[1] else ""
    return f"{mantissa}10{match[2].translate(_SUPERSCRIPTS)}"


def h(tag: str, *children: object, **attributes: object) -> Html:
    """An element. `cls` is its class; `_` in names stands for `-`. None leaves an attribute out; True adds no value."""
    named = []
    for name, value in attributes.items():
        name = "class" if name == "cls" else name.strip("_").replace("_", "-")
        if value is True:
            named.append(f" {name}")
        elif value is not None and value is not False:
            named.append(f' {name}="{escape(str(value))}"')
    start = f"<{tag}{''.join(named)}"
    if tag in _VOID:
        return Html(f"{start}>\n")
    if tag in _EMPTY:
        return Html(f"{start}/>")
    end = "\n" if _BLOCKS.fullmatch(tag) else ""
    return Html(f"{start}>{text(*children)}</{tag}>{end}")
