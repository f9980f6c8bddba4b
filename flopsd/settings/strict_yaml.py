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

    fields = _Fields(name)
    try:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(data)
        node = loader.get_single_node()
        if node is None:
            return None, [], {}
        fields.visit(node)
        return loader.construct_document(node), fields.problems, fields.lines
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as fault:
        # Impossible dates, long numbers, `!!bool x`, `!!int _` and `!!timestamp x` raise errors other than YAMLError.
        words = " ".join(str(fault).replace(' in "<byte string>",', " at").split())
        return None, [f"{name}: not YAML: {words}"], fields.lines


class _Fields:
    """The line of every field of a document, and its duplicate keys as problems."""

    def __init__(self, name: str) -> None:
        self.lines: dict[str, int] = {}
        self.problems: list[str] = []
        self._name, self._visited = name, set[int]()

    def visit(self, node: Any, path: str = "", within: frozenset[int] = frozenset()) -> None:
        """Visit each node once, however many aliases refer to it. Raises ValueError for one that contains itself."""
        if id(node) in within:
            raise ValueError(f"line {node.start_mark.line + 1}: an alias refers to a node that contains it")
        if id(node) in self._visited:
            return
        self._visited.add(id(node))
        within |= {id(node)}
        if node.id == "mapping":
            first: dict[str, int] = {}
            for key, value in node.value:
                text, line = str(getattr(key, "value", key)), key.start_mark.line + 1
                at = f"{path}.{text}" if path else text
                if text in first:
                    self.problems.append(
                        f"{self._name}: line {line}: {text} is given twice, first on line {first[text]}"
                    )
                first.setdefault(text, line)
                self.lines.setdefault(at, line)
                self.visit(value, at, within)
        elif node.id == "sequence":
            for number, value in enumerate(node.value):
                at = f"{path}[{number}]"
                self.lines[at] = value.start_mark.line + 1
                self.visit(value, at, within)
