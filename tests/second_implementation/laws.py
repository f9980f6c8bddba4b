"""The laws of docs/ledger-journal.md, for each record and for the whole."""

import hashlib
import re
from datetime import datetime
from itertools import pairwise
from typing import Any

from tests.second_implementation.arithmetic import ELSEWHERE, Rated, ceil_of_sms, tallies_of

J = dict[str, Any]
DIGEST = re.compile("[0-9a-f]{64}")
TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?Z", re.ASCII)
EVIDENCE = ("cycles", "activity", "count", "utilization")
PIPES = ("tensor", "tensor_hmma", "tensor_imma", "tensor_dfma", "fp64", "fp32", "fp16")
REASONS = (
    "starting", "stopping", "daemon_down", "source_down", "source_silent", "device_missing", "device_lost",
    "other_job", "metered_as_mig", "replaced", "driver_timeout", "driver_error", "no_permission", "not_supported",
    "not_a_number", "out_of_range", "counter_reset", "counter_stalled", "contradictory", "counters_disabled", "counters_in_use",
    "zero_at_full_load", "stale", "uncounted_work", "unknown_device", "overlap", "missed_reading", "not_journalled",
    "end_unknown", "journal_replaced",
)  # fmt: skip
PHASES = ("train", "evaluate", "generate", "other")
METHODS = ("pretraining", "full", "partial", "lora", "qlora")
FORMATS = ("bf16", "fp16", "tf32", "fp8", "fp6", "fp4", "fp64", "int8")
BY_KEY = {"observed_ns": EVIDENCE, "gap_ns": REASONS, "recovered_ns": EVIDENCE, "unread_ns": PIPES}
BY_EVIDENCE = ("sm_cycles", "uncertainty_sm_cycles", "square_sum")
AMOUNTS = (
    "busy_sm_cycles", "sampled_busy_sm_cycles", "clocked_sm_cycles", "clocked_square_sum", "energy_ns", "counted_flop",
    "energy_mj",
)  # fmt: skip
GROWING = (*BY_KEY, *BY_EVIDENCE, *AMOUNTS)
KEPT = ("sm_cycles", "energy_mj")  # where 0 is not as absent
ENDS = ("job_ended", "sigterm", "sigint", "sighup", "duration", "launcher_gone", "rotated", "journal_replaced")
RECOVERED = {
    "line_invalid": {"refusal", "line"}, "tail_not_known": set[str](), "not_continued": {"refusal", "line"},
    "journal_replaced": {"records", "head"}, "journal_missing": set[str](), "restored": {"ledger", "records", "sealed"},
    "restored_unsealed": {"ledger", "records"}, "time_not_known": {"seconds"},
}  # fmt: skip


class Refused(Exception):
    """A ledger that is refused: the code and the place."""

    def __init__(self, code: str, path: str | None = None) -> None:
        super().__init__(code)
        self.code, self.path = code, path


def need(holds: object, code: str = "record_malformed", path: str | None = None) -> None:
    if not holds:
        raise Refused(code, path)


def count(value: Any, *, signed: bool = False) -> int:
    need(type(value) is int and (signed or value >= 0))
    return int(value)


def text(value: Any) -> str:
    need(isinstance(value, str))
    return str(value)


def is_note(value: Any) -> bool:
    return isinstance(value, dict) and "code" in value and all(isinstance(one, str) for one in value.values())


def or_null(read: Any, value: Any) -> None:
    if value is not None:
        read(value)


def is_digest(value: Any) -> bool:
    return isinstance(value, str) and bool(DIGEST.fullmatch(value))


def is_time(value: Any) -> bool:
    match = TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return False
    try:
        datetime(*map(int, match.groups()))  # type: ignore[arg-type] # noqa: DTZ001
    except ValueError:
        return False
    return True


def laws_of_records(records: list[J], ends: list[tuple[int, str]]) -> None:
    """Raises Refused for the first record that breaks a law. `ends`: bytes and hash up to the end of each line."""
    laws = Laws(ends)
    for at, record in enumerate(records):
        try:
            laws.take(at, record)
        except Refused as refused:
            raise Refused(refused.code, f"journal:{at + 1}") from refused
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as fault:
            raise Refused("record_malformed", f"journal:{at + 1}") from fault


class Laws:
    """The state after the records of a journal read so far."""

    last_ns: int

    def __init__(self, ends: list[tuple[int, str]]) -> None:
        self.ends = ends
        self.begins: list[J] = []
        self.row_ns = 0  # when the first of those began that were killed on this boot, one right after the other
        self.ended: J | None = None
        self.devices: list[J] = []
        self.tallies: dict[int, J] = {}
        self.gaps_until: dict[int, int] = {}
        self.watched: set[str] = set()
        self.sessions: dict[str, tuple[Any, dict[tuple[str, str], int]]] = {}
        self.of_device: dict[str, Any] = {}

    def take(self, at: int, record: J) -> None:
        kind = record["kind"]
        count(record["incarnation"])
        takes = {
            "source": self.source, "device": self.device, "evidence": self.evidence, "checkpoint": self.checkpoint,
            "declaration": self.declaration, "end": self.end,
        }  # fmt: skip
        need(kind in ("begin", "sealed", *takes))
        if kind == "begin":
            self.begin(record)
            return
        need(self.begins, "law_1")
        need(self.ended is None, "law_1")
        need(record["incarnation"] == len(self.begins), "law_1")
        if kind == "sealed":
            self.sealed(at, record)
        else:
            takes[kind](record)

    def begin(self, record: J) -> None:
        need(self.ended is None or self.ended["reason"] != "rotated", "law_1")
        need(record["incarnation"] == len(self.begins) + 1, "law_1")
        if self.begins:
            need("continues" not in record, "law_1")
            same = ("run", "node", "peak_table_sha256")
            need(all(record.get(name) == self.begins[0][name] for name in same), "law_1")
        if "continues" in record:
            continued(record["continues"])
        need(record["format"] == "flopsd-journal/1")
        for name in ("run", "node", "boot_id", "utc", "flopsd_version"):
            text(record[name])
        need(is_digest(record["peak_table_sha256"]) and is_digest(record["config_sha256"]))
        for name in ("ns", "wall_ns", "interval_ns", "checkpoint_ns"):
            count(record[name])
        secret = record["code_secret_sha256"]
        need(secret is None or is_digest(secret))
        need(isinstance(record["policies"], list))
        for policy in record["policies"]:
            text(policy["id"])
            need(is_digest(policy["sha256"]))
        declared_format(record["precision"])
        recovered(record["recovered"])
        declared(record["declared"])
        isolation(record["isolation"])
        try:
            context(record["context"])
        except (Refused, KeyError, TypeError, ValueError, AttributeError) as fault:
            raise Refused("law_14") from fault
        killed = self.begins and self.ended is None and self.begins[-1]["boot_id"] == record["boot_id"]
        self.row_ns = self.row_ns if killed else record["ns"]
        self.begins.append(record)
        self.ended, self.devices, self.tallies, self.gaps_until = None, [], {}, {}
        self.last_ns = record["ns"]

    def source(self, record: J) -> None:
        text(record["name"])
        recording = record["facts"].get("replay")
        if recording is not None:
            text(recording["recording"]), text(recording["sha256"]), text(recording["origin"])

    def device(self, record: J) -> None:
        for name in ("uuid", "vendor"):
            text(record[name])
        count(record["index"])
        or_null(text, record["parent"])
        identity(record)
        what_is_read(record)
        count(record["to_ns"], signed=True)
        number, tally = count(record["number"]), a_tally(record)
        need(number == len(self.devices), "law_3")
        need(record["uuid"] not in [device["uuid"] for device in self.devices], "law_3")
        older = record["uuid"] in self.watched or "continues" in self.begins[0]
        need(not any(path[0] in (*GROWING, "phases") for path in known(tally)), "law_12")
        need(older or record["to_ns"] >= self.row_ns, "law_12")
        self.watched.add(record["uuid"])
        self.tallies[len(self.devices)] = tally
        self.devices.append(dict(record))

    def evidence(self, record: J) -> None:
        number = count(record["number"])
        need(number < len(self.devices))
        if "identity" in record:
            need(self.devices[number]["peak_row"] is None)
            identity(record["identity"])
            self.devices[number]["peak_row"] = record["identity"]["peak_row"]
        what_is_read(record)
        need(count(record["ns"]) >= self.last_ns, "law_13")

    def declaration(self, record: J) -> None:
        need(isinstance(record["sessions"], list) and all("facts" in session for session in record["sessions"]))
        for session in record["sessions"]:
            self.session(session)

    def sealed(self, at: int, record: J) -> None:
        need(is_digest(record["head_sha256"]) and is_digest(record["payload_sha256"]) and is_time(record["utc"]))
        count(record["bytes"])
        witness = record["witness"]
        if witness is not None:
            need(list(witness) in (["token"], ["absent"]))
            need(is_note(witness["absent"]) if "absent" in witness else isinstance(witness["token"], str))
        need((record["bytes"], record["head_sha256"]) in self.ends[:at], "law_15")

    def end(self, record: J) -> None:
        need(record["reason"] in ENDS)
        need(record["child_exit_code"] is None or type(record["child_exit_code"]) is int)
        text(record["utc"])
        need(count(record["ns"]) >= self.last_ns, "law_13")
        self.ended, self.last_ns = record, record["ns"]

    def checkpoint(self, record: J) -> None:
        need(isinstance(record["gaps"], list))
        numbers = [count(number) for number in record["devices"]]
        need(numbers == sorted(set(numbers)), "law_3")
        at_ns = count(record["ns"])
        text(record["utc"])
        grown: dict[tuple[int, str], int] = {}
        tallies = [(number, a_tally(row)) for number, row in columns(record)]
        for number, begin_ns, end_ns, reason in record["gaps"]:
            need(reason in REASONS and count(number) < len(self.devices))
            count(begin_ns, signed=True), count(end_ns, signed=True)
        for number, tally in tallies:
            self.tally(number, tally, grown)
        for number, begin_ns, end_ns, reason in record["gaps"]:
            need(begin_ns >= self.gaps_until.get(number, self.devices[number]["to_ns"]), "law_6")
            need(end_ns <= self.tallies[number]["to_ns"], "law_6")
            self.gaps_until[number] = end_ns
            grown[number, reason] = grown.get((number, reason), 0) - (end_ns - begin_ns)
            need(begin_ns < end_ns, "law_6")
        need(not any(grown.values()), "law_6")
        need(isinstance(record.get("sessions", []), list))
        for session in record.get("sessions", []):
            self.session(session)
        need(at_ns >= self.last_ns, "law_13")
        need(all(tally["to_ns"] <= at_ns + 10**9 for tally in self.tallies.values()), "law_13")
        self.last_ns = at_ns

    def tally(self, number: int, after: J, grown: dict[tuple[int, str], int]) -> None:
        before, begin_ns = self.tallies[number], self.devices[number]["to_ns"]
        need(grew(before, after), "law_4")
        need(adds_up(after, after["to_ns"] - begin_ns), "law_5")
        shares = after.get("phases", {})
        if shares:
            left: J = {**after, "to_ns": after["to_ns"] - begin_ns, "phases": {}}
            for share in shares.values():
                left = less(left, share)
            need(not is_below_zero(left), "law_9")
        need(all(adds_up(share, share["to_ns"]) for share in shares.values()), "law_5")
        for reason, ns in after.get("gap_ns", {}).items():
            grown[number, reason] = ns - before.get("gap_ns", {}).get(reason, 0)
        self.tallies[number] = after

    def session(self, record: J) -> None:
        name = text(record["id"])
        or_null(count, record["pid"])
        process = record["pid"], count(record["uid"]), text(record["client"])
        known, work = self.sessions.setdefault(name, (process, {}))
        need(known == process, "law_10")
        try:
            for fact, value in record.get("facts", {}).items():
                FACTS[fact](value)
            if "facts" in record:
                of = record["facts"].get("device")
                need(self.of_device.setdefault(name, of) in (None, of))
                self.of_device[name] = of
            worked = counters(record.get("work", {}))
            counters(record.get("before", {}))
            if "refused" in record:
                refused_count(record["refused"])
        except (Refused, KeyError, TypeError, ValueError, AttributeError) as fault:
            raise Refused("law_10") from fault
        need("before" not in record or "continues" in self.begins[0], "law_1")
        for phase, counted in worked.items():
            for counter, value in counted.items():
                need(value >= work.get((phase, counter), 0), "law_10")
                work[phase, counter] = value
            windows({counter: value for (of, counter), value in work.items() if of == phase})


def columns(record: J) -> list[tuple[int, J]]:
    """Check a checkpoint: its lists are as long as there are devices."""

    def check(part: Any, depth: int) -> None:
        need(isinstance(part, dict) and depth <= 4)
        for column in part.values():
            if isinstance(column, list):
                need(len(column) == len(record["devices"]))
            else:
                check(column, depth + 1)

    check(record["tallies"], 0)
    return tallies_of(record)


def a_tally(record: J, *, share: bool = False) -> J:
    """The tally in a record, with its types checked."""
    found: J = {"to_ns": count(record["to_ns"], signed=True)}
    for name, value in record.items():
        if name in BY_KEY:
            need(all(key in BY_KEY[name] for key in value))
            found[name] = {key: ns for key, ns in value.items() if count(ns)}
        elif name in BY_EVIDENCE:
            for evidence, pipes in value.items():
                need(evidence in EVIDENCE and all(pipe in PIPES for pipe in pipes))
                for amount in pipes.values():
                    count(amount)
            found[name] = value
        elif name in AMOUNTS:
            found[name] = count(value)
        elif name == "counters":
            need(not share)
            for amount in value.values():
                count(amount)
            found[name] = value
            if "energy_mj" in value:
                found["energy_at_ns"] = count(record.get("energy_at_ns", record["to_ns"]), signed=True)
        elif name == "running":
            need(not share)
            (read,) = value.values()
            need("ns" in read and "elapsed" in read)
            need(all(pipe in PIPES for pipe in read if pipe not in ("ns", "elapsed")))
            for pipe, amount in read.items():
                count(amount, signed=pipe == "ns")
            found[name] = value
        elif name == "phases":
            for bucket, part in value.items():
                a_bucket(bucket)
                need(not share)
                found.setdefault("phases", {})[bucket] = a_tally(part, share=True)
        elif name in ("energy_at_ns", "number") and share:
            need(False)
    return found


def a_bucket(name: str) -> None:
    phase, at, label = name.partition("@")
    need(phase in PHASES)
    if at:
        shares = {piece.partition(":")[0]: piece.partition(":")[2] for piece in label.split(",")}
        ppm = {name: round(float(share) * 10**6) if share else 10**6 for name, share in shares.items()}
        precision(ppm)
        names = sorted(ppm)
        need(label == (names[0] if len(names) == 1 else ",".join(f"{name}:{ppm[name] / 10**6:g}" for name in names)))


def grew(before: J, after: J) -> bool:
    """Whether `after` can be a later state of `before`."""
    if after["to_ns"] < before["to_ns"] or ("energy_mj" in before and "energy_mj" not in after):
        return False
    for name in GROWING:
        if name in before and not no_less(before[name], after.get(name, 0 if name in AMOUNTS else {})):
            return False
    for bucket, share in before.get("phases", {}).items():
        if bucket not in after.get("phases", {}) or not grew(share, after["phases"][bucket]):
            return False
    stood = after["to_ns"] == before["to_ns"] and after.get("recovered_ns", {}) == before.get("recovered_ns", {})
    return not stood or known(before) == known(after)


def known(tally: J) -> dict[tuple[str, ...], Any]:
    """The members of a tally, without those equivalent to absent ones."""

    def leaves(part: Any, path: tuple[str, ...]) -> Any:
        if not isinstance(part, dict):
            yield path, part
        for name in part if isinstance(part, dict) else ():
            yield from leaves(part[name], (*path, name))

    shares = {("phases", bucket): known(share) for bucket, share in tally.get("phases", {}).items()}
    whole = leaves({name: part for name, part in tally.items() if name != "phases"}, ())
    return {path: value for path, value in whole if value or path[0] not in GROWING or path[0] in KEPT} | shares


def no_less(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return all(
            no_less(value, after.get(name, {} if isinstance(value, dict) else 0)) for name, value in before.items()
        )
    return bool(before <= after)


def adds_up(tally: J, span: int) -> bool:
    return bool(sum(tally.get("observed_ns", {}).values()) + sum(tally.get("gap_ns", {}).values()) == span)


def less(whole: J, share: J) -> J:
    found = dict(whole)
    for name in ("to_ns", *GROWING):
        if name in share:
            found[name] = subtract(whole.get(name, {} if isinstance(share[name], dict) else 0), share[name])
    return found


def subtract(whole: Any, share: Any) -> Any:
    if not isinstance(share, dict):
        return whole - share
    names = {**whole, **share}
    return {name: subtract(whole.get(name, {} if isinstance(share.get(name), dict) else 0), share.get(name, 0)) if name in share else whole[name] for name in names}  # fmt: skip


def is_below_zero(part: Any) -> bool:
    return any(map(is_below_zero, part.values())) if isinstance(part, dict) else part is not None and part < 0


def identity(record: J) -> None:
    text(record["model"])
    for name in ("serial", "pci_bus_id", "driver", "peak_row"):
        or_null(text, record[name])
    for name in ("pci_device_id", "sm_count", "sm_clock_max_mhz"):
        or_null(count, record[name])
    declared_format(record["precision"])


def declared_format(stated: J | None) -> None:
    if stated is not None:
        text(stated["declared_by"])
        need(stated["shares_ppm"])
        for name, ppm in stated["shares_ppm"].items():
            text(name)
            need(count(ppm))


def recovered(found: J | None) -> None:
    if found is None:
        return
    need(re.fullmatch("0|[1-9][0-9]{0,39}", text(found["cutBytes"])))
    need(is_digest(found["cutSha256"]) and isinstance(found["reasons"], list) and found["reasons"])
    or_null(text, found["keptAs"])
    for reason in found["reasons"]:
        need(
            is_note(reason)
            and reason["code"] in RECOVERED
            and all(name in reason for name in RECOVERED[reason["code"]])
        )


def what_is_read(record: J) -> None:
    need(record["evidence"] in (*EVIDENCE, "gap"))
    for name in ("evidence_reason", "evidence_fix", "source"):
        text(record[name])
    or_null(text, record["shared_with"])


def continued(record: J) -> None:
    need(len(record) == 6 and len(record["run"]) == 3)
    need(is_digest(record["sha256"]) and is_digest(record["head_sha256"]))
    need(min(count(record[name]) for name in ("segment", "bytes", "records")) >= 1)
    count(record["run"]["records"]), count(record["run"]["daemon_starts"])
    for device in record["run"]["devices"]:
        need(device["phase"] is None or device["phase"] in PHASES)
        text(device["uuid"]), count(device["index"]), text(device["vendor"])
        or_null(text, device["parent"])
        identity(device)
        what_is_read(device)
        a_tally(device)
        count(device["incarnation"])


def declared(record: J | None) -> None:
    if record is None:
        return
    need(record["phase"] is None or record["phase"] in PHASES)
    need(record["method"] is None or record["method"] in METHODS)
    need(record["recomputation"] in (None, "none", "full", "selective"))
    need(is_base(record["base"]))


def is_base(base: J | None) -> bool:
    return base is None or (
        base["kind"] in ("known", "estimated", "unknown")
        and (base["flop"] is None) == (base["kind"] == "unknown")
        and (base["method"] is not None) == (base["kind"] == "estimated")
        and (base["flop"] is None or re.fullmatch("[1-9][0-9]{0,38}", base["flop"]) is not None)
        and (base["systemic"] is None or isinstance(base["systemic"], bool))
        and all(isinstance(one, str | None) for one in (base["name"], base["method"]))
        and isinstance(base.get("reason", ""), str)
    )


def context(record: J) -> None:
    run, node = record["run"], record["node"]
    need(record.keys() == {"run", "node", "attempt"} and run.keys() == {"platform", "jobName", "jobArn"})
    need(node.keys() == {"rank", "jobNodes", "instanceType"} and isinstance(node["jobNodes"], list))
    for value in (record["attempt"], run["platform"], *node["jobNodes"]):
        text(value)
    for value in (run["jobName"], run["jobArn"], node["instanceType"]):
        or_null(text, value)
    or_null(count, node["rank"])


def isolation(record: J) -> None:
    need(len(record) == 6)
    count(record["daemon_user"])
    or_null(count, record["job_user"])
    text(record["checkpoint_output"])
    need(isinstance(record["job_container"], bool) and isinstance(record["files_private"], bool))
    need(record["continues"] in (None, "launcher", "file_owner", "nothing"))


REFUSALS = ("count_exceeds_ceiling", "device_changed")
COUNTERS = (
    "steps", "forward_passes", "sequences", "tokens", "padding_tokens", "square_pairs", "window_pairs",
    "target_tokens", "target_square_pairs", "cross_pairs", "cross_tokens", "images", "patches", "patch_square_pairs",
    "patch_window_pairs", "headless_tokens", "unlabelled_tokens", "fused_head_tokens", "weight_passes",
    "weight_products", "trained_weight_products", "graded_weight_products", "recomputed_weight_products",
    "other_weight_products", "other_weight_products_max", "weight_square_pairs", "weight_pair_products",
    "framework_flop", "operator_flop", "recomputed_operator_flop",
)  # fmt: skip
KERNELS = (
    "matrix_bf16", "matrix_fp16", "matrix_tf32", "matrix_fp8", "matrix_fp4", "matrix_int8", "matrix_fp64",
    "matrix_plain", "matrix_unnamed", "attention", "convolution", "vector", "copy", "communication", "other",
)  # fmt: skip
WINDOWS = {
    *(f"kernel_window{of}" for of in ("s", "_ns", "_cost_ns", "s_skipped", "s_refused")),
    *(f"kernel_{what}_{kind}" for what in ("ns", "launches") for kind in KERNELS),
}


def counters(work: J) -> J:
    for phase, counted in work.items():
        need(phase in PHASES)
        for name, value in counted.items():
            need((name in COUNTERS or name in WINDOWS) and count(value) <= 10**30)
    return work


def windows(counted: J) -> None:
    """Law 10 for the observation of kernels."""
    times = {kind: counted.get(f"kernel_ns_{kind}", 0) for kind in KERNELS}
    whole = counted.get("kernel_window_ns", 0)
    need(sum(times.values()) <= 128 * whole, "law_10")
    need(not whole or counted.get("kernel_windows"), "law_10")
    need(all(counted.get(f"kernel_launches_{kind}") for kind, time in times.items() if time), "law_10")


def precision(stated: Any) -> None:
    shares = {stated: 10**6} if isinstance(stated, str) else stated
    need(shares and all(name in FORMATS and count(ppm) > 0 for name, ppm in shares.items()))
    need(sum(shares.values()) == 10**6)


def is_format(text: object) -> bool:
    """Whether it is a format, or several with their shares."""
    try:
        a_bucket(f"train@{text}")
    except (Refused, ValueError, OverflowError):
        return False
    return isinstance(text, str)


def one_of(*known: str) -> Any:
    return lambda value: need(value in known)


def short(value: Any) -> None:
    need(0 < len(text(value)) <= 200)


def adapters(value: J) -> None:
    need(value.keys() <= {"r", "target_modules", "modules_to_save"})
    count(value["r"])
    for names in (value[key] for key in value.keys() - {"r"}):
        or_null(lambda all_names: few(all_names, 256), names)


def a_config(value: Any) -> None:
    need(isinstance(value, dict) and _entries(value, 4) <= 400)


def _entries(value: Any, levels: int) -> int:
    """The number of entries in an object or list with at most `levels` levels."""
    if isinstance(value, str):
        need(len(value) <= 200)
    if not isinstance(value, (dict, list)):
        return 0
    need(levels > 0 and all(len(name) <= 200 for name in value if isinstance(value, dict)))
    return sum(1 + _entries(one, levels - 1) for one in (value.values() if isinstance(value, dict) else value))


def few(texts: Any, most: int) -> None:
    need(isinstance(texts, list) and len(texts) <= most)
    for one in texts:
        short(one)


def left_out(value: J) -> None:
    need(value.keys() <= {*PHASES})
    for texts in value.values():
        few(texts, 16)


def a_device(value: Any) -> None:
    need(re.fullmatch("[!-~]{1,100}", value))


def refused_count(value: J) -> None:
    need(value.keys() <= {"reason", "device", "flop", "ceiling"} and value["reason"] in REFUSALS)
    or_null(count, value["ceiling"])
    need((value["ceiling"] is None) != (value["reason"] == "count_exceeds_ceiling"))
    text(value["device"]), count(value["flop"])


FACTS: dict[str, Any] = {
    "parameters_total": count, "parameters_trainable": count, "method": one_of(*METHODS),
    "recomputation": one_of("none", "full", "selective"), "precision": precision, "lora": adapters,
    "attention": lambda value: need(re.fullmatch("[a-z0-9_]{1,40}", text(value))),
    "model_config": lambda value: a_config(value), "model_name": short, "not_counted": left_out,
    "role": one_of("reference", "reward", "teacher", "critic", "other"), "model_revision": short, "framework": short,
    "packing": lambda value: need(isinstance(value, bool)), "window": count, "rank": count, "local_rank": count,
    "world_size": count, "device": a_device, "operators_not_counted": left_out,
}  # fmt: skip


def laws_of_the_whole(begins: list[J], rated: list[dict[int, Rated]], before: list[dict[int, J]]) -> None:
    """Laws 7, 8 and 11. `before`: the tallies as in the journal, without the time to the seal."""
    claimed: dict[tuple[str, str], list[tuple[int, int]]] = {}
    by_uuid: dict[str, list[Rated]] = {}
    for begin, devices, tallies in zip(begins, rated, before, strict=True):
        for number, known in devices.items():
            device = Rated(known.record, known.table)
            device.tally |= tallies[number]
            by_uuid.setdefault(device.record["uuid"], []).append(device)
            times = device.record["to_ns"], device.tally["to_ns"]
            if times[0] < times[1]:
                claimed.setdefault((begin["boot_id"], device.record["uuid"]), []).append(times)
    for of_device in claimed.values():
        of_device.sort()
        need(all(one[1] <= other[0] for one, other in pairwise(of_device)), "law_7")
    for device in (device for same_device in by_uuid.values() for device in same_device):
        need(device.record["peak_row"] is None or device.row is not None, "peak_row_unknown")
        need(device.record["peak_row"] in (None, *rows_of(device)), "peak_row_other")
        law_8(device)
    for same_device in by_uuid.values():
        gap = sum(device.gap_ns() for device in same_device)
        recovered = sum(sum(device.tally.get("recovered_ns", {}).values()) for device in same_device)
        need(recovered <= gap, "law_11")
        job = sum(device.span - device.gap_ns(*ELSEWHERE) for device in same_device)
        need(sum(device.tally.get("energy_ns", 0) for device in same_device) <= job, "law_11")


def rows_of(device: Rated) -> set[str]:
    """The rows of the peak table that match its name and its PCI id; if no row matches one of them, those that match
    the other."""
    rows, model, pci = device.table["accelerators"], device.record["model"], device.record["pci_device_id"]
    named = {row["id"] for row in rows if model in row["names"]}
    found = {row["id"] for row in rows if pci in [int(one, 16) for one in row.get("pci_device_ids", ())]}
    return named & found if named and found else named or found


def law_8(device: Rated) -> None:
    tally = device.tally
    t = device.span - device.gap_ns(*ELSEWHERE) + 60 * 10**9
    both = device.undeclared_ceilings()
    if device.chip_flop_per_s is not None:
        most: int | None = t * max(device.chip_flop_per_s, device.chip_integers_per_s or 0) // 10**9
    else:
        known_both = [rate for rate in both if rate is not None]
        open_ = device.sms_mhz is None or len(known_both) < 2
        most = None if open_ else ceil_of_sms(device, t) * sum(known_both)
    need(most is None or tally.get("counted_flop", 0) <= most, "law_8")
    if device.sms_mhz is None:
        return
    for evidence, pipes in tally.get("sm_cycles", {}).items():
        known = tally["observed_ns"].get(evidence, 0) + tally.get("recovered_ns", {}).get(evidence, 0)
        possible = ceil_of_sms(device, known + (200_000_000 if evidence == "cycles" else 0))
        possible += possible * 10_000 // 10**6 + 1 + device.span // 10**6
        need(all(cycles <= possible for cycles in pipes.values()), "law_8")


def ends_of(journal: bytes) -> list[tuple[int, str]]:
    """Bytes and hash up to the end of each line."""
    found, size = [], 0
    for raw in journal.splitlines(keepends=True):
        size += len(raw)
        found.append((size, raw[6:70].decode("ascii", "replace")))
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
