"""`seal`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from flopsd.clock import SystemClock
from flopsd.settings import SETTINGS
from flopsd.verbs import OK, SEAL_KEYS, add_settings, settings_of

if TYPE_CHECKING:
    from flopsd.verbs import Verbs


def add(verbs: Verbs) -> None:
    """The verbs of this module."""
    seal = verbs.add_parser(
        "seal",
        help="seal the journal of a state folder into a ledger",
        description="Seals what the journal of a stopped or killed daemon holds.",
    )
    add_settings(seal, [setting for setting in SETTINGS if setting.key in SEAL_KEYS])
    seal.set_defaults(run=_seal)


def _seal(arguments: argparse.Namespace) -> int:
    from flopsd.report import sealed_text
    from flopsd.service import seal_state_dir

    print(sealed_text(seal_state_dir(settings_of(arguments), os.environ, SystemClock())), end="")
    return OK
