"""`push`."""

from __future__ import annotations

import argparse
import os

from flopsd.cli.common import FAILED, OK, PUSH_KEYS, Verbs, add_settings, be_nice, settings_of
from flopsd.errors import ConfigError
from flopsd.settings.push_targets import parse_target
from flopsd.settings.schema import BY_KEY
from flopsd.system.clock import SystemClock


def add(verbs: Verbs) -> None:
    push = verbs.add_parser(
        "push",
        help="push the metrics of a daemon that cannot be scraped",
        description="Reads the /metrics of a running daemon and pushes them until SIGTERM. Not needed with `run` "
        "and `exec`, which push by themselves when they have --push.",
    )
    add_settings(push, [BY_KEY[key] for key in PUSH_KEYS])
    where = push.add_mutually_exclusive_group()
    where.add_argument(
        "--url",
        default="http://127.0.0.1:10188",
        help="address of the daemon, or https://USER:PASSWORD@HOST:PORT (default: %(default)s)",
    )
    where.add_argument("--fed", action="store_true", help=argparse.SUPPRESS)  # the daemon writes the metrics to stdin
    push.set_defaults(run=_push)


def _push(arguments: argparse.Namespace) -> int:
    be_nice()  # before loading anything large
    from flopsd.telemetry.push.pusher import run_fed, run_scraping

    settings, clock = settings_of(arguments), SystemClock()
    targets = [parse_target(text) for text in settings.pushes]
    if not targets:
        raise ConfigError(["push: no receiver was given"], hint="give --push, such as pushgateway+http://HOST:9091")
    if arguments.fed:
        succeeded = run_fed(targets, os.environ, clock)
    else:
        succeeded = run_scraping(arguments.url, settings.push_every_seconds, targets, os.environ, clock)
    return OK if succeeded else FAILED
