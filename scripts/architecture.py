"""`make docs`: writes docs/images/architecture.svg, the diagram of docs/architecture.md, from the data below."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "architecture.svg"

# name: (column, row, title, description or location of the code). Boxes outside flopsd have no room.
BOXES = {
    "driver": (0, 0, "driver", "or exporter"),
    "source": (1, 0, "source", "sources/"),
    "meter": (2, 0, "meter", "core/meter.py"),
    "writer": (3, 0, "writer", "daemon/writing/writer.py"),
    "snapshot": (4, 0, "snapshot", "telemetry/"),
    "readers": (5, 0, "metrics, page, push", "telemetry/"),
    "training": (1, 1, "training process", "client/"),
    "sessions": (2, 1, "sessions", "daemon/"),
    "journal": (3, 1, "journal", "journal/"),
    "seal": (4, 1, "seal", "attestation/"),
    "ledger": (5, 1, "ledger", "envelope, journal, key"),
    "verify": (3, 2, "verify", "attestation/"),
    "merge": (4, 2, "merge", "attestation/merge/"),
    "report": (5, 2, "report", "report/"),
}
OUTSIDE = {"driver", "training"}
# from, to, what passes along the arrow
ARROWS = (
    ("driver", "source", "counters"),
    ("source", "meter", "Reading"),
    ("meter", "writer", "Tally"),
    ("writer", "snapshot", "Snapshot"),
    ("snapshot", "readers", ""),
    ("training", "sessions", "facts"),
    ("sessions", "writer", "phases"),
    ("writer", "journal", "records"),
    ("journal", "seal", "History"),
    ("seal", "ledger", "statement"),
    ("ledger", "verify", ""),
    ("ledger", "merge", ""),
    ("ledger", "report", ""),
)
WIDTH, HEIGHT, STEP_X, STEP_Y, MARGIN = 150, 54, 222, 112, 12
STYLE = (
    "text{font-family:sans-serif;font-size:14px;fill:#1a1a1a;text-anchor:middle}"
    ".small{font-size:12px;fill:#555}.box{fill:#eef3f9;stroke:#31597f}"
    ".outside{fill:#fff;stroke:#777;stroke-dasharray:4 3}"
    "line{stroke:#31597f;stroke-width:1.5;marker-end:url(#tip)}"
)


class Point(NamedTuple):
    x: int
    y: int


def corner(name: str) -> Point:
    """The upper left corner of a box."""
    column, row, *_ = BOXES[name]
    return Point(MARGIN + column * STEP_X, MARGIN + row * STEP_Y)


def ends(start: str, end: str) -> tuple[Point, Point]:
    """Start and end of an arrow: between the sides of boxes in one row, otherwise between bottom and top."""
    a, b = corner(start), corner(end)
    if a.y == b.y:
        return Point(a.x + WIDTH, a.y + HEIGHT // 2), Point(b.x - 2, b.y + HEIGHT // 2)
    down = a.y < b.y
    shift = 0 if a.x == b.x else WIDTH // 3 if a.x < b.x else -WIDTH // 3
    leave = Point(a.x + WIDTH // 2 + shift, a.y + HEIGHT * down)
    return leave, Point(b.x + WIDTH // 2 - shift, b.y - 2 if down else b.y + HEIGHT + 2)


def picture() -> str:
    """The SVG. It has its own background, so that it is legible on a dark page."""
    parts = []
    for start, end, what in ARROWS:
        a, b = ends(start, end)
        parts.append(f'<line x1="{a.x}" y1="{a.y}" x2="{b.x}" y2="{b.y}"/>')
        if what:
            beside = 28 if a.x == b.x else -30 if a.y != b.y else 0
            parts.append(
                f'<text class="small" x="{(a.x + b.x) // 2 + beside}" y="{(a.y + b.y) // 2 - 7}">{what}</text>'
            )
    for name, (_, _, title, where) in BOXES.items():
        x, y = corner(name)
        kind = "outside" if name in OUTSIDE else "box"
        middle = x + WIDTH // 2
        parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>')
        parts.append(f'<text x="{middle}" y="{y + 23}">{escape(title)}</text>')
        parts.append(f'<text class="small" x="{middle}" y="{y + 42}">{escape(where)}</text>')
    columns, rows = max(box[0] for box in BOXES.values()), max(box[1] for box in BOXES.values())
    width = 2 * MARGIN + columns * STEP_X + WIDTH
    height = 2 * MARGIN + rows * STEP_Y + HEIGHT
    flow = "; ".join(f"{start} to {end}" + (f": {what}" if what else "") for start, end, what in ARROWS)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>Data flow of flopsd</title><desc>{escape(flow)}</desc><style>{STYLE}</style>",
            '<defs><marker id="tip" markerWidth="9" markerHeight="9" refX="7" refY="4" orient="auto">'
            '<path d="M0,0L8,4L0,8z" fill="#31597f"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *parts,
            "</svg>",
            "",
        )
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
