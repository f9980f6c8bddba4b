"""Parsers of single settings: convert a YAML or text value, or raise ValueError, which says what is expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from flopsd.core.declarations import MAX_TEXT
from flopsd.core.values import parse_flop
from flopsd.settings.evidence_kinds import KINDS
from flopsd.settings.locations import parse_location
from flopsd.settings.push_targets import parse_target
from flopsd.settings.suggestions import did_you_mean

MAX_UID_DIGITS = 10  # of a 32-bit number
_LISTEN = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):(?P<first>[0-9]{1,5})(-(?P<last>[0-9]{1,5}))?")


def parse_listen(text: str) -> tuple[str, range]:
    """`host:port` or `host:first-last` as host and ports; the first free port is used. Raises ValueError."""
    match = _LISTEN.fullmatch(text)
    if match:
        first, last = int(match["first"]), int(match["last"] or match["first"])
        if last <= 65535 and (first == last or 0 < first < last):
            return match["host"].strip("[]"), range(first, last + 1)
    raise ValueError("expected HOST:PORT or HOST:FIRST-LAST, such as 127.0.0.1:10188 or [::1]:10188-10251")


def text(value: object) -> str:
    if not value:
        raise ValueError("expected text; to have the default, leave the setting out")
    if not isinstance(value, str):
        raise ValueError("expected text; in YAML put it in quotes")
    return value


def line(value: object) -> str:
    """A text that ledgers state, in their form: white space, including line ends, counts as one space."""
    words = " ".join(text(value).split())
    if not words or len(words) > MAX_TEXT or not words.isprintable():
        raise ValueError(f"expected text of at most {MAX_TEXT} printable characters")
    return words


def path(value: object) -> str:
    """A path that is created if missing. One that only a shell would expand is refused."""
    if text(value).startswith("~"):
        raise ValueError("~ is not expanded here: write the whole path")
    return text(value)


def text_or_number(value: object) -> str:
    return str(value) if type(value) is int and value >= 0 else text(value)


def or_off(parse: Callable[[object], Any], off: Any = None) -> Callable[[object], Any]:
    """`parse` for a setting that can also be `off`, which YAML reads as false; its value is `off` then."""
    return lambda value: off if _is_off(value) or value == off else parse(value)


def _is_off(value: object) -> bool:
    """The text `false` is what Helm makes of YAML's."""
    return value is False or value in ("off", "false")


text_or_off = or_off(text, "off")
path_or_none = or_off(path)


def _items(
    value: object, expected: str, separator: str | None = None, fits: Callable[[Any], object] = text
) -> tuple[str, ...]:
    """The items of a list in YAML or of the command line, or of a text with `separator`, or blanks, between them.
    Raises ValueError unless all of them `fits`."""
    found = [part.strip() for part in value.split(separator)] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(map(fits, found)):
        raise ValueError(f"expected {expected}")
    return tuple(map(str, found))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _require_unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"{what} twice")


def uids(value: object) -> tuple[int, ...]:
    """Numeric user ids: a list in YAML, `1000,1001` as text."""
    found = _items(
        [value] if isinstance(value, int) else value,
        "numbers of users, such as 1000,1001; `id -u NAME` prints one",
        ",",
        lambda one: not isinstance(one, bool) and len(str(one)) <= MAX_UID_DIGITS and str(one).isdecimal(),
    )
    return tuple(sorted(set(map(int, found))))


def seconds(low: float, high: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError("expected a number of seconds")
        try:
            number = float(value)
        except ValueError:
            raise ValueError("expected a number of seconds, without a unit") from None
        if not low <= number <= high:
            raise ValueError(f"expected between {low:g} and {high:.10g} seconds")
        return number

    return parse


def seconds_or_off(low: float, high: float) -> Callable[[object], float | None]:
    """Seconds; None for `off`, for 0, and for false, as YAML reads `off`."""
    number = seconds(low, high)
    return lambda value: None if _is_off(value) or value in ("0", 0) else number(value)


def seconds_or_zero(low: float, high: float) -> Callable[[object], float]:
    """Seconds; zero for `off`. Used where None means that the platform decides."""
    number = seconds_or_off(low, high)
    return lambda value: number(value) or 0.0


_ROTATION = re.compile(r"([0-9]{1,12})(s|m|h|d|kB|MB|GB)", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "kB": 10**3, "MB": 10**6, "GB": 10**9}
LEAST_ROTATION_SECONDS, LEAST_ROTATION_BYTES = 60, 10_000


def parse_rotation(text: str) -> tuple[int | None, int | None]:
    """The age in seconds or the size in bytes at which a journal is rotated. Raises ValueError."""
    match = _ROTATION.fullmatch(text)
    if match is None:
        raise ValueError("expected an age such as 12h or 1d, or a size such as 256MB")
    amount, unit = int(match[1]) * _UNITS[match[2]], match[2]
    if unit.endswith("B"):
        if amount < LEAST_ROTATION_BYTES:
            raise ValueError(f"expected at least {LEAST_ROTATION_BYTES // 1000}kB")
        return None, amount
    if not LEAST_ROTATION_SECONDS <= amount <= 86400 * 400:
        raise ValueError(f"expected between {LEAST_ROTATION_SECONDS}s and 400d")
    return amount, None


def _rotation(value: object) -> str:
    parse_rotation(amount := str(value) if type(value) is int else text(value))
    return amount


rotate_every = or_off(_rotation)  # an age or a size with its unit


def count_or_all(value: object) -> int | None:
    """A number of at least one; None for `all`."""
    if value is None or value == "all":
        return None
    if isinstance(value, bool) or not re.fullmatch("[1-9][0-9]{0,8}", str(value)):
        raise ValueError("expected a whole number of at least 1, or all")
    return int(str(value))


_OTHER_FILES = re.compile(r".*\.(pub|pem|jsonl|lock)|lock|open-run|(deliveries|newest-seal|restored|refused-pin)\.json")


def location(value: object) -> str:
    """A path, or the address of an S3 object. The names of flopsd's other files (journal, keys, files next to a ledger)
    are refused, since the ledger would replace them."""
    name = PurePosixPath(str(parse_location(path(value)))).name
    if _OTHER_FILES.fullmatch(name):
        raise ValueError(f"flopsd uses the name {name} for another of its files: choose one such as ledger.json")
    return path(value)


def locations(value: object) -> tuple[str, ...]:
    expected = "a list of locations, each once, such as [s3://bucket/key.json]"
    found = _items(value, expected)
    if len(set(found)) != len(found):
        raise ValueError(f"expected {expected}")
    return tuple(map(location, found))


def pushes(value: object) -> tuple[str, ...]:
    found = _items(value, "a list of receivers, such as [pushgateway+http://127.0.0.1:9091]")
    _require_unique("a receiver is named", [parse_target(one).name for one in found])
    return found


def sources(value: object) -> tuple[str, ...]:
    names = _items(value or "", "a list of source names, such as [nvml]", ",", _is_text)
    _require_unique("a source is named", names)
    return names


def flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise ValueError("expected true or false")


def _listen(value: object) -> str:
    parse_listen(address := str(value) if type(value) is int else text(value))
    return address


listen = or_off(_listen)  # HOST:PORT


def run_id(value: object) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", text(value)):
        raise ValueError("expected at most 128 letters, digits, '.', '_' or '-', beginning with a letter or digit")
    return text(value)


def one_of(kind: type[Enum]) -> Callable[[object], str | None]:
    """A parser for one of an enumeration's values; None for `undeclared`."""

    def parse(value: object) -> str | None:
        if value is None or value == "undeclared":
            return None
        known = [member.value for member in kind]
        if value not in known:
            close = did_you_mean(str(value), [*known, "undeclared"])
            raise ValueError(f"expected one of {', '.join(known)}, or undeclared{close}")
        return str(value)

    return parse


def flop_or_unknown(value: object) -> int | str | None:
    """An exact FLOP count, or `unknown`, which is an assertion; None for `undeclared`."""
    if value in ("unknown", "undeclared", None):
        return "unknown" if value == "unknown" else None
    found = parse_flop(value)
    # The truth may be twice an estimate, and a run's work is added to it: counts in ledgers are below 1e40.
    if not 0 < found < 10**39:
        raise ValueError("expected a positive number of FLOP below 1e39, or unknown")
    return found


def files(value: object) -> tuple[str, ...]:
    """Policies: files, or names of packaged ones."""
    return _items(value, "a list of policies, such as [eu-ai-act, /etc/flopsd/policy.yaml]", fits=_is_text)


def _evidence(value: object) -> tuple[str, ...]:
    kinds = _items(value or "", f"off, or some of {', '.join(KINDS)}", ",", KINDS.__contains__)
    _require_unique("a kind is given", kinds)
    return kinds


evidence = or_off(_evidence, ())


def output(value: object) -> str:
    """stdout, stderr or off; `off` also where YAML reads it as false."""
    value = "off" if _is_off(value) else value
    if value not in ("stdout", "stderr", "off"):
        raise ValueError("expected stdout, stderr or off")
    return str(value)


def url(value: object) -> str:
    try:
        if isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
            urlsplit(value).port  # noqa: B018  # reading it checks it
            return value
    except ValueError:
        pass
    raise ValueError("expected a URL such as http://127.0.0.1:9400/metrics, with a port up to 65535")
