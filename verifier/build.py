"""Makes verifier/src/tables.js and verifier/index.html: `python -m verifier.build`. `--check`: are they as built?"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCES = HERE / "src"
TABLES = SOURCES / "tables.js"
PAGE = HERE / "index.html"
REPORT = ROOT / "flopsd" / "report"
DOCUMENT = ROOT / "docs" / "you-received-a-ledger.md"
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+)\.js";\n', re.M)
_EXPORTED = re.compile(r"^export (?:async )?(?:function\*?|class|const) ([A-Za-z_$][\w$]*)", re.M)
_LISTED = re.compile(r"^export \{([^}]*)\};\n", re.M)
_COMMENT = re.compile(r"^ *(?:/\*\*(?:(?!\*/).)*\*/|//[^\n]*)\n", re.M | re.S)


def shipped() -> dict[str, list[dict[str, Any]]]:
    """The peak tables and policies of flopsd, each with the SHA-256 of its YAML file."""
    peaks = [*sorted((ROOT / "config").glob("peaks*.yaml")), *sorted((ROOT / "config" / "peaks").glob("**/*.yaml"))]
    policies = sorted((ROOT / "config" / "policies").glob("**/*.yaml"))
    return {"peaks": [_read(path) for path in peaks], "policies": [_read(path) for path in policies]}


def tables() -> str:
    content = json.dumps(shipped(), ensure_ascii=True, separators=(",", ":"))
    head = "// Made by verifier/build.py of the peak tables and policies in config/: do not edit.\n"
    return f"{head}export const SHIPPED = {json.dumps(content)};\n"


def page() -> str:
    script = _script()
    style = "".join(path.read_text() for path in (REPORT / "report.css", REPORT / "print.css", SOURCES / "page.css"))
    style = style.replace("RUNNING-HEADER", "flopsd ledger, shown by verifier/index.html")
    text = (SOURCES / "page.html").read_text()
    hashed = f"script-src '{_hash(script)}'; style-src '{_hash(style)}'"
    # The thread that verifies has this page's own script, and its policy: no request leaves it either.
    policy = f"default-src 'none'; {hashed}; worker-src blob:; base-uri 'none'; form-action 'none'"
    for mark, content in (("POLICY", policy), ("STYLE", style), ("SCRIPT", script)):
        before, found, after = text.partition(f"@{mark}@")
        if not found:
            raise SystemExit(f"page.html has no @{mark}@")
        text = before + content + after
    return text


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "content": _plain(yaml.safe_load(data))}


def _plain(value: Any) -> Any:
    """Numbers with a point as the text that they are written as: the verifier computes with whole numbers alone."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return repr(value) if isinstance(value, float) else value


def _ordered(name: str, done: dict[str, str]) -> None:
    if name in done:
        return
    text = tables() if name == "tables" else (SOURCES / f"{name}.js").read_text()
    done[name] = ""  # a circle would show as a name that is used before it is there
    for _, needed in _IMPORT.findall(text):
        _ordered(needed, done)
    del done[name]
    done[name] = text


def _script() -> str:
    """Each module as a function that returns what it exports, so that none sees another's names."""
    modules: dict[str, str] = {}
    _ordered("main", modules)
    parts = []
    for name, text in modules.items():
        taken = "".join(f"const {{{names}}} = {_variable(source)};\n" for names, source in _IMPORT.findall(text))
        given = ", ".join(
            [*_EXPORTED.findall(text), *(one.strip() for one in ",".join(_LISTED.findall(text)).split(",") if one)]
        )
        body = re.sub(
            r"^export (?=async |function|class|const)", "", _LISTED.sub("", _IMPORT.sub("", text)), flags=re.M
        )
        body = _COMMENT.sub("", body).strip()
        parts.append(f"const {_variable(name)} = (() => {{\n{taken}{body}\nreturn {{ {given} }};\n}})();\n")
    script = '"use strict";\n' + "".join(parts)
    if "</script" in script:
        raise SystemExit("a script that ends itself")
    return script


def _variable(name: str) -> str:
    return f"{name}Module"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def documented() -> str:
    """The page of documentation that names the verifier's digest, with that of this build."""
    digest = hashlib.sha256(page().encode()).hexdigest()
    return re.sub(r"(?<=^    )\S+(?=  verifier/index\.html$)", digest, DOCUMENT.read_text(), count=1, flags=re.M)


def main(arguments: Iterable[str]) -> int:
    made = {TABLES: tables(), PAGE: page(), DOCUMENT: documented()}
    if "--check" in arguments:
        stale = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
        print("\n".join(stale))
        return 1 if stale else 0
    for path, text in made.items():
        path.write_text(text)
    print(hashlib.sha256(made[PAGE].encode()).hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
