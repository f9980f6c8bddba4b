"""`make mutate-ledgers`: tens of thousands of mutants through `flopsd verify`, with those that were believed,
crashed, or took too much time or memory."""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from flopsd.cli import verify
from flopsd.cli.parser import Parser
from flopsd.core.envelope import parse_envelope
from flopsd.errors import ConfigError, FlopsdError
from tests.fuzz.mutants import FAMILIES, JOURNAL, KEY, LEDGER, Mutant, mutant
from tests.second_implementation import verify as second
from tests.second_implementation.laws import Refused
from tests.support.process import FLOPSD, environment
from tests.support.tamper import reason_class

SHARES = {"bytes": 10, "records": 12, "statement": 6, "signatures": 3, "log": 6, "peaks": 4, "policy": 4, "merged": 6,
          "children": 4, "files": 1}  # fmt: skip
MAX_SECONDS, MAX_BYTES, ADDRESS_SPACE, HANGS_SECONDS = 5, 256 << 20, 1 << 30, 120
VERIFIED, USAGE, NOT_VERIFIED = 0, 2, 3
J = dict[str, Any]


@dataclass
class Count:
    """Counts of one family, or of a part of one."""

    mutants: int = 0
    believed: int = 0
    others: int = 0  # of the believed ones, ledgers with other figures, made by the holder of the key
    seconds: float = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Count) -> Count:
        return Count(
            self.mutants + other.mutants, self.believed + other.believed, self.others + other.others,
            max(self.seconds, other.seconds), max(self.bytes, other.bytes), self.faults + other.faults,
            self.reasons + other.reasons,
        )  # fmt: skip


class Bench:
    """Puts mutants in a folder and verifies each in this process, with the code behind the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mutant"
        self._parser = Parser()
        self._parser.set_defaults(quiet=False)
        verify.add(self._parser.add_subparsers(dest="verb"))

    def lay(self, one: Mutant) -> list[str]:
        """Put the mutant in place; returns its arguments for `flopsd`."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name, content in one.files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content) if isinstance(content, bytes) else content(path)
        named = [
            option if option.startswith("-") or option.isdecimal() else str(self.folder / option)
            for option in one.options
        ]
        if one.base.policy is not None and "--policy" not in named:
            named += ["--policy", str(one.base.policy)]
        if "--peaks" not in named:
            named += ["--peaks", str(one.base.peaks)]
        return ["verify", str(self.folder / LEDGER), "--key", str(self.folder / KEY), *named]

    def verify(self, arguments: list[str]) -> tuple[int, str]:
        """Exit code and output: standard output, then remarks."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                parsed = self._parser.parse_args(arguments)
                code, fault = int(parsed.run(parsed)), ""
            except ConfigError:
                code, fault = USAGE, ""
            except FlopsdError as refusal:
                code, fault = 1, repr(refusal)
        return code, f"{out.getvalue()}{err.getvalue()}{fault}"

    def judge(self, family: str, number: int, *, by_command: bool = False) -> Count:
        """Verify a mutant; with `by_command` by the real command too, which must give the same result in little
        memory."""
        one = mutant(family, number)
        arguments, found = self.lay(one), Count(1)
        as_json = ["--json"] if number % 2 or one.law == "merged" or family == "log" else []
        _reset_peak()
        begin = time.perf_counter()
        try:
            code, out = self.verify([*arguments, *as_json])
        except BaseException:  # noqa: BLE001  MemoryError and SystemExit are crashes too
            code, out = -1, traceback.format_exc()
        found.seconds, found.bytes = time.perf_counter() - begin, _peak_bytes()
        problems = []
        if code not in (VERIFIED, USAGE, NOT_VERIFIED):
            problems.append(f"crashed: exit {code}: {out[-1500:]}")
        if not all(char.isprintable() or char == "\n" for char in out):
            problems.append("crashed: it prints what moves a cursor")
        if code == VERIFIED:
            found.believed = 1
            try:
                wrong, other = self.wrong(one, _first_json(out) if as_json else {})
                problems += [f"forged: {wrong}"] if wrong else []
                found.others += other
            except Exception:  # noqa: BLE001  the second implementation refuses what the first believed
                problems.append(
                    f"forged: the second implementation does not accept it: {traceback.format_exc()[-1500:]}"
                )
        elif as_json and code == NOT_VERIFIED:
            found.reasons[reason_class(_first_json(out)["reason"].replace(str(self.folder), ""))] += 1
        if found.seconds > MAX_SECONDS:
            problems.append(f"slow: {found.seconds:.1f} s")
        if found.bytes > MAX_BYTES:
            problems.append(f"large: {found.bytes >> 20} MB")
        if by_command and (seen := _command(arguments)) != code:
            problems.append(f"crashed: the command exits with {seen}, in process it was {code}")
        found.faults = [f"{family} {number}: {problem}" for problem in problems]
        return found

    def wrong(self, one: Mutant, facts: J) -> tuple[str, bool]:
        """The fault in believing it, if any; and whether its content differs from the original's."""
        payload = parse_envelope((self.folder / LEDGER).read_bytes()).payload
        genuine = {parse_envelope(pair.ledger).payload: pair.journal for pair in (one.base.honest, *one.base.others)}
        if one.law == "never":
            return "it must not be believed", True
        if one.law == "merged" or not genuine[parse_envelope(one.base.honest.ledger).payload]:
            return self._wrong_merge(one, facts, payload, genuine)
        journal = (self.folder / JOURNAL).read_bytes()
        signed = json.loads(payload)
        size = int(signed["predicate"]["method"]["journal"]["bytes"])
        if one.law == "sealed":
            if payload not in genuine:
                return "another payload is believed", True
            if journal[:size] != genuine[payload][:size]:
                return "another journal is believed", True
        elif journal[: one.base.anchored_bytes] != one.base.honest.journal[: one.base.anchored_bytes]:
            return "the log is contradicted", True
        for end in ("first", "last") if facts.get("anchors") else ():
            if facts["anchors"][end]["headSha256"].encode() not in journal:
                return "a checkpoint line is believed that is not on the chain", True
        return self._second_opinion(one), payload not in genuine

    def _wrong_merge(self, one: Mutant, facts: J, payload: bytes, genuine: Mapping[bytes, bytes]) -> tuple[str, bool]:
        if one.law == "sealed":
            return ("" if payload in genuine else "another payload is believed"), False
        predicate = json.loads(payload)["predicate"]
        if opinion := self._second_opinion(one):
            return opinion, True
        honest = {entry["sha256"]: entry for entry in json.loads(next(iter(genuine)))["predicate"]["children"]}
        recomputed = (facts.get("children") or {}).get("recomputed", 0)
        whole = self._whole(one)
        if recomputed > len(whole):
            return f"{recomputed} children are said to be recomputed, {len(whole)} are as they were", True
        same = [entry for entry in predicate["children"] if entry["sha256"] in whole]
        # Only the merger says who signed a child: the child's keys are not available when the merged ledger is
        # verified.
        if recomputed and any(
            {**entry, "keyids": honest[entry["sha256"]]["keyids"]} != honest[entry["sha256"]] for entry in same
        ):
            return "the entry of a recomputed child is not what its journal gives", True
        return "", payload not in genuine

    def _second_opinion(self, one: Mutant) -> str:
        """The second implementation's objection to it, apart from signatures; empty if it has none."""
        peaks, policies = self.folder / "table.yaml", [self.folder / "policy.yaml", one.base.policy]
        peaks.write_bytes(one.peaks or one.base.peaks.read_bytes())
        known = tuple(path for path in policies if path is not None and path.exists())
        asked = second.Asked(self.folder / LEDGER, [], 0, (peaks, one.base.peaks), known, allow_replay=True)
        try:
            second.verify_one(asked.ledger, asked, signed=False)
        except Refused as refused:
            return f"the second implementation refuses it: {refused.code} {refused.path}"
        return ""

    def _whole(self, one: Mutant) -> set[str]:
        """Payload digests of the children present in any folder with their own journal."""
        found = set()
        for name, data in one.children.items():
            if name.endswith(LEDGER):
                payload, journal = parse_envelope(data).payload, one.children[name.replace(LEDGER, JOURNAL)]
                for path in self.folder.rglob(f"*{LEDGER}"):
                    beside = path.with_name(JOURNAL)
                    if _payload(path) == payload and beside.exists() and beside.read_bytes().startswith(journal):
                        found.add(sha256(payload).hexdigest())
        return found


def _payload(path: Path) -> bytes | None:
    try:
        return parse_envelope(path.read_bytes()).payload
    except FlopsdError:
        return None


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _first_json(out: str) -> J:
    found: J = json.JSONDecoder().raw_decode(out)[0]
    return found


def _command(arguments: list[str]) -> int:
    """The exit code of the real command in 256 MB of address space."""
    done = subprocess.run(
        [*FLOPSD, *arguments], env=environment(None), capture_output=True, text=True, timeout=HANGS_SECONDS, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES)),
    )  # fmt: skip
    return -1 if "Traceback" in done.stderr else done.returncode


def judge(family: str, numbers: Iterable[int], every: int = 0) -> Count:
    """Judge some mutants of a family, one in `every` also by the command."""
    with tempfile.TemporaryDirectory(
        prefix="flopsd-mutants-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as folder:
        bench, found = Bench(Path(folder)), Count()
        for number in numbers:
            faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)  # a hang ends the worker and shows its stack
            found += bench.judge(family, number, by_command=bool(every) and number % every == 0)
        faulthandler.cancel_dump_traceback_later()
        return found


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.ledgers", description=__doc__)
    parser.add_argument("--mutants", type=int, default=56_000, help="of all families together (default 56,000)")
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first of each family: others than last time"
    )
    parser.add_argument("--every", type=int, default=200, help="one in so many goes through the command too")
    parser.add_argument("--only", nargs="*", default=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    total, faults = Count(), list[str]()
    print(
        f"{'family':12}{'mutants':>9}{'refused':>9}{'believed':>9}{'reasons':>9}{'forged':>8}{'crashed':>8}{'> 5 s':>7}{'slowest s':>11}{'most MB':>9}"
    )
    with ProcessPoolExecutor(args.workers, initializer=_limit) as pool:
        for family in args.only:
            end = args.first + args.mutants * SHARES[family] // sum(SHARES.values())
            parts = [range(begin, min(begin + 100, end)) for begin in range(args.first, end, 100)]
            count = sum(pool.map(judge, [family] * len(parts), parts, [args.every] * len(parts)), Count())
            total, faults = total + count, faults + count.faults
            print(_row(family, count), flush=True)
    print(_row("all", total))
    print("".join(f"\n{fault}" for fault in faults[:50]))
    sys.exit(bool(faults))


def _row(name: str, count: Count) -> str:
    kinds = Counter(fault.split(": ")[1] for fault in count.faults)
    return (
        f"{name:12}{count.mutants:>9,}{count.mutants - count.believed:>9,}{count.believed:>9,}{len(count.reasons):>9}"
        f"{kinds['forged']:>8}{kinds['crashed']:>8}{kinds['slow']:>7}{count.seconds:>11.2f}{count.bytes >> 20:>9}"
    )


if __name__ == "__main__":
    main()
