"""Stories of one run on a state folder whose file system fails, and whose processes are killed, at any file operation.

Each step of a story runs in a forked process with one fault armed: a daemon that reads, rotates and seals, or `flopsd
seal`, `copy`, `status` or `key new`. Machines are rebooted and replaced. Then the faults stop, the run is finished and
sealed, and the result is compared with the work of the devices by the wall clock, which goes on over boots: nothing is
counted twice or left out, a kill loses no more than one reading, and every ledger verifies. Records that a lost
machine had not copied may be missing, but are not counted twice either. `python -m tests.support.file_faults FIRST
LAST` tells the stories of these seeds.
"""

import ctypes
import errno
import importlib
import logging
import mmap
import os
import pkgutil
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import flopsd.attestation
import flopsd.cli
import flopsd.daemon
import flopsd.report
from flopsd.attestation.ledger_files import journal_beside, public_key_beside
from flopsd.attestation.signing.pem import make_pem
from flopsd.core.ledger.history import Incarnation
from flopsd.core.ledger.open_accounts import has_ended
from flopsd.core.model import Evidence, GapReason, Growth, Pipe, Reading, Sweep
from flopsd.core.tally import Tally
from flopsd.daemon.accounts.source_tracker import Message
from flopsd.daemon.continued_run import continue_run, known_journal, report_to_launcher
from flopsd.daemon.ledgers.closed_segments import seal_left
from flopsd.daemon.ledgers.sealing import seal_own
from flopsd.daemon.recovery.code_secrets import CodeSecrets
from flopsd.daemon.writing.writer import Writer
from flopsd.daemon.writing.writer_settings import WriterSettings
from flopsd.errors import FlopsdError
from flopsd.journal.head import KNOWN_BYTES
from flopsd.journal.journal import Journal
from flopsd.journal.segments import closed_segments
from flopsd.journal.state_dir import StateDir
from flopsd.settings.platform import Context
from flopsd.settings.schema import Settings
from flopsd.system.clock import NS_PER_S
from flopsd.testing import FakeClock
from tests.support.process import in_process
from tests.support.runs import history_of
from tests.support.story import CONTEXT, CYCLES_H100, H100, Second, active, running
from tests.support.strategies import table

SOURCE = Path(__file__).resolve().parents[1] / "standin" / "file_faults.c"
OFF, KILL_BEFORE, KILL_AFTER, FAIL, FAIL_AFTER = range(5)
LOOK, READ, WRITE, SYNC, NAME, LOCK = 1, 2, 4, 8, 16, 32
CHANGES, ALL = WRITE | SYNC | NAME, 63
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
CYCLES = replace(
    CYCLES_H100, uid=CYCLES_H100.uid.replace("0001", "00c1"), index=1, serial="c1", pci_bus_id="00000000:12:00.0"
)
WORK = active(132, 1700, {Pipe.TENSOR_HMMA: 300_000, Pipe.FP32: 7}, doubt=9, swing=40_000)
BEGIN_NS = 1000 * NS_PER_S
BEGIN_WALL_NS = FakeClock(BEGIN_NS).wall_ns()
WALL_NS = 1000  # the journal states the wall clock to this precision
LOST = {"journal_missing", "journal_replaced", "not_continued"}


class Fault(NamedTuple):
    """From file operation `first` on, `many` operations of these `kinds` below a folder go wrong."""

    how: int
    kinds: int
    first: int
    many: int
    code: int
    below: str

    @property
    def is_kill(self) -> bool:
        return self.how in (KILL_BEFORE, KILL_AFTER)


def arm(fault: Fault | None) -> None:
    library, now = ctypes.CDLL(None), fault or Fault(OFF, 0, 0, 0, 0, "/")
    library.faults_arm(now.below.encode(), now.how, now.kinds, now.first, now.many, now.code)


class SharedClock(FakeClock):
    """A clock that goes on in the parent after a process was killed. It also keeps what that process told of its
    readings: when it began to read, up to which reading a checkpoint was reported, and up to which it had read."""

    def __init__(self) -> None:
        super().__init__(BEGIN_NS)
        self._page = mmap.mmap(-1, 4096)
        self.begun_ns = self.told_ns = self.read_ns = 0
        self.share()

    def advance(self, ns: int) -> None:
        super().advance(ns)
        self.share()

    def reboot(self) -> None:
        self._wall_ns += 40 * NS_PER_S
        self._boottime_ns = 30 * NS_PER_S
        self.share()

    @property
    def ahead_ns(self) -> int:
        """How far the wall clock is ahead of the boot time on this boot."""
        return self._wall_ns - self._boottime_ns

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)

    def share(self) -> None:
        state = (self._boottime_ns, self._wall_ns, self.begun_ns, self.told_ns, self.read_ns)
        self._page[:40] = struct.pack("5q", *state)

    def take(self) -> None:
        state = struct.unpack("5q", self._page[:40])
        self._boottime_ns, self._wall_ns, self.begun_ns, self.told_ns, self.read_ns = state


class Story:
    """One story. `found` holds the faults found in it, `log` the messages of its processes."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng, self.folder, self.clock = random.Random(seed), folder, SharedClock()
        self.is_launched, self.may_reboot = self.rng.random() < 0.4, self.rng.random() < 0.3
        self.settings = Settings(
            state_dir=str(folder / "state"), ledger=str(folder / "out" / "run.json"), run_id="run", evidence=(),
            ledger_copies=(str(folder / "copy" / "run.json"),), rotate_every="1d", checkpoint_output="off",
            keep_segments=self.rng.choice([None, None, 1]),
        )  # fmt: skip
        self.state, self.boots = StateDir(folder / "state"), 1
        self.owed: list[tuple[int, int]] = []  # the spans of wall-clock time whose readings must be in the ledgers
        self.is_replaced = False  # another machine has taken over
        self.found: list[str] = []
        self.steps: list[str] = []
        self._log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._findings = os.open(folder / "found", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for name in ("out", "copy"):
            (folder / name).mkdir()
        self.launch()

    def launch(self) -> None:
        """A new launcher, which knows nothing yet."""
        self.head, self.secret = os.memfd_create("head"), self.rng.randbytes(32)

    @property
    def context(self) -> Context:
        return replace(CONTEXT, boot_id=f"00000000-0000-4000-8000-{self.boots:012}")

    def say(self, file: int, what: str, text: str) -> None:
        os.write(file, f"{what}: {text}\n".replace(str(self.folder), "DIR").encode())

    def complain(self, what: str, text: str) -> None:
        arm(None)
        self.say(self._findings, what, text)

    def fork(self, what: str, fault: Fault | None, do: Callable[[], object]) -> int:
        """Run `do` in a process of its own. Returns its exit code, negative for a signal."""
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                logger = logging.getLogger("flopsd")
                logger.handlers[:] = [_Said(self, what)]
                logger.setLevel(logging.WARNING)
                arm(fault)
                code = int(bool(do()))
            except FlopsdError as refused:
                self.complain_of(what, refused)
                code = 1
            except BaseException:  # noqa: BLE001
                self.complain(what, traceback.format_exc())
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        self.clock.take()
        code = os.waitstatus_to_exitcode(status)
        self.steps.append(f"{what} {fault or ''} -> {code}")
        return code

    def complain_of(self, what: str, refused: FlopsdError) -> None:
        arm(None)
        self.say(self._log, what, f"{refused}; {refused.hint}")
        if not refused.hint or "/" not in str(refused):
            self.complain(what, f"no file, or nothing to do: {refused}; {refused.hint}")

    def cli(self, *words: str, must: bool = False) -> Callable[[], int]:
        def call() -> int:
            done = in_process(*words)
            arm(None)
            self.say(self._log, words[0], f"[{done.returncode}] {done.stderr.strip()}")
            is_vague = "/" not in done.stderr or (
                not {"hint:", ";"} & {*done.stderr.replace(";", " ; ").split()}
                and not {"--rolling", "--background"} & {*words}
            )
            if "Traceback" in done.stderr or "internal error" in done.stderr:
                self.complain(words[0], done.stderr)
            elif done.returncode and (must or is_vague):
                self.complain(" ".join(words), f"[{done.returncode}] {done.stdout}{done.stderr}")
            return done.returncode

        return call

    def flags(self) -> list[str]:
        keep = [] if self.settings.keep_segments is None else ["--keep-segments", str(self.settings.keep_segments)]
        return ["--state-dir", str(self.state.path), "--run-id", "run", "--ledger", str(self.settings.ledger), *keep,
                "--ledger-copy", self.settings.ledger_copies[0], "--rotate-every", "1d", "--evidence", "off"]  # fmt: skip

    def daemon(self, steps: Sequence[tuple[str, Fault | None]], *, is_ended: bool) -> Callable[[], int]:
        def run() -> int:
            clock, folder, journal = self.clock, StateDir(self.state.path), None
            clock.begun_ns = clock.told_ns = clock.read_ns = 0
            clock.share()
            secrets = CodeSecrets(bytearray(self.secret) if self.is_launched else None)
            folder.acquire()
            journal = Journal(folder)
            known = known_journal(self.head) if self.is_launched else None
            before = continue_run(self.settings, self.context, table(), journal, clock, secrets, known)
            if before.recovered.journal_lost and self.owed:
                self.complain("daemon", f"the journal is lost: {before.recovered.recovery}")
            wanted = WriterSettings(NS_PER_S, 5 * NS_PER_S, "0" * 64, None, ("sim",), is_rotated=True)

            def told(_: str) -> None:
                clock.told_ns = clock.read_ns
                clock.share()

            def written() -> None:
                if self.is_launched:
                    report_to_launcher(self.head, journal.as_known_journal("run"))

            codes = secrets.key if self.is_launched else None
            writer = Writer(journal, table(), wanted, self.context, clock, told, written, codes)
            before.begin(writer)
            clock.begun_ns = clock.read_ns = clock.boottime_ns()
            clock.share()
            writer.take(Message("sim", clock.read_ns, (H100, CYCLES), Sweep(()), opened={"replay": None}))
            for step, fault in steps:
                if step == "read":
                    self.read(writer)
                elif step == "rotate":
                    clock.advance(1_000_000)  # a segment must last some time
                    _ = writer.has_open_gap or writer.rotate()
                elif step == "seal":
                    self.fork("seal", fault, self.cli("seal", "--rolling", *self.flags(), "--head", str(journal.head)))
                elif step == "copy":
                    self.fork("copy", fault, self.cli("copy", "--background", "--state-dir", str(folder.path)))
            return self.end(writer, folder, journal, secrets) if is_ended else os._exit(9)

        return run

    def read(self, writer: Writer) -> None:
        clock = self.clock
        clock.advance(NS_PER_S)
        second = Second(clock.read_ns, clock.boottime_ns())
        energy = {"energy_mj": second.end_ns * 7 // 10_000_001}
        readings = (
            Reading(H100.uid, second.begin_ns, second.end_ns, WORK(second), energy, None),
            Reading(CYCLES.uid, second.begin_ns, second.end_ns, Growth(), energy, running(second)),
        )
        writer.take(Message("sim", second.end_ns, (H100, CYCLES), Sweep(readings), read_seconds=0.001))
        clock.read_ns = second.end_ns
        clock.share()

    def end(self, writer: Writer, folder: StateDir, journal: Journal, secrets: CodeSecrets) -> int:
        is_durable, is_sealed, now_ns = writer.close("sigterm"), False, self.clock.boottime_ns()
        if is_durable:
            disclosed = [*secrets.kept, *([self.secret] if self.is_launched else [])]
            with Path(os.devnull).open("w") as err:
                is_sealed, _ = seal_own(
                    self.settings, folder, self.clock, now_ns, err, {}, journal.head, disclosed, None
                )
            if closed_segments(folder):
                seal_left(self.settings, folder, self.clock, now_ns, {}, None)
        journal.close()
        folder.release()
        return 0 if is_durable and is_sealed else 1

    def fault(self) -> Fault | None:
        rng = self.rng
        if rng.random() < 0.15:
            return None
        below = str(self.folder / rng.choice(["", "state", "state", "out", "copy"]))
        first, draw = int(rng.expovariate(1 / rng.choice([8, 40, 150]))), rng.random()
        if draw < 0.45:
            return Fault(rng.choice([KILL_BEFORE, KILL_AFTER]), rng.choice([CHANGES, ALL, NAME]), first, 1, 0, below)
        many = rng.choice([1, 1, 2, 10, 100, 10**6])
        if draw < 0.6:
            return Fault(FAIL, WRITE | NAME, first, many, rng.choice(FULL), below)
        if draw < 0.7:
            return Fault(FAIL_AFTER, WRITE, first, many, errno.ENOSPC, below)
        if draw < 0.8:
            return Fault(FAIL_AFTER, NAME, first, 1, rng.choice([errno.EIO, errno.ENOENT, errno.EEXIST]), below)
        kinds = rng.choice([ALL, LOOK, READ, WRITE, SYNC, NAME, NAME])
        return Fault(FAIL, kinds, first, many, rng.choice([errno.EIO, errno.EIO, errno.ESTALE]), below)

    def step(self) -> None:
        rng, fault, state = self.rng, self.fault(), str(self.state.path)
        does = rng.choices(["daemon", "end", "copy", "status", "key"], [8, 2, 1, 1, 1])[0]
        if does == "daemon":
            steps = rng.choices(["read", "rotate", "seal", "copy"], [8, 3, 2, 1], k=rng.randint(2, 25))
            each = [(step, self.fault() if step in ("seal", "copy") else None) for step in steps]
            self.run_daemon(each, fault, is_ended=rng.random() < 0.3)
        elif does == "end":
            self.seal_ended(fault)
        else:
            words = {
                "copy": ("copy", "--state-dir", state),
                "status": ("status", "--state-dir", state),
                "key": ("key", "new", str(self.folder / "out" / f"key-{rng.randrange(3)}.pem")),
            }[does]
            self.fork(does, fault, self.cli(*words))
        self.clock.advance(rng.choice([0, 1, 7, 30]) * NS_PER_S)
        if self.may_reboot and rng.random() < 0.4:
            self.reboot(is_other=rng.random() < 0.5)

    def run_daemon(self, steps: Sequence[tuple[str, Fault | None]], fault: Fault | None, *, is_ended: bool) -> None:
        short = "".join("o" if step == "rotate" else step[0] for step, _ in steps)
        self.fork(f"daemon {short}{'E' if is_ended else ''}", fault, self.daemon(steps, is_ended=is_ended))
        until_ns = self.clock.read_ns if fault is None or fault.is_kill else self.clock.told_ns
        if until_ns:
            self.owed.append((self.clock.begun_ns + self.clock.ahead_ns, until_ns + self.clock.ahead_ns))
        if self.is_launched and self.rng.random() < 0.2:
            self.launch()

    def seal_ended(self, fault: Fault | None) -> None:
        """Seal as the launcher does for a daemon that was killed, or as an operator does where there is no launcher."""
        known = os.pread(self.head, KNOWN_BYTES, 0).decode().rstrip("\n ")
        if not self.is_launched or not known:
            self.fork("seal", fault, self.cli("seal", *self.flags()))
            return
        read_end, write_end = os.pipe()
        os.write(write_end, self.secret)
        os.close(write_end)
        of_launcher = ("--at-end", "--known-journal", known, "--code-secret", str(read_end))
        self.fork("seal --at-end", fault, self.cli("seal", *self.flags(), *of_launcher))
        os.close(read_end)
        self.launch()

    def reboot(self, *, is_other: bool) -> None:
        self.boots += 1
        self.clock.reboot()
        self.steps.append("another machine" if is_other else "reboot")
        if is_other:  # the new machine has the copied files
            self.is_replaced, self.owed = True, []
            shutil.rmtree(self.state.path, ignore_errors=True)
            shutil.rmtree(self.folder / "out")
            (self.folder / "out").mkdir()
            self.launch()

    def tell(self) -> None:
        for _ in range(self.rng.randint(1, 7)):
            self.step()
        self.run_daemon([("read", None), ("read", None)], None, is_ended=True)
        last_ns = self.clock.read_ns + self.clock.ahead_ns
        for words in (("seal", *self.flags()), ("seal", *self.flags()), ("copy", "--state-dir", str(self.state.path))):
            self.fork(words[0], None, self.cli(*words, must=True))
        self.hold_files()
        ledgers = self.hold_ledgers()
        self.hold_counts(ledgers, last_ns)
        self.found += os.pread(self._findings, 1 << 20, 0).decode().splitlines()

    def hold_files(self) -> None:
        for path in (path for name in ("state", "out", "copy") for path in (self.folder / name).iterdir()):
            is_of_another = self.is_replaced and path.parent.name == "copy"
            if path.name.startswith(".") and "json." not in path.name and not is_of_another:
                self.found.append(f"left: {path}")
            if not self.is_launched and path.name.startswith(("damaged", "not-ours", "run-until-")):
                self.found.append(f"aside: {path}")

    def hold_ledgers(self) -> list[Path]:
        """Every ledger verifies, and those of the run make one job; returns them."""
        for ledger in sorted(self.folder.glob("*/run*.json")):
            self.fork(
                "verify", None, self.cli("verify", str(ledger), "--key", str(public_key_beside(ledger)), must=True)
            )
        # With --keep-segments not all of them are beside the state folder, and none of another machine's are.
        ledgers = [path for path in sorted(self.folder.glob("copy/run*.json")) if "until" not in path.name]
        keys = {public_key_beside(path).read_bytes(): str(public_key_beside(path)) for path in ledgers}
        words = (
            "--key",
            str(self.state.path / "flopsd-key.pem"),
            "--nodes",
            "1",
            "--ledger",
            str(self.folder / "job.json"),
        )
        trust = (word for key in keys.values() for word in ("--trust", key))
        # Segments that a lost machine had not copied are missing, and the verifier names them.
        may = ("--allow-incomplete",) if self.is_replaced else ()
        self.fork("merge", None, self.cli("merge", *map(str, ledgers), *trust, *words, *may, must=True))
        return ledgers

    def hold_counts(self, ledgers: Sequence[Path], last_ns: int) -> None:
        parts = sorted((history_of(journal_beside(ledger)) for ledger in ledgers), key=lambda part: part.segment)
        starts = [start for part in parts for start in part.incarnations]
        reasons = [reason for start in starts for reason in (start.begin["recovered"] or {}).get("reasons", ())]
        is_lost = any(reason["code"] in LOST for reason in reasons)
        if is_lost and not self.is_replaced and self.owed[0][0] < starts[0].begin["wall_ns"]:
            self.found.append(f"a journal was lost: {reasons}")
        for uid in (H100.uid, CYCLES.uid):
            accounts = _accounts(starts, uid)
            everything = [one for account in accounts for one in account]
            shown = [(one.begin_ns / 1e9, one.end_ns / 1e9, one.tally.gap_ns, one.observed_ns) for one in everything]
            for account in () if self.is_replaced else accounts:
                if any(abs(before.end_ns - after.begin_ns) > WALL_NS for before, after in pairwise(account)):
                    self.found.append(f"{uid}: left out or counted twice: {shown}")
                for boot in {one.boot_id: None for one in account}:
                    if uid == CYCLES.uid and not _counts_all([one.tally for one in account if one.boot_id == boot]):
                        self.found.append(f"{uid}: the counters show more, or less: {shown}")
            # Machines that did not know of each other have segments with the same number.
            by_time = sorted(everything, key=lambda one: (one.begin_ns, one.end_ns)) if self.is_replaced else everything
            if any(before.end_ns > after.begin_ns + WALL_NS for before, after in pairwise(by_time)):
                self.found.append(f"{uid}: counted twice: {shown}")
            observed = sum(one.observed_ns for one in everything)
            owed = 0 if is_lost else sum(until_ns - since_ns for since_ns, until_ns in self.owed)
            if uid == H100.uid and not owed <= observed <= last_ns - BEGIN_WALL_NS:
                self.found.append(f"{uid}: {observed / 1e9} s observed, {owed / 1e9} s owed: {self.owed} {shown}")


class _Part(NamedTuple):
    """The count of one device in one daemon start, with its begin and end by the wall clock."""

    boot_id: str
    begin_ns: int
    end_ns: int
    tally: Tally

    @property
    def observed_ns(self) -> int:
        return sum(self.tally.observed_ns.values())


def _accounts(starts: Sequence[Incarnation], uid: str) -> list[list[_Part]]:
    """The parts grouped into accounts: a part that continues the one before joins it, and a regular end begins a new
    account."""
    accounts = list[list[_Part]]([[]])
    for start in starts:
        if uid in start.tallies:
            tally, ahead_ns = start.tallies[uid], start.begin["wall_ns"] - start.begin["ns"]
            accounts[-1].append(_Part(start.boot_id, tally.begin_ns + ahead_ns, tally.watermark_ns + ahead_ns, tally))
        if has_ended(start):
            accounts.append([])
    return [account for account in accounts if account]


def _counts_all(account: Sequence[Tally]) -> bool:
    """Whether the count equals the growth of the running counters since the first reading, in spite of kills."""
    read = [one for one in account if one.totals is not None]
    if not read:
        return True
    first, totals = read[0], read[-1].totals
    assert totals is not None
    after_ns = first.observed_ns.get(Evidence.CYCLES, 0) + first.gap_ns.get(GapReason.STOPPING, 0)
    began = running(Second(0, first.watermark_ns - after_ns))
    counted = sum(one.active_sm_cycles.get((Evidence.CYCLES, Pipe.TENSOR_HMMA), 0) for one in account)
    grown = totals.sm_cycles[Pipe.TENSOR_HMMA] - began.sm_cycles[Pipe.TENSOR_HMMA]
    return abs(counted - grown) <= len(account)  # one for each interval that was rounded down


class _Said(logging.Handler):
    def __init__(self, story: Story, what: str) -> None:
        super().__init__()
        self._story, self._what = story, what

    def emit(self, record: logging.LogRecord) -> None:
        self._story.say(self._story._log, self._what, f"{record.levelname} {record.getMessage()}")
        if record.exc_info:
            self._story.complain(self._what, logging.Formatter().format(record))


def _load_everything() -> None:
    """Import it all here, so that not every forked process has to."""
    for package in (flopsd.attestation, flopsd.cli, flopsd.daemon, flopsd.report):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as folder:
        make_pem(Path(folder) / "key.pem").sign(b"")
        in_process("verify", "none.json", "--key", f"{folder}/key.pem")
        in_process("status", "--state-dir", folder)
    table()


def told(seed: int, folder: Path) -> Story:
    """The story of a seed, told in a new folder."""
    folder.mkdir()
    story = Story(seed, folder)
    try:
        story.tell()
    except Exception:  # noqa: BLE001
        story.found.append(traceback.format_exc())
    return story


def run(first: int, last: int, folder: Path, out: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Tell the stories of these seeds in another process, which loads the fault library. Its output goes to `out`."""
    library = folder / "file_faults.so"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True
    )
    return subprocess.run(
        [sys.executable, "-m", "tests.support.file_faults", str(first), str(last), str(folder)], check=False,
        env={**os.environ, "LD_PRELOAD": str(library)}, text=True, stdout=out, stderr=subprocess.STDOUT,
    )  # fmt: skip


def main() -> None:
    first, last = int(sys.argv[1]), int(sys.argv[2])
    if len(sys.argv) == 3:
        with tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")) as made:
            sys.exit(run(first, last, Path(made), None).returncode)
    _load_everything()
    bad = 0
    for seed in range(first, last):
        story = told(seed, folder := Path(sys.argv[3]) / str(seed))
        if story.found:
            bad += 1
            print("\n  ".join([f"seed {seed}", *story.steps, *story.found]), flush=True)
        shutil.rmtree(folder)
    print(f"{last - first} stories, {bad} with a fault")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
