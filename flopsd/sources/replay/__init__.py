"""A recording, played in real time: no hardware, and ledger, metrics and terminal say so."""

from __future__ import annotations

from flopsd.core.model import Evidence
from flopsd.settings import parsers
from flopsd.sources import Source, SourceInfo, SourceOption, SourceSettings


def _open(settings: SourceSettings) -> Source:
    from flopsd.sources.replay.source import open_source

    return open_source(settings)


SOURCE = SourceInfo(
    name="replay",
    title="a recording, without hardware",
    open=_open,
    evidence=(Evidence.ACTIVITY, Evidence.UTILIZATION),
    options=(SourceOption("file", "FILE", "recording to play", parsers.text, default_text="the bundled one"),),
    remedy="leave --replay-file out to play the bundled recording",
    hardware=False,
)
