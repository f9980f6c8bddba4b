"""What SageMaker keeps of a training job, and what flopsd therefore does there where no setting says otherwise.

Output of all hosts is packed into one archive when the job ends; the checkpoint folder goes to S3 while it runs, and
comes back on the machine of the next attempt. Names of files hold the host's name, since both are shared by all hosts.
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
KEPT = "flopsd/{run}/{node}.json"  # a checkpoint folder is often shared by the jobs of one model
METRIC_LINE_SECONDS = 60.0
STOP_WINDOW_SECONDS = 120.0


def with_defaults(settings: Settings, context: Context, root: Path = Path("/")) -> Settings:
    """`settings` as they are in a training job; unchanged elsewhere. `root` stands before every path."""
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
    """The folder that the platform syncs with S3 while the job runs; None where the job was given none."""
    try:
        told: Any = json.loads((root / CHECKPOINT_CONFIG).read_bytes())
    except (OSError, ValueError):
        told = None
    local = told.get("LocalPath") if isinstance(told, dict) else None
    if isinstance(local, str) and local.startswith("/"):
        return root / local.lstrip("/")
    folder = root / CHECKPOINTS
    return folder if told is not None or folder.is_dir() else None


def _or(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given
