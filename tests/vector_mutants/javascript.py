"""Faults of the third implementation, made in the text of `verifier/src`, as those of the second are made in its
syntax tree."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from conformance.vectors import Vector
from tests.support.verifier import VERIFIER
from tests.vector_mutants.faults import Fault, numbered, shortened
from tests.vector_mutants.python import Verdicts

SOURCES = VERIFIER / "src"
# Modules without rules of the format: the page and the code that runs it (no command imports them), and replacements
# of libraries that the second implementation uses.
NO_RULES = (
    "main.js", "given.js", "worker.js", "dom.js", "report.js", "curve.js", "limits.js", "tables.js", "sha256.js",
    "yaml.js",
)  # fmt: skip
MODULES = tuple(path.name for path in sorted(SOURCES.glob("*.js")) if path.name not in NO_RULES)
NOT_RULES = {"shown", "writeJson", "showing"}
OTHER = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "===": "!==", "!==": "===", "&&": "||", "||": "&&", "+": "-", "-": "+",
    "*": "+", "/": "*", "+=": "-=", "-=": "+=",
}  # fmt: skip
COMPARISONS = ("<", "<=", ">", ">=", "===", "!==")
SWAPPED = {"some": "every", "every": "some", "min": "max", "max": "min"}
_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<number>\d\w*)"""
    r"""|(?P<name>[\w$]+)|(?P<mark>===|!==|\*\*|=>|<=|>=|&&|\|\||\?\?=?|\?\.|\+\+|--|\+=|-=|\.\.\.|<<|>>|.)""",
    re.S,
)
_REGEX = re.compile(r"/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\n])+/\w*")
_FUNCTION = re.compile(
    r"^(?: *(?:export |async )*function\*? ([\w$]+)|  (?:async |\*)?([\w$]+)\(.*\) \{$|(?:export )?const ([\w$]+) = )",
    re.M,
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
Token = tuple[str, str, int]  # kind, text, begin


def tokens(source: str) -> list[Token]:
    """The tokens without space and comments; a template and a regular expression are one token each."""
    found: list[Token] = []
    at = 0
    while at < len(source):
        if source[at] == "`":
            end = _template_end(source, at)
            found.append(("text", source[at:end], at))
        elif source[at] == "/" and source[at : at + 2] not in ("//", "/*") and _begins_a_value(found):
            match = _REGEX.match(source, at)
            assert match is not None, source[at : at + 40]
            end = match.end()
            found.append(("text", match[0], at))
        else:
            match = _TOKEN.match(source, at)
            assert match is not None
            end = match.end()
            if match.lastgroup != "space":
                found.append((str(match.lastgroup), match[0], at))
        at = end
    return found


def _template_end(source: str, at: int) -> int:
    at += 1
    while source[at] != "`":
        if source[at] == "\\":
            at += 1
        elif source[at : at + 2] == "${":
            depth, at = 1, at + 2
            while depth:
                if source[at] == "`":
                    at = _template_end(source, at)
                    continue
                depth += (source[at] == "{") - (source[at] == "}")
                at += 1
            continue
        at += 1
    return at + 1


def _begins_a_value(before: list[Token]) -> bool:
    """Whether the next token is an operand rather than an operator."""
    if not before:
        return True
    kind, text, _ = before[-1]
    return (kind == "mark" and text not in (")", "]", "}")) or text in ("return", "of", "in", "case", "throw")


def faults() -> list[Fault]:
    return [fault for module in MODULES for fault in faults_of(module)]


def faults_of(module: str) -> Iterator[Fault]:
    return numbered(_found_in(module))


def _found_in(module: str) -> Iterator[tuple[str, str, str, str, str, int, tuple[int, int, str]]]:
    source = (SOURCES / module).read_text()
    found = tokens(source)
    lines = source.splitlines()
    left_out = set(_no_rules(found))
    functions = [(match.start(), match[1] or match[2] or match[3]) for match in _FUNCTION.finditer(source)]
    functions = [one for one in functions if one[1] not in ("for", "if", "while", "switch")]
    for at, token in enumerate(found):
        function = next((name for start, name in reversed(functions) if start <= token[2]), "")
        if at in left_out or function in NOT_RULES:
            continue
        for kind, start, end, text in _changes(source, found, at):
            number = source.count("\n", 0, token[2]) + 1
            was = shortened(source[start:end])
            yield (
                module,
                function,
                kind,
                f"{was} -> {shortened(text)}",
                lines[number - 1].strip(),
                number,
                (start, end, text),
            )


def _no_rules(found: list[Token]) -> Iterator[int]:
    """Tokens of thrown errors, of imports, and of the messages of checks."""
    for at, (_, text, _) in enumerate(found):
        if text in ("throw", "import"):
            yield from range(at, _end_of_statement(found, at))
        elif text == "new" and found[at + 1][1] == "Refusal":
            yield from range(at, _closing(found, at + 2))
        elif _is_check(found, at):
            comma = next((one for one in _commas(found, at + 1)), at)
            yield from range(comma, _closing(found, at + 1))


def _is_check(found: list[Token], at: int) -> bool:
    return found[at][1] == "require" and found[at + 1][1] == "(" and found[at - 1][1] not in ("function", ".")


def _closing(found: list[Token], at: int) -> int:
    """The end of the bracket at `at`."""
    depth = 0
    for end in range(at, len(found)):
        text = found[end][1] if found[end][0] == "mark" else ""
        depth += (text in _CLOSING) - (text in _CLOSING.values())
        if depth == 0:
            return end
    raise ValueError(f"{found[at]} has no end")


def _commas(found: list[Token], at: int) -> Iterator[int]:
    """The commas of the list in the bracket at `at`."""
    depth = 0
    for one in range(at, _closing(found, at)):
        text = found[one][1]
        depth += (text in _CLOSING) - (text in _CLOSING.values())
        if text == "," and depth == 1:
            yield one


def _end_of_statement(found: list[Token], at: int) -> int:
    depth = 0
    for end in range(at, len(found)):
        text = found[end][1] if found[end][0] == "mark" else ""
        depth += (text in _CLOSING) - (text in _CLOSING.values())
        if (text == ";" and depth == 0) or depth < 0:
            return end
    return len(found)


def _changes(source: str, found: list[Token], at: int) -> Iterator[tuple[str, int, int, str]]:
    """The possible changes of a token: kind of fault, begin, end, and the replacement."""
    kind, text, start = found[at]
    end = start + len(text)
    before = found[at - 1] if at else ("mark", ";", 0)
    after = found[at + 1] if at + 1 < len(found) else ("mark", ";", 0)
    if kind == "number" and re.fullmatch(r"\d+n?", text):
        yield "one more", start, end, f"{int(text.rstrip('n')) + 1}{'n' * text.endswith('n')}"
    elif kind == "mark" and text in OTHER:
        is_text = "text" in (before[0], after[0]) and text in ("+", "+=")
        if not is_text and not _begins_a_value(found[:at]):
            yield "another comparison" if text in COMPARISONS else "another operator", start, end, OTHER[text]
    elif text == "!" and kind == "mark":
        yield "not left out", start, end, ""
    elif text == "?" and kind == "mark":
        yield from _other_branch(source, found, at)
    elif kind == "name" and text in SWAPPED and after[1] == "(" and before[1] != "function":
        yield "another function", start, end, SWAPPED[text]
    elif _is_check(found, at):
        yield "check left out", start, end, "void "
    elif text == "if" and after[1] == "(":
        close = _closing(found, at + 1)
        inner = source[after[2] + 1 : found[close][2]]
        yield "condition never true", after[2], found[close][2] + 1, f"(false && ({inner}))"


def _other_branch(source: str, found: list[Token], at: int) -> Iterator[tuple[str, int, int, str]]:
    """`a ? b : c` with its branches exchanged."""
    depth, colon, nested = 0, 0, 0
    for one in range(at + 1, len(found)):
        text = found[one][1] if found[one][0] == "mark" else ""
        if depth == 0 and colon and (text in (",", ";") or text in _CLOSING.values()):
            first = source[found[at][2] + 1 : found[colon][2]].strip()
            second = source[found[colon][2] + 1 : found[one][2]].strip()
            yield "the other branch", found[at][2], found[one][2], f"? ({second}) : ({first})"
            return
        depth += (text in _CLOSING) - (text in _CLOSING.values())
        if depth == 0 and not colon:
            nested += text == "?"
            if text == ":":
                colon, nested = (one, nested) if nested == 0 else (0, nested - 1)


@cache
def tree() -> list[Path]:
    return [path for path in VERIFIER.rglob("*") if path.suffix in (".js", ".mjs") or path.name == "package.json"]


def noticing(fault: Fault | None, vectors: Sequence[Vector], expected: Verdicts) -> str | None:
    """The first vector whose verdict the fault changes, None if none does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in tree():
            copy = folder / path.relative_to(VERIFIER)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        if fault is not None:
            start, end, text = fault.change
            source = (SOURCES / fault.module).read_text()
            (folder / "src" / fault.module).write_text(source[:start] + text + source[end:])
        for vector, said in zip(vectors, _verdicts(folder, vectors), strict=False):
            if said != expected[vector.name]:
                return vector.name
        return None


def _verdicts(folder: Path, vectors: Sequence[Vector]) -> Iterator[tuple[int, str | None]]:
    """The verdict of each vector as soon as it arrives; -1 if the program stopped."""
    asked = [{"folder": str(one.folder), "arguments": one.expected["arguments"]} for one in vectors]
    with subprocess.Popen(
        ["node", str(folder / "batch.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        node.stdin.write(json.dumps(asked).encode())
        node.stdin.close()
        try:
            for _ in vectors:
                line = node.stdout.readline()
                if not line:
                    yield -1, None
                    continue
                said = json.loads(line)
                code = json.loads(said["out"]).get("code") if said["status"] != -1 else None
                yield (0 if said["status"] == 5 else said["status"]), code
        finally:
            node.kill()


def baseline(vectors: Sequence[Vector]) -> Verdicts:
    return dict(zip([one.name for one in vectors], _verdicts(VERIFIER, vectors), strict=True))
