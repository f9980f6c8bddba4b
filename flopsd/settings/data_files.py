"""The data files that a ledger names by digest, the peak table and the policies: packaged ones and those given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from flopsd.core.peaks import PeakTable
from flopsd.core.policy.policy_file import Policy
from flopsd.core.policy.policy_reader import HINT, policy_from
from flopsd.errors import ConfigError, PeakTableError, PolicyError
from flopsd.settings.strict_yaml import read_yaml, read_yaml_lines
from flopsd.system.regular_files import read_at_most
from flopsd.system.sha256 import hex_sha256

MAX_BYTES = 1 << 20  # of a peak table or a policy
DEFAULT_POLICY = "eu-ai-act"
_ROWS = b"\naccelerators:\n"


def config_dir() -> Path:
    """The packaged config folder: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "_config"
    return packaged if packaged.is_dir() else package.parent / "config"


def verifier_page() -> Path:
    """The page that verifies a ledger in a browser: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "_verifier" / "index.html"
    return packaged if packaged.is_file() else package.parent / "verifier" / "index.html"


class Tables:
    """Peak tables and policies by digest: packaged ones, old versions included, and those in the given files."""

    def __init__(self, peaks_files: Sequence[str] = (), policy_files: Sequence[str] = ()) -> None:
        """`policy_files`: names of packaged policies among them are as good as not given.

        Raises ConfigError for a given file that does not exist.
        """
        self._peaks_files = tuple(Path(file) for file in peaks_files)
        self._policy_files = own_policies(policy_files)
        missing = [str(path) for path in (*self._peaks_files, *self._policy_files) if not path.is_file()]
        if missing:
            raise ConfigError([f"{path}: no such file" for path in missing], hint="give --peaks and --policy files")
        self._peaks: dict[str, PeakTable] = {}
        self._policies: dict[str, Policy] = {}
        self._is_packaged: dict[str, bool] = {}

    def peaks(self, sha256: str, beside: Path | None = None) -> PeakTable:
        """As `find_peaks`. `beside`: what came with the ledger, which is named to the user and never used.

        Raises PeakTableError.
        """
        if sha256 not in self._peaks:
            self._peaks[sha256] = find_peaks(sha256, self._peaks_files, beside)
        return self._peaks[sha256]

    def is_packaged(self, sha256: str) -> bool:
        """As the function of this name; the files are read once."""
        if sha256 not in self._is_packaged:
            self._is_packaged[sha256] = is_packaged(sha256)
        return self._is_packaged[sha256]

    def file_of(self, sha256: str) -> Path | None:
        """The given file with this digest; None: none has it."""
        given = (*self._peaks_files, *self._policy_files)
        return next((path for path in given if _has_digest(path, sha256)), None)

    def policies(self, sha256s: Iterable[str]) -> tuple[Policy, ...]:
        """As `find_policy`, of each. Raises PolicyError."""
        found = []
        for sha256 in sha256s:
            if sha256 not in self._policies:
                self._policies[sha256] = find_policy(sha256, self._policy_files)
            found.append(self._policies[sha256])
        return tuple(found)


def load_peaks(file: str | None = None) -> PeakTable:
    """The packaged peak table, or the one in `file`. Raises PeakTableError."""
    return parse_peaks(*read_peaks(file))


def read_peaks(file: str | None = None) -> tuple[bytes, str]:
    """The bytes of the packaged peak table, or of that in `file`, and its path. Raises PeakTableError."""
    path = Path(file) if file is not None else config_dir() / "peaks.yaml"
    return _read_peaks(path), str(path)


def with_rows(data: bytes, rows: Mapping[str, bytes]) -> bytes:
    """The packaged peak table `data` with rows of plug-ins, which are YAML lists, by source, before its own.

    The same rows give the same bytes, whatever else the plug-ins hold. Raises PeakTableError where the result would not
    be the table with exactly these rows more.
    """
    added, expected = [], []
    for source in sorted(rows):
        lines = rows[source].splitlines()
        indent = next((len(line) - len(line.lstrip()) for line in lines if line.lstrip().startswith(b"- ")), 0)
        added += [b"  # Rows of the plug-in %s:" % source.encode()]
        added += [b"  " + (line[indent:] if not line[:indent].strip() else line) for line in lines]
        expected += read_yaml(rows[source], source)[0]
    combined = data.replace(_ROWS, _ROWS + b"\n".join(added) + b"\n", 1)
    if len(combined) > MAX_BYTES:
        raise PeakTableError(f"with them the table has more than {MAX_BYTES} bytes")
    found, problems = read_yaml(combined, "")
    table, _ = read_yaml(data, "")
    if problems or found != {**table, "accelerators": expected + table["accelerators"]}:
        raise PeakTableError("they are no plain YAML list, with a dash for each row, such as config/peaks.yaml has")
    return combined


def parse_peaks(data: bytes, name: str) -> PeakTable:
    """The peak table in `data`. Raises PeakTableError."""
    document, problems = read_yaml(data, name)
    if problems or not isinstance(document, dict):
        raise PeakTableError("; ".join(problems) or f"{name}: not a mapping")
    return PeakTable.from_data(document, hex_sha256(data))


def find_peaks(sha256: str, candidates: Sequence[Path] = (), beside: Path | None = None) -> PeakTable:
    """The peak table with this digest: a packaged one, old ones included, or one of `candidates`; never `beside`.

    Raises PeakTableError when none has it.
    """
    for path in (*candidates, *_packaged_tables()):
        if path.exists() and hex_sha256(data := _read_peaks(path)) == sha256:
            return parse_peaks(data, str(path))
    if beside is not None and _has_digest(beside, sha256):
        raise PeakTableError(
            f"the run was rated by a peak table that is not flopsd's own: {beside}, SHA-256 {sha256}",
            hint="it came with the ledger, and its rates are the sender's: every FLOP follows from them; read it, and "
            f"accept it by hand with --peaks {beside}",
        )
    raise PeakTableError(
        f"flopsd has no peak table with SHA-256 {sha256}",
        hint="give --peaks the table that the run was metered with; every FLOP follows from its rates",
    )


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        return hex_sha256(read_at_most(path, MAX_BYTES)) == sha256
    except OSError:
        return False


def _read_peaks(path: Path) -> bytes:
    try:
        return read_at_most(path, MAX_BYTES)
    except OSError as fault:
        raise PeakTableError(f"cannot read the peak table {path}: {fault.strerror}") from fault


def is_packaged(sha256: str) -> bool:
    """Whether this version of flopsd contains the peak table or policy with this digest."""
    packaged = (*_packaged_tables(), *_packaged_policies(), *_packaged_policies("policies/old"))
    return any(map(partial(_has_digest, sha256=sha256), packaged))


def _packaged_tables() -> list[Path]:
    return [config_dir() / "peaks.yaml", *sorted((config_dir() / "peaks").glob("*.yaml"))]


def load_policies(chosen: Sequence[str] = ()) -> tuple[Policy, ...]:
    """The policies that are chosen, by the name of a packaged one or by file; none chosen: that of the EU AI Act.

    In order of their ids. Raises PolicyError with every problem of every file.
    """
    problems: list[str] = []
    found: dict[str, Policy] = {}
    for name in chosen or (DEFAULT_POLICY,):
        path = packaged_policies().get(name, Path(name))
        try:
            policy = parse_policy(read_policy(path), str(path))
        except PolicyError as fault:
            problems += fault.problems
            continue
        if policy.id in found:
            problems.append(f"{path}: policy {policy.id} is given twice")
        found[policy.id] = policy
    if problems:
        raise PolicyError(problems, hint=f"packaged policies: {', '.join(packaged_policies())}; {HINT}")
    return tuple(found[name] for name in sorted(found))


def own_policies(chosen: Sequence[str]) -> tuple[Path, ...]:
    """The files among the policies that are chosen: all but the packaged ones, which are given by name."""
    return tuple(Path(name) for name in chosen if name not in packaged_policies())


def packaged_policies() -> dict[str, Path]:
    """The packaged policies by name, which is their id."""
    return {path.stem: path for path in _packaged_policies()}


def parse_policy(data: bytes, name: str) -> Policy:
    """The policy in `data`. Raises PolicyError; each problem names file and line."""
    document, problems, lines = read_yaml_lines(data, name)
    if problems:
        raise PolicyError(problems, hint=HINT)
    try:
        return policy_from(document, hex_sha256(data), lines)
    except PolicyError as fault:
        raise PolicyError([f"{name}: {problem}" for problem in fault.problems], hint=fault.hint) from fault


def find_policy(sha256: str, candidates: Iterable[Path] = ()) -> Policy:
    """The policy with this digest: a packaged one, old ones included, or one of `candidates`.

    Raises PolicyError when none has it.
    """
    for path in (*candidates, *_packaged_policies(), *_packaged_policies("policies/old")):
        if path.exists() and hex_sha256(data := read_policy(path)) == sha256:
            return parse_policy(data, str(path))
    raise PolicyError(
        [f"there is no policy with SHA-256 {sha256}"], hint="give --policy the file that the ledger was sealed with"
    )


def _packaged_policies(folder: str = "policies") -> list[Path]:
    return sorted((config_dir() / folder).glob("*.yaml"))


def read_policy(path: Path) -> bytes:
    """The bytes of a policy's file. Raises PolicyError."""
    try:
        return read_at_most(path, MAX_BYTES)
    except OSError as fault:
        raise PolicyError([f"{path}: cannot be read: {fault.strerror}"]) from fault
