"""Training processes' counts of operators, by docs/ledger-arithmetic.md."""

from typing import Any

from tests.second_implementation.arithmetic import Figures, Rated, add

J = dict[str, Any]
LEFT_OUT = ("not_counted", "operators_not_counted")
NOTHING: Figures = (0, None, 0)
PHASES = ("train", "evaluate", "generate", "other")


def operator_rows(devices: list[Rated], sessions: list[J]) -> list[J]:
    """The rows of one device, given as `devices` in all incarnations. Each has its phase by the settings, and by
    these or else by the process."""
    uuid = devices[0].record["uuid"]
    own = [one for one in sessions if one["facts"].get("device") == uuid and not one.get("refused")]
    counted = {p: sum(one["work"].get(p, {}).get("operator_flop", 0) for one in own) for p in PHASES}
    c, whole = sum(counted.values()), add(device.total() for device in devices)
    if (most := whole[2]) is not None and c > most:
        return []
    words = {device.word for device in devices}
    word = words.pop() if len(words) == 1 else None
    found = []
    stated = beyond(counted, whole, [device.by_phase() for device in devices], devices, claimed=False)
    as_claimed = [device.by_words("figures")[2] for device in devices]
    all_claimed = add(figures for one in as_claimed for figures in one.values())
    claimed = beyond(counted, all_claimed, as_claimed, devices, claimed=True)
    for phase in PHASES:
        figures, least = stated[phase], claimed[phase]
        known = [sum(one[phase][n] or 0 for one in as_claimed if phase in one) for n in (0, 1)]
        evaluated, high = (add(one.get(p, NOTHING) for one in as_claimed)[2] for p in ("evaluate", phase))
        beside = phase != "evaluate" and high is not None and counted[phase] > high
        least = (least[0], max(least[1] or 0, known[0] + least[0] - known[1]), evaluated if beside else 0)
        if figures[0] or figures[1]:
            found.append(
                {
                    "uuid": uuid,
                    "key": (phase, "operator_count", "", "undeclared"),
                    "cycles": 0,
                    "ns": 0,
                    "doubt": 0,
                    "figures": figures,
                    "claimed": least,
                    "integers": (0, None, 0),
                    "words": (word or "undeclared", word or phase),
                }
            )  # fmt: skip
    return found


def beyond(
    counted: dict[str, int], whole: Figures, by_phase: list[dict[str, Figures]], devices: list[Rated], *, claimed: bool
) -> dict[str, Figures]:
    """The amount that a count adds to the measurement, as recorded or as claimed by processes."""
    read = [row for device in devices for row in device.rows(claimed)]
    ceilings = [row["figures"][2] for row in read if row["key"][1] in ("utilization", "gap")]
    left = [max(0, sum(counted.values()) - (known or 0)) for known in whole[:2]]
    left = left if None in ceilings else [min(sum(ceilings), n) for n in left]
    found: dict[str, Figures] = {}
    for phase in PHASES:
        parts = []
        for n in (0, 1):
            known = sum(one[phase][n] or 0 for one in by_phase if phase in one)
            parts.append(min(left[n], max(0, counted[phase] - known)))
            left[n] -= parts[n]
        found[phase] = (parts[0], parts[1], 0)
    return found


def operators_of(sessions: list[J]) -> int | None:
    """The share s of operators in training that were not recomputed, in millionths."""
    if any("train" in one["facts"].get(name, {}) for one in sessions for name in LEFT_OUT):
        return None
    work = [one["work"].get("train", {}) for one in sessions if not one.get("refused")]
    whole, again = (sum(one.get(f"{name}operator_flop", 0) for one in work) for name in ("", "recomputed_"))
    return max(666666, (whole - again) * 10**6 // whole) if whole and again <= whole else None


def counted_of(devices: list[Rated], sessions: list[J]) -> list[tuple[Figures, int]]:
    """For each device with measuring counters and counted operators: its figures without the count, and the count."""
    found = []
    for uuid in {device.record["uuid"] for device in devices}:
        own = [one for one in sessions if one["facts"].get("device") == uuid and not one.get("refused")]
        c = sum(work.get("operator_flop", 0) for one in own for work in one["work"].values())
        figures = add(device.total() for device in devices if device.record["uuid"] == uuid)
        if c and figures[1] is not None:
            found.append((figures, c))
    return found
