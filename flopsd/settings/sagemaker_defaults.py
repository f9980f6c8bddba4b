"""Defaults of settings in a SageMaker training job, by what SageMaker keeps of it.

The output of all hosts becomes one archive when the job ends. The checkpoint folder is copied to S3 while the job runs,
and back to the machine of the next attempt. File names include the host's name, since all hosts share both.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from flopsd.settings.platform import SAGEMAKER, Context
from flopsd.settings.schema import Settings

OUTPUT = "opt/ml/output/data/flopsd/{node}.json"
CHECKPOINTS = "opt/ml/checkpoints"
CHECKPOINT_CONFIG = "opt/ml/input/config/checkpointconfig.json"
KEPT = "flopsd/{run}/{node}.json"  # jobs of one model often share a checkpoint folder
METRIC_LINE_SECONDS = 60.0
STOP_WINDOW_SECONDS = 120.0


def with_defaults(settings: Settings, context: Context, root: Path = Path("/")) -> Settings:
    """`settings` with these defaults in a training job, unchanged elsewhere. `root` is prefixed to every path."""
    if context.platform != SAGEMAKER:
        return settings
    copies = settings.ledger_copies
    folder = checkpoint_folder(root)
    if folder is not None and str(folder / KEPT) not in copies:
        copies = (*copies, str(folder / KEPT))
    return replace(
        settings,
        ledger=str(root / OUTPUT) if settings.ledger is None else settings.ledger,
        ledger_copies=copies,
        metric_line_seconds=_or(settings.metric_line_seconds, METRIC_LINE_SECONDS),
        stop_window_seconds=_or(settings.stop_window_seconds, STOP_WINDOW_SECONDS),
    )


def checkpoint_folder(root: Path = Path("/")) -> Path | None:
    """The folder that SageMaker syncs with S3 while the job runs; None if the job has none."""
    try:
        config: Any = json.loads((root / CHECKPOINT_CONFIG).read_bytes())
    except (OSError, ValueError):
        config = None
    local = config.get("LocalPath") if isinstance(config, dict) else None
    if isinstance(local, str) and local.startswith("/"):
        return root / local.lstrip("/")
    folder = root / CHECKPOINTS
    return folder if config is not None or folder.is_dir() else None


def _or(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given
