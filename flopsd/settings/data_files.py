"""The data files that ledgers name by digest: peak tables and policies, packaged or given by the user."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from flopsd.core.companions import MAX_COMPANION_BYTES, PEAKS, POLICY, companion_name
from flopsd.core.peak_reader import peak_table_from
from flopsd.core.peaks import PeakTable
from flopsd.core.policy.policy_file import Policy
from flopsd.core.policy.policy_reader import HINT, policy_from
from flopsd.errors import ConfigError, PeakTableError, PolicyError
from flopsd.settings.strict_yaml import read_yaml, read_yaml_lines
from flopsd.system.file_presence import exists
from flopsd.system.regular_files import read_at_most, unfit
from flopsd.system.sha256 import hex_sha256

DEFAULT_POLICY = "eu-ai-act"
_ROWS = b"\naccelerators:\n"
# By kind of companion: its name, its role, a caution about its author, and which file to give.
_COMPANION_WORDS = {
    PEAKS: ("peak table", "the run was rated by", "its rates are the sender's: every FLOP follows from them",
            "the table that the run was metered with; every FLOP follows from its rates"),
    POLICY: ("policy", "the ledger was judged by", "its rules are the sender's: every finding by it follows from them",
             "the file that the ledger was sealed with; every finding by it follows from its rules"),
}  # fmt: skip


@cache
def config_dir() -> Path:
    """The packaged config folder: inside an installed wheel, or next to the package in a checkout."""
    return _shipped("_config", "config")


def verifier_page() -> Path:
    """The page that verifies a ledger in a browser: inside an installed wheel, or next to the package in a checkout."""
    return _shipped("_verifier/index.html", "verifier/index.html")


def _shipped(in_wheel: str, in_checkout: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    packaged = package / in_wheel
    return packaged if exists(packaged) else package.parent / in_checkout


class Tables:
    """Peak tables and policies by digest: packaged ones, including old versions, and given files."""

    def __init__(self, *, peaks_files: Sequence[str] = (), policy_files: Sequence[str] = ()) -> None:
        """`policy_files` may contain names of packaged policies, which have no effect. Raises ConfigError for a given
        file that is missing, or not a regular file."""
        self._peaks_files = tuple(Path(file) for file in peaks_files)
        self._policy_files = own_policies(policy_files)
        faults = [f"{path}: {why}" for path in (*self._peaks_files, *self._policy_files) if (why := unfit(path))]
        if faults:
            raise ConfigError(faults, hint="give --peaks and --policy files")
        self._peaks: dict[str, PeakTable] = {}
        self._policies: dict[str, Policy] = {}

    def peaks(self, sha256: str, ledger: Path | None = None) -> PeakTable:
        """The given or packaged peak table with this digest. A table that came with `ledger` is reported to the user
        but never used. Raises PeakTableError if no table has the digest."""
        if sha256 not in self._peaks:
            found = _find(sha256, (*self._peaks_files, *_packaged_tables()), _read_peaks)
            if found is None:
                said, hint = _missing(PEAKS, sha256, ledger, self._peaks_files)
                raise PeakTableError(said, hint=hint)
            self._peaks[sha256] = parse_peaks(*found)
        return self._peaks[sha256]

    def given(self, sha256: str) -> tuple[Path, bytes] | None:
        """The given file with this digest, and its bytes; None if there is none."""
        for path in (*self._peaks_files, *self._policy_files):
            try:
                data = read_at_most(path, MAX_COMPANION_BYTES)
            except OSError:
                continue
            if hex_sha256(data) == sha256:
                return path, data
        return None

    def unused(self, used: Iterable[str] = ()) -> list[Path]:
        """The given files that nobody asked for by their digest, and whose digest is not among `used`."""
        asked = {*used, *self._peaks, *self._policies}
        files = (*self._peaks_files, *self._policy_files)
        return [path for path in files if not any(has_digest(path, sha256) for sha256 in asked)]

    def policies(self, sha256s: Iterable[str], ledger: Path | None = None) -> tuple[Policy, ...]:
        """The policies with these digests, found as in `peaks`. Raises PolicyError, which names all missing ones."""
        wanted, missing = list(sha256s), dict[str, PolicyError]()
        for sha256 in wanted:
            if sha256 in self._policies:
                continue
            try:
                self._policies[sha256] = self._policy(sha256, ledger)
            except PolicyError as fault:
                missing[sha256] = fault
        if missing:
            problems = [problem for fault in missing.values() for problem in fault.problems]
            raise PolicyError(problems, hint="; ".join(dict.fromkeys(fault.hint for fault in missing.values())))
        return tuple(self._policies[sha256] for sha256 in wanted)

    def _policy(self, sha256: str, ledger: Path | None) -> Policy:
        packaged = (*_packaged_policies(), *_packaged_policies("policies/old"))
        found = _find(sha256, (*self._policy_files, *packaged), read_policy)
        if found is None:
            said, hint = _missing(POLICY, sha256, ledger, self._policy_files)
            raise PolicyError([said], hint=hint)
        return parse_policy(*found)


def load_peaks(file: str | None = None) -> PeakTable:
    """The packaged peak table, or the one in `file`. Raises PeakTableError."""
    return parse_peaks(*read_peaks(file))


def read_peaks(file: str | None = None) -> tuple[bytes, str]:
    """The bytes of the packaged peak table, or of the one in `file`, and its path. Raises PeakTableError."""
    path = Path(file) if file is not None else config_dir() / "peaks.yaml"
    return _read_peaks(path), str(path)


def with_rows(data: bytes, rows: Mapping[str, bytes]) -> bytes:
    """The packaged peak table `data` with rows of plug-ins inserted before its own; `rows` are YAML lists by source.
    Equal rows give equal bytes, whatever else the plug-ins contain. Raises PeakTableError unless the result is the
    table plus exactly these rows."""
    added, expected = [], []
    for source in sorted(rows):
        lines = rows[source].splitlines()
        indent = next((len(line) - len(line.lstrip()) for line in lines if line.lstrip().startswith(b"- ")), 0)
        added += [b"  # Rows of the plug-in %s:" % source.encode()]
        added += [b"  " + (line[indent:] if not line[:indent].strip() else line) for line in lines]
        expected += read_yaml(rows[source], source)[0]
    combined = data.replace(_ROWS, _ROWS + b"\n".join(added) + b"\n", 1)
    if len(combined) > MAX_COMPANION_BYTES:
        raise PeakTableError(f"with these rows the table has more than {MAX_COMPANION_BYTES} bytes")
    found, problems = read_yaml(combined, "")
    table, _ = read_yaml(data, "")
    if problems or found != {**table, "accelerators": expected + table["accelerators"]}:
        raise PeakTableError("the rows are not a plain YAML list with a dash for each, as in config/peaks.yaml")
    return combined


@lru_cache(maxsize=4)  # the ledgers of a merge, and the seals of a run, name the same few
def parse_peaks(data: bytes, name: str) -> PeakTable:
    """The peak table in `data`. Raises PeakTableError."""
    sha256, problems = hex_sha256(data), list[str]()
    document = _parsed_packaged().get(sha256)
    if document is None:
        document, problems = read_yaml(data, name)
    if problems or not isinstance(document, dict):
        raise PeakTableError("; ".join(problems) or f"{name}: not a mapping")
    try:
        return peak_table_from(document, sha256)
    except PeakTableError as fault:
        raise PeakTableError(f"{name}: {fault}", hint=fault.hint) from fault


def _find(sha256: str, paths: Iterable[Path], read: Callable[[Path], bytes]) -> tuple[bytes, str] | None:
    """Bytes and name of the first of these files with that digest. Raises what `read` raises."""
    for path in paths:
        if exists(path) and hex_sha256(data := read(path)) == sha256:
            return data, str(path)
    return None


def companion_beside(ledger: Path, name: str) -> Path:
    return ledger.parent / f"{ledger.stem}.{name}"


def _missing(kind: str, sha256: str, ledger: Path | None, given: Sequence[Path]) -> tuple[str, str]:
    """The message and hint for a file that flopsd does not ship and that is none of the `given` ones."""
    what, did, whose, which = _COMPANION_WORDS[kind]
    absent, give = f"flopsd has no {what} with SHA-256 {sha256}", f"give --{kind} {which}"
    another = f", which is not that of {' or '.join(map(str, given))}" if given else ""
    absent += another
    beside = None if ledger is None else companion_beside(ledger, companion_name(kind, sha256))
    if beside is None or not os.path.lexists(beside):
        return absent, give
    try:
        found = hex_sha256(read_at_most(beside, MAX_COMPANION_BYTES))
    except OSError as fault:
        return f"{absent}; {beside} does not match: {fault.strerror}", give
    if found != sha256:
        return f"{absent}; {beside} does not match: its SHA-256 is {found}", give
    return (
        f"{did} a {what} that is not flopsd's own: {beside}, SHA-256 {sha256}{another}",
        f"it came with the ledger, and {whose}; read it, then accept it with --{kind} {beside}",
    )


def has_digest(path: Path, sha256: str) -> bool:
    """Whether the path is a regular file with this digest, no larger than a peak table or policy may be."""
    try:
        return hex_sha256(read_at_most(path, MAX_COMPANION_BYTES)) == sha256
    except OSError:
        return False


def _read_peaks(path: Path) -> bytes:
    try:
        return read_at_most(path, MAX_COMPANION_BYTES)
    except OSError as fault:
        why = f"cannot read the peak table {path}: {fault.strerror}"
        raise PeakTableError(why, hint="give --peaks the path of a readable file") from fault


def is_packaged(sha256: str) -> bool:
    """Whether this version of flopsd contains the peak table or policy with this digest."""
    return sha256 in _parsed_packaged()


def packaged_files() -> list[Path]:
    """The peak tables and policies that this version of flopsd ships, including old versions."""
    return [*_packaged_tables(), *_packaged_policies(), *_packaged_policies("policies/old")]


@cache
def _parsed_packaged() -> Mapping[str, Any]:
    """The parsed `packaged_files` by SHA-256, written by scripts/parsed_yaml.py: parsing the YAML takes 10 ms."""
    found: Mapping[str, Any] = json.loads((config_dir() / "parsed.json").read_bytes())
    return found


def _packaged_tables() -> list[Path]:
    return [config_dir() / "peaks.yaml", *sorted((config_dir() / "peaks").glob("*.yaml"))]


def load_policies(chosen: Sequence[str] = ()) -> tuple[Policy, ...]:
    """The policies of `read_policies`, without their bytes."""
    return tuple(policy for policy, _ in read_policies(chosen))


def read_policies(chosen: Sequence[str]) -> tuple[tuple[Policy, bytes], ...]:
    """The chosen policies, by packaged name or by file, each with the bytes of its SHA-256, in order of their ids. The
    default is the EU AI Act's. Raises PolicyError with every problem of every file."""
    problems: list[str] = []
    found: dict[str, tuple[Policy, bytes]] = {}
    for name in chosen or (DEFAULT_POLICY,):
        path = packaged_policies().get(name, Path(name))
        try:
            data = read_policy(path)
            policy = parse_policy(data, str(path))
        except PolicyError as fault:
            problems += fault.problems
            continue
        if policy.id in found:
            problems.append(f"{path}: policy {policy.id} is given twice")
        found[policy.id] = policy, data
    if problems:
        several = "several: each with its own --policy, or separated by blanks in FLOPSD_POLICY; "
        listed = several if any("," in name for name in chosen) else ""
        raise PolicyError(problems, hint=f"{listed}packaged policies: {', '.join(packaged_policies())}; {HINT}")
    return tuple(found[name] for name in sorted(found))


def own_policies(chosen: Sequence[str]) -> tuple[Path, ...]:
    """The files among the chosen policies: all except packaged ones, which are chosen by name."""
    return tuple(Path(name) for name in chosen if name not in packaged_policies())


def packaged_policies() -> dict[str, Path]:
    """The packaged policies by name; the name is also the id."""
    return {path.stem: path for path in _packaged_policies()}


@lru_cache(maxsize=8)
def parse_policy(data: bytes, name: str) -> Policy:
    """The policy in `data`. Raises PolicyError, in which each problem names file and line."""
    sha256 = hex_sha256(data)
    if sha256 in _parsed_packaged():
        return policy_from(_parsed_packaged()[sha256], sha256, {})
    document, problems, lines = read_yaml_lines(data, name)
    if problems:
        raise PolicyError(problems, hint=HINT)
    try:
        return policy_from(document, sha256, lines)
    except PolicyError as fault:
        raise PolicyError([f"{name}: {problem}" for problem in fault.problems], hint=fault.hint) from fault


def _packaged_policies(folder: str = "policies") -> list[Path]:
    return sorted((config_dir() / folder).glob("*.yaml"))


def read_policy(path: Path) -> bytes:
    """The bytes of a policy file. Raises PolicyError."""
    try:
        return read_at_most(path, MAX_COMPANION_BYTES)
    except OSError as fault:
        raise PolicyError([f"{path}: cannot be read: {fault.strerror}"]) from fault
