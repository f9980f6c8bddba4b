"""The rules of a policy, from docs/ledger-arithmetic.md (FIND), without flopsd."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

from tests.second_implementation import reasons

J = dict[str, Any]
M = 10**6
Figures = tuple[int, int | None, int | None]
Range = tuple[Fraction, Fraction | None]
NAMES = ("low", "measured", "high")
WITH_BASE = ("base+updates", "base+cumulative")


@dataclass
class Account:
    """The facts to be judged: figures that count, those of integer operations, and the settings' declarations."""

    updates: Figures
    cumulative: Figures
    integers: tuple[Figures, Figures]
    claimed: tuple[Figures, Figures] | None
    method: str | None
    base: J | None
    whole: bool
    conflict: tuple[str, ...] = ()
    by_operators: tuple[int, int] = (0, 0)  # how much of either low rests on what processes count of operators
    methods: tuple[str | None, ...] = ()  # of the nodes of a merged ledger


def number(text: object) -> Fraction:
    """A count as policies write it: `1e25/3`."""
    whole, _, parts = str(text).partition("/")
    return Fraction(whole) / Fraction(parts or 1)


def line(text: Any) -> str | None:
    return None if text is None else " ".join(str(text).split())


def findings(policies: list[J], account: Account) -> list[J]:
    return [finding for policy in policies for finding in of_policy(policy, account)]


def of_policy(policy: J, account: Account) -> list[J]:
    judged = judge(policy, account, account.updates, account.cumulative)
    updates, cumulative = account.by_operators
    without: list[Figures] = [
        (low - less, measured, high)
        for (low, measured, high), less in ((account.updates, updates), (account.cumulative, cumulative))
    ]
    for one, other in zip(judged, judge(policy, account, without[0], without[1]), strict=True):
        one["restsOn"] = None if other["state"] == one["state"] else "operator_count"
        if one["restsOn"] is not None:
            one["reasons"] = [*one["reasons"], reasons.note("by_operators")]
    if account.claimed is not None:
        for one, other in zip(judged, judge(policy, account, *account.claimed), strict=True):
            if other["state"] != one["state"]:
                one["stateIfClaimsHold"] = other["state"]
    return judged


def judge(policy: J, account: Account, updates: Figures, cumulative: Figures) -> list[J]:
    counts = policy.get("integer_operations") == "counted"
    if counts:
        updates, cumulative = both(updates, account.integers[0]), both(cumulative, account.integers[1])
    if not account.whole:
        updates, cumulative = (*updates[:2], None), (*cumulative[:2], None)
    rules = {rule["id"]: rule for rule in policy["rules"]}
    judge_one = Judge(policy, account, {"updates": updates, "cumulative": cumulative})
    plain = {name: judge_one.compared(rule) for name, rule in rules.items() if "derived" not in rule}
    found = {**plain, **{name: judge_one.derived(rule, plain) for name, rule in rules.items() if "derived" in rule}}
    return [
        {
            "policy": policy["id"],
            "rule": name,
            "countsIntegerOperations": counts,
            **found[name],
            "stateIfClaimsHold": None,
            "title": line(rule.get("title", name)),
            "citation": line(rule["citation"]),
            "consequence": line(rule.get("consequence")),
            "assumes": line(rule.get("assumes")),
            "otherConditions": [line(text) for text in rule.get("other_conditions", ())],
            "status": rule.get("status", "text"),
            "since": rule.get("since"),
        }
        for name, rule in rules.items()
    ]


def both(one: Figures, other: Figures) -> Figures:
    known = [m for m in (one[1], other[1]) if m is not None]
    unmeasured = any(m is None and high != 0 for _, m, high in (one, other))
    return (
        one[0] + other[0],
        None if unmeasured or not known else sum(known),
        None if one[2] is None or other[2] is None else one[2] + other[2],
    )


class Judge:
    """One policy and one account."""

    def __init__(self, policy: J, account: Account, own: dict[str, Figures]) -> None:
        self.policy, self.account, self.own = policy, account, own
        self.margin = policy.get("estimation_margin", {}).get("ppm", 300_000)

    def base_bounds(self) -> Range:
        base = self.account.base
        if base is None or base["flop"] is None or base["kind"] not in ("known", "estimated"):
            return Fraction(0), None
        flop = int(base["flop"])
        if base["kind"] == "known":
            return Fraction(flop), Fraction(flop)
        return Fraction(flop * (M - self.margin), M), Fraction(flop * (M + self.margin), M)

    def base_range(self, rule: J) -> Range:
        low, high = self.base_bounds()
        limits = rule.get("when", {}).get("base.flop", {})
        if "above" in limits:
            low = max(low, number(limits["above"]))
        if "not_above" in limits:
            most = number(limits["not_above"])
            high = most if high is None else min(high, most)
        return low, high

    def conditions(self, rule: J) -> dict[str, bool | None]:
        when, method, base = rule.get("when", {}), self.account.method, self.account.base
        found: dict[str, bool | None] = {}
        if "modification" in when:
            if method is None:
                found["modification"] = None
            elif method == "pretraining":
                open_ = base is not None or self.account.conflict
                found["modification"] = None if open_ else not when["modification"]
            else:
                found["modification"] = when["modification"]
        if when.get("method"):
            each = self.account.methods or (method,)
            within = {one in when["method"] for one in each}
            found["method"] = within.pop() if None not in each and len(within) == 1 else None
        for name in ("base.kind", "base.systemic", "base.flop"):
            if name not in when:
                continue
            if base is None:
                found[name] = None
            elif name == "base.kind":
                found[name] = base["kind"] in when[name]
            elif name == "base.systemic":
                found[name] = None if base["systemic"] is None else base["systemic"] == when[name]
            else:
                low, high = self.base_bounds()
                limit = number(next(iter(when[name].values())))
                is_above = True if low > limit else None if high is None or high > limit else False
                found[name] = is_above if "above" in when[name] or is_above is None else not is_above
        return found

    def applies(self, rule: J) -> bool | None:
        answers = self.conditions(rule).values()
        return False if False in answers else None if None in answers else True

    def quantities(self, rule: J) -> list[str]:
        chosen = rule.get("quantity", "cumulative")
        if not isinstance(chosen, dict):
            return [chosen]
        systemic = rule.get("when", {}).get("base.systemic")
        if systemic is None and self.account.base is not None:
            systemic = self.account.base["systemic"]
        elif systemic is None and self.account.method == "pretraining" and not self.account.conflict:
            systemic = False
        pair = [chosen["ordinary_base"], chosen["systemic_base"]]
        return list(dict.fromkeys(pair)) if systemic is None else [pair[systemic]]

    def value(self, quantities: list[str], base: Range, *, alone: bool = False) -> Figures:
        parts: list[Figures] = []
        for quantity in quantities:
            low, measured, high = self.own[quantity.removeprefix("base+")]
            if quantity in WITH_BASE and not alone:
                low, measured = low + floor(base[0]), None
                high = None if high is None or base[1] is None else high + ceil(base[1])
            parts.append((low, measured, high))
        highs, measures = [high for _, _, high in parts], {measured for _, measured, _ in parts}
        return (
            min(low for low, _, _ in parts),
            measures.pop() if len(measures) == 1 else None,
            None if None in highs else max(high for high in highs if high is not None),
        )

    def threshold(self, rule: J) -> tuple[Range, bool]:
        name = "at_least" if "at_least" in rule else "greater_than"
        given = rule[name]
        if not isinstance(given, dict):
            return (number(given), number(given)), name == "at_least"
        low, high = self.base_range(rule)
        part = number(given["of_base"])
        return (low * part, None if high is None else high * part), name == "at_least"

    def state(self, value: Figures, rule: J) -> str:
        (low, high), at_least = self.threshold(rule)

        def crosses(flop: int, end: Fraction) -> bool:
            return flop >= end if at_least else flop > end

        if high is not None and crosses(value[0], high):
            return "above"
        return "below" if value[2] is not None and not crosses(value[2], low) else "indeterminate"

    def compared(self, rule: J) -> J:
        applies, quantities = self.applies(rule), self.quantities(rule)
        base = self.base_bounds() if applies is False else self.base_range(rule)
        value = self.value(quantities, base)
        found: J = {
            "applies": applies,
            "quantities": list(quantities),
            "value": as_text(value),
            "threshold": None,
            "state": None,
            "aboveOnlyIfBase": None,
            "sharePpm": dict.fromkeys(NAMES),
            "reasons": self.of_conditions(rule),
        }
        if applies is False:
            return found
        (low, high), at_least = self.threshold(rule)
        state = self.state(value, rule)
        lowered = state == "above" and applies is None and not self.either_way(rule)
        state = "indeterminate" if lowered else state
        found["threshold"] = {
            "low": str(low),
            "high": None if high is None else str(high),
            "comparison": "at_least" if at_least else "greater_than",
        }
        found["state"] = state
        found["reasons"] = [*found["reasons"], *reasons.of_state(found, lowered=lowered, whole=self.account.whole)]
        if state == "indeterminate":
            found["aboveOnlyIfBase"] = self.only_if(rule, quantities, base)
        found["sharePpm"] = share(value, low, high)
        return found

    def either_way(self, rule: J) -> bool:
        open_ones = [name for name, holds in self.conditions(rule).items() if holds is None]
        if open_ones != ["base.systemic"] or self.account.base is None or "or_else" not in rule:
            return False
        other = next(one for one in self.policy["rules"] if one["id"] == rule["or_else"])
        return self.state(self.value(self.quantities(other), self.base_range(other)), other) == "above"

    def only_if(self, rule: J, quantities: list[str], base: Range) -> J | None:
        low, high = base
        own = self.value(quantities, base, alone=True)[2]
        if own is None or low == high:
            return None
        when = rule.get("when", {})
        above = when.get("base.flop", {}).get("above")
        least = int(low) + 1 if above is not None and low == number(above) else ceil(low)
        most = None if high is None else floor(high)
        name = "at_least" if "at_least" in rule else "greater_than"
        if isinstance(rule[name], dict):
            whole = own / number(rule[name]["of_base"])
            crossed = floor(whole) if name == "at_least" else ceil(whole) - 1
            most = crossed if most is None else min(most, crossed)
        elif all(quantity in WITH_BASE for quantity in quantities):
            lacking = number(rule[name]) - own
            least = max(least, ceil(lacking) if name == "at_least" else floor(lacking) + 1)
        else:
            return None
        if most is None or least > most:
            return None
        return {"leastFlop": str(least), "mostFlop": str(most), "systemic": when.get("base.systemic")}

    def derived(self, rule: J, plain: dict[str, J]) -> J:
        applies, first = self.applies(rule), plain[rule["derived"][0]]
        own = self.of_conditions(rule)
        taken = [name for name in rule["derived"] if plain[name]["applies"] is not False]
        sources = [plain[name] for name in taken]
        if applies is False or not sources:
            nothing = {"threshold": None, "state": None, "aboveOnlyIfBase": None, "sharePpm": dict.fromkeys(NAMES)}
            why = own if applies is False else [reasons.note("no_rule_applies"), *first["reasons"]]
            return {**first, "applies": False, **nothing, "reasons": why}
        open_ones = [source for source in sources if source["state"] != "below"]
        rest = open_ones or sources
        names = [name for name in taken if any(plain[name] is one for one in rest)]
        certain = applies is True and len(sources) == 1 and rest[0]["applies"] is True
        return {
            **rest[0],
            **around(rest),
            "applies": True if certain else None,
            "state": rest[0]["state"] if certain or not open_ones else "indeterminate",
            "aboveOnlyIfBase": rest[0]["aboveOnlyIfBase"] if len(rest) == 1 else None,
            "reasons": reasons.of_derived(own, applies, names, rest),
        }

    def of_conditions(self, rule: J) -> list[J]:
        account = self.account
        conditions, applies = self.conditions(rule), self.applies(rule)
        methods = account.methods or (account.method,)
        return reasons.of_conditions(rule, conditions, applies, account.method, account.base, account.conflict, methods)


def around(rest: list[J]) -> J:
    """The figures of a derived rule, around those of the rules from which it may derive."""
    measured = {one["value"]["measured"] for one in rest}
    only = measured.pop() if len(measured) == 1 else None
    least, most = ends_of([one["value"] for one in rest])
    value = int(least), None if only is None else int(only), None if most is None else int(most)
    low, high = ends_of([one["threshold"] for one in rest])
    return {
        "quantities": list(dict.fromkeys(name for one in rest for name in one["quantities"])),
        "value": as_text(value),
        "threshold": {**rest[0]["threshold"], "low": str(low), "high": None if high is None else str(high)},
        "sharePpm": share(value, low, high),
    }


def ends_of(ranges: list[J]) -> Range:
    highs = [one["high"] for one in ranges]
    return min(Fraction(one["low"]) for one in ranges), None if None in highs else max(map(Fraction, highs))


def share(value: Figures, low: Fraction, high: Fraction | None) -> J:
    if low <= 0:
        return dict.fromkeys(NAMES)
    return as_text(
        (
            None if high is None else floor(value[0] * M / high),
            round(value[1] * M / low) if low == high and value[1] is not None else None,
            None if value[2] is None else ceil(value[2] * M / low),
        )
    )


def as_text(figures: tuple[int | None, int | None, int | None]) -> J:
    return {name: None if n is None else str(n) for name, n in zip(NAMES, figures, strict=True)}
