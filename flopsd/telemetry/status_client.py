"""Read the status of a run from a state folder, whether or not its daemon runs, or from a daemon's address."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flopsd.core.companions import PEAKS, POLICY
from flopsd.core.ledger.history import History
from flopsd.core.ledger.history_from_records import extend
from flopsd.core.ledger.run_view import view_of
from flopsd.core.values import is_timestamp
from flopsd.errors import FlopsdError, JournalDamagedError, JournalError, StorageError
from flopsd.journal.delivery_note import read_deliveries
from flopsd.journal.framing import GENESIS
from flopsd.journal.reading import newest_pending, read_live
from flopsd.journal.segments import BETWEEN_SEGMENTS, closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.settings.data_files import Tables
from flopsd.settings.platform import default_state_dir
from flopsd.system.file_presence import is_file
from flopsd.telemetry.bounded_http import daemon_request, fetch
from flopsd.telemetry.status import SCHEMA, status_of_journal


def from_state_dir(
    folder: str | None, environment: Mapping[str, str], peaks_file: str | None = None, policy_files: Sequence[str] = ()
) -> dict[str, Any]:
    """The status of the run in a state folder. Raises JournalError if there is none."""
    state = StateDir(Path(folder) if folder else default_state_dir(environment))
    if not is_file(state.journal):
        if closed_segments(state) and state.is_held():
            raise JournalError(f"the run in {state.path} is just being rotated", hint="ask again")
        if closed_segments(state):
            why = "its daemon was killed after it closed one and before it began the next"
            raise JournalError(f"no segment of the run in {state.path} is open: {why}", hint=BETWEEN_SEGMENTS)
        raise JournalError(f"there is no journal in {state.path}", hint="give --state-dir the folder of `flopsd run`")
    history, head = History(), GENESIS
    for line in read_live(state.journal):
        extend(history, line.record())
        head = line.head
    if not history.incarnations:
        raise JournalError(
            f"the journal in {state.path} holds no complete record yet", hint="ask again once the daemon has started"
        )
    peaks_files = [] if peaks_file is None else [peaks_file]
    tables = Tables(
        peaks_files=state.data_files(PEAKS, peaks_files), policy_files=state.data_files(POLICY, policy_files)
    )
    table = tables.peaks(str(history.incarnations[-1].begin["peak_table_sha256"]))
    before = view_of(history, table, whole_run=True), history.incarnations[-1].last_ns
    pending = newest_pending(state.pending, head)
    if pending is not None:
        extend(history, pending)
    if not is_timestamp(utc := history.incarnations[-1].last_utc):
        raise JournalDamagedError(f"no daemon wrote the journal in {state.path}: {utc!r:.60} is not a time")
    view = view_of(history, table, tables.policies(history.policy_sha256), whole_run=True)
    try:
        undelivered = sum(bool(one.undelivered) for one in read_deliveries(state.deliveries))
    except StorageError:
        undelivered = None
    return status_of_journal(history, view, before, held=state.is_held(), undelivered=undelivered)


def from_url(url: str) -> dict[str, Any]:
    """The status from a running daemon. The URL may contain user and password. Raises FlopsdError."""
    request = daemon_request(url.rstrip("/") + "/api/status")
    shown = request.full_url.removesuffix("/api/status")
    try:
        status = json.loads(fetch(request, 5.0, 4 << 20))
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as fault:
        if isinstance(fault, urllib.error.HTTPError):
            fault.close()
        why = fault.reason if type(fault) is urllib.error.URLError else fault
        reason = why.strerror if isinstance(why, OSError) and why.strerror else why
        raise FlopsdError(f"cannot read {shown}: {reason}", hint=_hint(fault)) from fault
    if not isinstance(status, dict) or status.get("schema") != SCHEMA:
        hint = "use the same version of flopsd as the daemon"
        raise FlopsdError(f"{shown} is not a flopsd daemon of this version", hint=hint)
    return status


def _hint(fault: Exception) -> str:
    cause = fault.reason if isinstance(fault, urllib.error.URLError) else fault
    if isinstance(fault, urllib.error.HTTPError) and 300 <= fault.code < 400:
        return f"give the address that it redirects to: {fault.headers.get('Location', 'unknown')!r:.200}"
    if isinstance(fault, urllib.error.HTTPError) and fault.code == 401:
        return "it requires a password: https://USER:PASSWORD@HOST:PORT"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "name the authority that signed its certificate: SSL_CERT_FILE=ca.crt flopsd status …"
    return "is the daemon running, and is this its --listen address?"
