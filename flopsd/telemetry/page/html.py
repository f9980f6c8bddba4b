"""HTML without a template engine, which only an extra brings. Text is escaped unless it is markup already."""

from __future__ import annotations

from html import escape

_VOID = ("meta", "link", "br", "rect", "line", "path", "circle")


class Html(str):
    """Markup, made here."""

    __slots__ = ()


def text(*children: object) -> Html:
    """Children one after the other; None is nothing, what is not markup is text."""
    return Html("".join(one if isinstance(one, Html) else escape(str(one)) for one in children if one is not None))


def h(tag: str, *children: object, **attributes: object) -> Html:
    """An element. `cls` is its class; `_` in names stands for `-`; None leaves an attribute out, True makes it bare."""
    named = []
    for name, value in attributes.items():
        name = "class" if name == "cls" else name.strip("_").replace("_", "-")
        if value is True:
            named.append(f" {name}")
        elif value is not None and value is not False:
            named.append(f' {name}="{escape(str(value))}"')
    inner = text(*children)
    if tag in _VOID:
        return Html(f"<{tag}{''.join(named)}>" if tag in ("meta", "link", "br") else f"<{tag}{''.join(named)}/>")
    return Html(f"<{tag}{''.join(named)}>{inner}</{tag}>")
