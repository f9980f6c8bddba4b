"""MkDocs hook: links from a page to files outside docs/, such as `../config/peaks.yaml`.

In the repository they are plain relative links. The site does not contain those files, so it links to
`extra.source_url` of mkdocs.yml, or shows the path if that is empty. A link to a file that does not exist is a warning,
which fails a strict build.
"""

from __future__ import annotations

import logging
import os.path
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>(?:\.\./)+[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_log = logging.getLogger("mkdocs.hooks.docs_site")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: object) -> str:
    """The page's text, with its links to files outside docs/ replaced; MkDocs calls this for each page."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
    return replace_links(markdown, folder, config.extra.get("source_url", ""))


def replace_links(markdown: str, folder: str, source_url: str) -> str:
    """`markdown` with links out of docs/ replaced; `folder` is the page's, from the repository root: `docs/adr`."""

    def replace(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found["target"]))
        if target.startswith("docs/"):
            return found[0]
        if not os.path.lexists(ROOT / target):
            _log.warning("%s: the link to %s leads to no file", folder, target)
        if source_url:
            return f"[{found['text']}]({source_url.rstrip('/')}/{target}{found['anchor'] or ''})"
        text = found["text"].strip("`")
        return f"`{target}`" if target.endswith(text) else f"{text} (`{target}`)"

    return _LINK.sub(replace, markdown)
