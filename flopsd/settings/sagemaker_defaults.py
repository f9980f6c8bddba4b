"""Defaults of settings in a SageMaker training job, according to which of its files SageMaker keeps.

When the job ends, the output folders of all hosts become one archive. The checkpoint folder is copied to S3 while the
job runs, and back to the machine of the next attempt. All hosts share both, so file names include the host's name.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from flopsd.settings.platform import SAGEMAKER, Context
from flopsd.settings.schema import Settings
from flopsd.system.file_presence import is_folder

KEPT = "flopsd/{run}/{node}.json"  # jobs of one model often share a checkpoint folder


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
        ledger=str(root / "opt/ml/output/data/flopsd/{node}.json") if settings.ledger is None else settings.ledger,
        ledger_copies=copies,
        metric_line_seconds=60.0 if settings.metric_line_seconds is None else settings.metric_line_seconds,
        stop_window_seconds=120.0 if settings.stop_window_seconds is None else settings.stop_window_seconds,
    )


def checkpoint_folder(root: Path) -> Path | None:
    """The folder that SageMaker syncs with S3 while the job runs; None if the job has none."""
    try:
        config: Any = json.loads((root / "opt/ml/input/config/checkpointconfig.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        config = None
    local = config.get("LocalPath") if isinstance(config, dict) else None
    if isinstance(local, str) and local.startswith("/"):
        return root / local.lstrip("/")
    folder = root / "opt/ml/checkpoints"
    return folder if config is not None or is_folder(folder) else None
