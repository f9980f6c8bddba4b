"""The strict YAML reader of all flopsd files: plain data only; duplicate keys and syntax errors are problems."""

from __future__ import annotations

from typing import Any


def read_yaml(data: bytes, name: str) -> tuple[Any, list[str]]:
    """The document, None if empty, and its problems."""
    document, problems, _ = read_yaml_lines(data, name)
    return document, problems


def read_yaml_lines(data: bytes, name: str) -> tuple[Any, list[str], dict[str, int]]:
    """As `read_yaml`, plus the line of each field by its path, such as `rules[0].title`."""
    import yaml  # takes 6 ms, and metering with packaged files does not need it

    lines: dict[str, int] = {}
    try:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(data)
        node = loader.get_single_node()
        if node is None:
            return None, [], lines
        problems = _duplicate_keys(node, name, set(), set())
        _find_lines(node, "", lines, set())
        return loader.construct_document(node), problems, lines
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as fault:
        # Impossible dates, too many digits, `!!bool x` and `!!timestamp x` raise errors other than YAMLError.
        words = " ".join(str(fault).replace(' in "<byte string>",', " at").split())
        return None, [f"{name}: not YAML: {words}"], lines


def _find_lines(node: Any, path: str, lines: dict[str, int], known: set[int]) -> None:
    """Add the line of every field below a node, visiting each node once, however many aliases refer to it."""
    if id(node) in known:
        return
    known.add(id(node))
    if node.id == "mapping":
        for key, value in node.value:
            at = f"{path}{'.' if path else ''}{getattr(key, 'value', key)}"
            lines.setdefault(at, key.start_mark.line + 1)
            _find_lines(value, at, lines, known)
    elif node.id == "sequence":
        for number, value in enumerate(node.value):
            at = f"{path}[{number}]"
            lines[at] = value.start_mark.line + 1
            _find_lines(value, at, lines, known)


def _duplicate_keys(node: Any, name: str, known: set[int], within: set[int]) -> list[str]:
    """Visit each node once, however many aliases refer to it. Raises ValueError for a node that contains itself."""
    if id(node) in within:
        raise ValueError(f"line {node.start_mark.line + 1}: an alias refers to a node that contains it")
    if id(node) in known:
        return []
    known.add(id(node))
    within = {*within, id(node)}
    problems: list[str] = []
    if node.id == "mapping":
        seen: dict[str, int] = {}
        for key, value in node.value:
            text, line = str(getattr(key, "value", key)), key.start_mark.line + 1
            if text in seen:
                problems.append(f"{name}: line {line}: {text} is given twice, first on line {seen[text]}")
            seen.setdefault(text, line)
            problems += _duplicate_keys(value, name, known, within)
    elif node.id == "sequence":
        for value in node.value:
            problems += _duplicate_keys(value, name, known, within)
    return problems
