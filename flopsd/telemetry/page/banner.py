"""The top of the page: the health of the run in one colour and one sentence, and the names of run and node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flopsd.report.html.kit import Html, h
from flopsd.report.html.parts import icon

REFRESH_SECONDS = 10  # without a script; the script fetches the page every two seconds
# Only one state is green.
_TONES = {
    "metering": "good", "starting": "calm", "replay": "calm", "ended": "calm", "some-lost": "warn",
    "unknown-device": "warn", "no-upper-bound": "warn", "source-down": "warn",
}  # fmt: skip
_ICONS = {"good": "up", "calm": "none", "warn": "down", "bad": "down"}


def banner(health: Mapping[str, Any]) -> Html:
    """The banner. The script marks the page `stale` if the daemon does not answer."""
    tone = _TONES.get(health["state"], "bad")
    return h(
        "aside",
        h("span", icon(_ICONS[tone]), cls="fresh"),
        h("span", icon("grave"), cls="old"),
        h("p", h("strong", health["sentence"], id="sentence", role="status"), h("span", id="age")),
        cls=f"banner tone-{tone}",
        id="banner",
        data_state=health["state"],
        aria_label="Health",
    )


def header(facts: Mapping[str, Any]) -> Html:
    at = facts["lastRecordAt"]
    return h(
        "header",
        h("h1", facts["run"]),
        h(
            "p",
            "on ",
            h("span", facts["node"], cls="mono"),
            f", daemon start {facts['daemonStarts']}, last record ",
            "not yet" if at is None else h("time", f"{at[:10]} {at[11:19]} UTC", datetime=at),
            cls="id",
        ),
        h(
            "p",
            h("span", f"Refreshes every {REFRESH_SECONDS} s.", id="freshness", role="status"),
            " ",
            h("button", "Pause", type="button", id="pause", hidden=True),
            cls="freshness",
        ),
        cls="head",
    )
