"""Vectors of daemon starts that differ, of the key that sealed, and of work that is all in doubt, as `limits.py`."""

import copy
from typing import Any

from tests.make_vectors.edges import DOUBT, FLOP, bounded, counted, energy, phases
from tests.make_vectors.edits import Edit, put
from tests.make_vectors.files import Files, parsed, statement_of, vector
from tests.make_vectors.records import Case, made_of
from tests.make_vectors.runs import small
from tests.support.columns import by_device, in_columns
from tests.support.story import chain, tell

J = dict[str, Any]


def _in_doubt(more: int) -> Edit:
    """The doubt in cycles makes the whole work doubtful, or exceeds it by `more`."""
    cycles = (FLOP - DOUBT) // 4096 + more
    return energy(3000, uncertainty_sm_cycles={"activity": {"tensor_hmma": cycles}})


def _numbers_exchanged(records: list[J]) -> None:
    """The second daemon start has the two devices in the other order."""
    at = next(at for at, record in enumerate(records) if record["kind"] == "begin" and record["incarnation"] == 2)
    second = records[at:]
    devices = [record for record in second if record["kind"] == "device"]
    for record in second:
        for gap in record.get("gaps", ()):
            gap[0] = 1 - gap[0]
        for tally in record["devices"] if record["kind"] == "checkpoint" else ():
            tally["number"] = 1 - tally["number"]
        if record["kind"] == "checkpoint":
            record["devices"].sort(key=lambda tally: tally["number"])
    for number, device in enumerate(reversed(devices)):
        device["number"] = number
    kept = iter(reversed(devices))
    records[at:] = [next(kept) if record["kind"] == "device" else record for record in second]


def _no_device_again(records: list[J]) -> None:
    """A start that names a device and reads nothing of it, and one without devices."""
    begin, source, device, *_, end = copy.deepcopy(records)
    end.update(ns=begin["ns"], utc=begin["utc"])
    again = {**begin, "incarnation": 2, "boot_id": "another-boot"}
    records[:] = [begin, source, device, end, again, {**end, "incarnation": 2}]


def _recomputing_no_more(records: list[J]) -> None:
    """The first start declares that activations are recomputed, the second that none are."""
    begins = [record for record in records if record["kind"] == "begin"]
    for begin, recomputation in zip(begins, ("full", "none"), strict=True):
        begin["declared"] = {"phase": "train", "method": "full", "recomputation": recomputation, "base": None}


_BASE = {"name": "base", "kind": "known", "flop": "3000000000000000000000", "method": None, "systemic": None}


def _declaring(*starts: tuple[str | None, J | None]) -> Edit:
    """What each daemon start declares of method and base model."""

    def edit(records: list[J]) -> None:
        begins = [record for record in records if record["kind"] == "begin"]
        for begin, (method, base) in zip(begins, starts, strict=True):
            begin["declared"] = {"phase": "train", "method": method, "recomputation": None, "base": base}

    return edit


def _continuing(*what: str | None) -> Edit:
    """What the daemon starts know of the journal that they continue."""

    def edit(records: list[J]) -> None:
        begins = [record for record in records if record["kind"] == "begin"]
        for begin, continues in zip(begins, what, strict=True):
            begin["isolation"]["continues"] = continues

    return edit


def _in_another_job(*nodes: list[str]) -> Edit:
    """The daemon starts list these nodes of the job."""

    def edit(records: list[J]) -> None:
        begins = [record for record in records if record["kind"] == "begin"]
        for begin, (rank, names) in zip(begins, enumerate(nodes), strict=True):
            begin["context"]["node"].update(rank=rank, jobNodes=names)

    return edit


CASES: list[Case] = [
    ("energy-of-work-that-is-all-in-doubt", "As much work is in doubt as there is.", None, None, None, "small", _in_doubt(0)),
    ("energy-of-work-beyond-all-doubt", "A cycle less is in doubt.", None, None, None, "small", _in_doubt(-1)),
    ("phases-of-other-work-unmeasured", "Little trains, and other work is only bounded.", None, None, None, "small", phases(train=counted(3), other=bounded())),
    ("starts-that-number-devices-otherwise", "The second daemon start has its devices in another order.", None, None, None, "activity", _numbers_exchanged),
    ("starts-of-which-one-has-no-device", "A daemon start reads nothing of its device, and the next has none.", None, None, None, "small", _no_device_again),
    ("starts-that-recompute-differently", "The first daemon start declares recomputation, the second none: of the run it is not known.", None, None, None, "activity", _recomputing_no_more),
    ("starts-of-another-base", "The first daemon start declares another method and base model than the second: neither is known.", None, None, None, "activity", _declaring(("lora", _BASE), ("full", {**_BASE, "systemic": False}))),
    ("starts-of-a-base-and-of-none", "The first daemon start declares a base model, the second pretraining.", None, None, None, "activity", _declaring((None, _BASE), ("pretraining", None))),
    ("starts-of-two-bases-that-pretrain", "Both daemon starts declare pretraining, of different base models.", None, None, None, "activity", _declaring(("pretraining", _BASE), ("pretraining", {**_BASE, "name": "n"}))),
    ("starts-of-a-method-and-of-none", "The first daemon start declares a method, the second none.", None, None, None, "activity", _declaring(("lora", _BASE), (None, _BASE))),
    ("starts-in-a-larger-job", "The first daemon start is in a job of one node, the second in one of two: no upper bound is known.", None, None, None, "activity", _in_another_job(["node-0"], ["node-1", "node-0"])),
    ("starts-in-another-job", "The first daemon start is in a job of two nodes, the second in another of two.", None, None, None, "activity", _in_another_job(["node-0", "node-1"], ["node-0", "node-0"])),
    ("starts-that-continue-unchecked", "The second daemon start cannot know whether the journal is the one that was written.", None, None, None, "activity", _continuing(None, "nothing")),
    ("starts-that-the-launcher-continues", "The second daemon start has the head of the journal from its launcher.", None, None, None, "activity", _continuing(None, "launcher")),
    ("node-of-a-job-of-one", "The platform lists one node.", None, None, None, "lying", put(0, "context", "node", "jobNodes", value=["node-0"])),
]  # fmt: skip
FILE: J = {"kind": "file", "ownerUser": "7", "mode": "0600"}
# Name, description, the key, the job's user, and whether the job could read it; None: no key of a ledger.
KEYS: list[tuple[str, str, J, int, bool | None, bool]] = [
    ("file-that-others-may-run", "A key in a file that others may execute, and not read.", {**FILE, "mode": "0611"}, 1000, False, True),
    ("file-beside-root", "A key in a file, and a job of root.", FILE, 0, True, True),
    ("file-of-no-user", "A key in a file whose owner has a leading zero.", {**FILE, "ownerUser": "07"}, 1000, False, False),
    ("file-of-a-short-mode", "A key in a file whose mode has three digits.", {**FILE, "mode": "600"}, 1000, False, False),
    ("file-with-another-member", "A key in a file, with one member too many.", {**FILE, "path": "x"}, 1000, False, False),
    ("kms-with-another-member", "A key that is used over a network, with one member too many.", {"kind": "awskms", "region": "x"}, 1000, None, False),
    ("a-number", "A key of a kind that is a number.", {"kind": 7}, 1000, None, False),
]  # fmt: skip


def _keys() -> Files:
    files: Files = {}
    records = by_device([dict(line.record()) for line in parsed(tell(small))])
    for name, what, key, user, could_read, is_good in KEYS:
        changed = copy.deepcopy(records)
        changed[0]["isolation"].update(job_user=user)
        journal = chain(in_columns(changed))
        said = statement_of(journal)
        said["predicate"]["isolation"].update(key=key, jobCouldReadKey=could_read)
        full = f"{'valid' if is_good else 'invalid'}/sealed-by-{name}"
        refusal = (None, None, None) if is_good else ("statement_differs", "ISO-8", "statement.predicate.isolation.key")
        files |= vector(full, what, said, journal, *refusal, schema=None)
    return files


def starts_vectors() -> Files:
    return {**made_of(CASES), **_keys()}
