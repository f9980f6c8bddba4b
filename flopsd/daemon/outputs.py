"""The outputs of a run while it goes on: checkpoint lines, pushed metrics, the file by which Prometheus finds it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flopsd.settings.platform import scheduler_labels
from flopsd.settings.schema import Settings
from flopsd.system.clock import Clock
from flopsd.system.streams import say
from flopsd.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from flopsd.telemetry.push.feed import Feed
    from flopsd.telemetry.target_file import TargetFile

log = logging.getLogger("flopsd")


def emitter(
    settings: Settings, out: IO[str], err: IO[str], checkpointed: Callable[[], object]
) -> Callable[[str], None]:
    stream = {"stdout": out, "stderr": err, "off": None}[settings.checkpoint_output]

    def emit(line: str) -> None:
        checkpointed()
        if stream is not None and not say(stream, line + "\n"):
            log.warning(
                "a checkpoint line could not be written to %s; checkpoints in the journal are not affected",
                settings.checkpoint_output,
            )

    return emit


def feed_of(settings: Settings, command: Sequence[str], shown: Callable[[], Snapshot], clock: Clock) -> Feed | None:
    """Return the feed that pushes metrics; None, and nothing is imported, if none are pushed."""
    if not settings.pushes or not command:
        return None
    from flopsd.telemetry.push.feed import Feed

    def render() -> bytes:
        from flopsd.telemetry.prometheus import Exposition

        # A new Exposition each time: it keeps a cache, and pushes are rare enough to save that memory instead.
        return Exposition().render(shown(), "")[0]

    return Feed(command, settings.push_every_seconds, render, clock, begins_run=shown().view.start == 1)


def target_file(
    settings: Settings, environment: Mapping[str, str], run: str, node: str, clock: Clock
) -> TargetFile | None:
    if settings.file_sd is None:
        return None
    from flopsd.telemetry.target_file import TargetFile

    return TargetFile(Path(settings.file_sd), run, node, scheduler_labels(environment), clock)
