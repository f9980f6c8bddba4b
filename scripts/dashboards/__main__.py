"""Writes config/grafana/*.json: `python -m scripts.dashboards [FOLDER]`. Needs grafana-foundation-sdk (extra: dev)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from scripts.dashboards import board, fleet, run

GRAFANA = Path(__file__).resolve().parents[2] / "config" / "grafana"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for uid, found in ((board.RUN_UID, run.build()), (board.FLEET_UID, fleet.build())):
        encoded = board.completed(json.loads(JSONEncoder().encode(found.build())))
        (folder / f"{uid}.json").write_text(json.dumps(encoded, sort_keys=True, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GRAFANA)
