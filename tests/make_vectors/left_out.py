"""Vectors of law 16 and of device time that no record accounts for; and of a device rated by another row."""

import copy
from collections.abc import Callable
from typing import Any

from tests.make_vectors.edits import Edit, edits
from tests.make_vectors.files import Files
from tests.make_vectors.records import Case, made_of

J = dict[str, Any]
S = 10**9
LAW = ("law_16", "LAW-16", None)
ROW = ("peak_row_other", "PEAK-13", None)
OTHER_BOOT = "00000000-0000-4000-8000-00000000b0ff"


@edits
def _later(records: list[J], ns: int) -> None:
    """The second start takes up its first device later by `ns`."""
    begin = next(at for at, record in enumerate(records) if record["kind"] == "begin" and record["incarnation"] == 2)
    for record in records[begin:]:
        if record["kind"] == "device" and record["number"] == 0:
            record["to_ns"] += ns
        for tally in record["devices"] if record["kind"] == "checkpoint" else ():
            if tally["number"] == 0:
                tally["gap_ns"]["daemon_down"] -= ns
        for gap in record.get("gaps", ()):
            if gap[0] == 0 and gap[3] == "daemon_down":
                gap[1] += ns


@edits
def _second_start(records: list[J], *, ended: bool) -> None:
    """The second start has no device."""
    begin = next(at for at, record in enumerate(records) if record["kind"] == "begin" and record["incarnation"] == 2)
    records[begin:] = [records[begin], *(records[-1:] if ended else [])]


def two_starts(
    *, passed: int = 10 * S, boot: str | None = None, until: int = 0, reason: str | None = None, more: int = 2 * S
) -> Edit:
    """A start that is killed after five seconds, and another one `passed` later that has the device from `until`
    before its begin, as a gap, and reads `more` of it. `reason`: the last second of the first start is a gap with
    this reason."""

    def edit(records: list[J]) -> None:
        begin, source, device, first, _, end = copy.deepcopy(records)
        last = first["devices"][0]
        if reason is not None:
            last["observed_ns"]["activity"] -= S
            last["gap_ns"] = {reason: S}
            first["gaps"] = [[0, last["to_ns"] - S, last["to_ns"], reason]]
        last["energy_ns"] = 0
        at = 30 * S if boot else first["ns"] + passed
        wall = begin["wall_ns"] + first["ns"] - begin["ns"] + passed
        second = {**begin, "incarnation": 2, "ns": at, "wall_ns": wall, "boot_id": boot or begin["boot_id"]}
        tally: J = {
            "number": 0,
            "to_ns": at + more,
            "observed_ns": {"activity": more},
            "gap_ns": {"daemon_down": until},
        }
        gaps = [[0, at - until, at, "daemon_down"]] if until else []
        of_second = [
            second, source, {**device, "to_ns": at - until}, {**first, "ns": at + 2 * S, "devices": [tally], "gaps": gaps},
            {**end, "ns": at + 2 * S},
        ]  # fmt: skip
        records[:] = [begin, source, device, first, *({**one, "incarnation": 2} for one in of_second)]

    return edit


def _by(**device: Any) -> Callable[[list[J]], object]:
    return lambda records: records[2].update(device)


CASES: list[Case] = [
    ("before-the-end", "The last nanosecond before the end is not accounted for.", *LAW, "small", lambda r: r[-1].update(ns=r[-1]["ns"] + 1)),
    ("of-one-device-before-the-end", "One of two devices is not accounted for up to the end.", *LAW, "activity", lambda r: [r[-2]["devices"][0].update(to_ns=r[-2]["devices"][0]["to_ns"] - 1), r[-2]["devices"][0]["observed_ns"].update(activity=r[-2]["devices"][0]["observed_ns"]["activity"] - 1)]),
    ("between-two-starts", "A nanosecond between a start that was killed and the next is not accounted for.", *LAW, "activity", _later(1)),
    ("between-two-boots", "A nanosecond between a start that was killed and one on another boot is not accounted for.", *LAW, "small", two_starts(boot=OTHER_BOOT, until=10 * S - 1)),
    ("by-a-gap-that-takes-nothing-over", "A start that was killed is continued late; the last gap before it is no account of others.", *LAW, "small", two_starts(reason="stale")),
    ("by-an-earlier-gap-of-others", "A start that was killed is continued a nanosecond late.", *LAW, "small", two_starts(until=10 * S - 1)),
    ("of-a-device-that-stays", "A device is accounted for up to the begin of a start on the same boot, and no further.", *LAW, "small", two_starts(until=10 * S, more=0)),
    ("none-between-two-boots", "A start on another boot goes on where the one before was killed.", None, None, None, "small", two_starts(boot=OTHER_BOOT, until=10 * S)),
    ("none-where-others-took-over", "A device was metered as its slices when the start was killed.", None, None, None, "small", two_starts(reason="metered_as_mig")),
    ("none-where-a-name-was-replaced", "A device was metered under another name when the start was killed.", None, None, None, "small", two_starts(reason="replaced")),
    ("none-of-a-machine-that-is-gone", "A device of another boot is accounted for up to the begin of the start, and no further.", None, None, None, "small", two_starts(boot=OTHER_BOOT, until=10 * S, more=0)),
    ("open-in-a-later-start", "A start was killed before it took up the devices of the one before.", None, None, None, "activity", _second_start(ended=False)),
    ("open-at-the-end", "A start ended and never took up the devices of the one before.", None, None, None, "activity", _second_start(ended=True)),
    ("row-of-another-name-and-id", "A device is rated by a row with another name and another PCI id.", *ROW, "small", _by(peak_row="a10g")),
    ("row-of-another-name", "A device is rated by the row of its PCI id, and has the name of another.", *ROW, "small", _by(model="NVIDIA A10G")),
    ("row-of-another-id", "A device is rated by the row of its name, and has the PCI id of another.", *ROW, "small", _by(pci_device_id=0x2237)),
    ("row-of-neither", "A device is rated by a row, and no row has its name or its PCI id.", *ROW, "small", _by(model="X9000", pci_device_id=0x9999)),
    ("row-by-its-name", "A device has the name of its row, and no PCI id.", None, None, None, "small", _by(pci_device_id=None)),
    ("row-by-its-name-alone", "A device has the name of its row, and a PCI id that no row has.", None, None, None, "small", _by(pci_device_id=0x9999)),
    ("row-by-its-id", "A device has the PCI id of its row, and a name that no row has.", None, None, None, "small", _by(model="H100")),
]  # fmt: skip


def left_out_vectors() -> Files:
    return made_of(CASES, "left-out-")
