"""Declarations that cannot all be true, by docs/ledger-codes.md."""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from tests.second_implementation.architecture import bases_of
from tests.second_implementation.arithmetic import Rated, add

J = dict[str, Any]


def said(name: str, code: str, **parameters: object) -> J:
    return {"name": name, "code": code, **parameters}


def once(found: Iterable[J]) -> list[J]:
    return list({json.dumps(one, sort_keys=True): one for one in found}.values())


def contradictions(starts: list[J], sessions: list[J], policies: list[J], devices: list[Rated]) -> list[J]:
    """The contradictions of a node; `starts` are the settings of its daemon starts."""
    settings = starts[-1]
    sessions = sorted(sessions, key=lambda one: int(one["at"]))
    own = [one for one in sessions if "role" not in one["facts"]]
    found = [
        *(one for base in bases_of(starts) for one in of_base(base, policies)),
        *_of_starts(starts),
        *_of_settings(settings, sessions),
    ]
    found += [one for session in own for one in _of_session(settings, session)]
    return once([*found, *(one for session in sessions for one in _of_counts(session, sessions, devices))])


def of_base(base: J | None, policies: list[J]) -> Iterator[J]:
    """The contradiction of a base model that the law presumes to carry systemic risk."""
    for policy in policies:
        presumed = policy.get("base_systemic_presumed")
        if not presumed or not base or base["flop"] is None or base["systemic"]:
            continue
        limit = Fraction(str(presumed["above"]))
        margin = policy.get("estimation_margin", {}).get("ppm", 300_000) if base["kind"] == "estimated" else 0
        if Fraction(int(base["flop"]) * (10**6 - margin), 10**6) <= limit:
            continue
        stated = {"flop": str(limit.numerator // limit.denominator), "citation": presumed["citation"]}
        if base["systemic"] is None:
            yield said("SYSTEMIC_RISK_IS_PRESUMED", "systemic_presumed", **stated)
        elif base.get("reason"):
            yield said("SYSTEMIC_RISK_IS_PRESUMED", "systemic_presumed_and_denied", **stated, reason=base["reason"])
        else:
            yield said("SYSTEMIC_RISK_IS_PRESUMED", "systemic_presumed_and_denied_without_reason", **stated)


def _of_starts(starts: list[J]) -> Iterator[J]:
    for start in starts:
        methods = [one.get("method") for one in (start, starts[-1])]
        if all(methods) and len(set(methods)) == 2:
            yield said("METHOD_DIFFERS", "start_method_differs", earlier=methods[0], last=methods[1])
    if len(bases_of(starts)) > 1:
        yield said("BASE_MODEL_DIFFERS", "start_base_differs")


def _of_settings(settings: J, sessions: list[J]) -> Iterator[J]:
    method = settings.get("method")
    if settings.get("base") and method == "pretraining":
        yield said("PRETRAINING_WITH_A_BASE", "pretraining_with_base")
    if settings.get("phase") == "evaluate" and method:
        yield said("EVALUATION_WITH_A_METHOD", "evaluation_with_method", method=method)
    fused = any(work.get("fused_head_tokens") for one in sessions for work in one["work"].values())
    if settings.get("recomputation") == "none" and fused:
        yield said("LOSS_RECOMPUTES", "fused_head")


def _of_session(settings: J, session: J) -> Iterator[J]:
    facts, base, method = session["facts"], settings.get("base"), settings.get("method")
    theirs = facts.get("method")
    if method and theirs and method != theirs:
        yield said("METHOD_DIFFERS", "process_method_differs", settings=method, process=theirs)
    ours, loaded = base["name"] if base else None, facts.get("model_name")
    if ours and loaded and loaded[0] not in "/.~" and last_part(ours) != last_part(loaded):
        yield said("BASE_MODEL_DIFFERS", "process_model_differs", settings=ours, process=loaded)
    if base and not method and theirs == "pretraining":
        yield said("PRETRAINING_WITH_A_BASE", "process_pretraining_with_base")
    train = session["work"].get("train", {})
    if settings.get("phase") == "evaluate" and (train.get("tokens") or train.get("patches")):
        yield said("EVALUATION_THAT_TRAINS", "evaluation_that_trains")
    how, total, some = method or theirs, facts.get("parameters_total"), facts.get("parameters_trainable")
    if not how or not total or some is None:
        return
    if (some != total) == (how in ("pretraining", "full")):
        stated = {"method": how, "trainable": str(some), "total": str(total)}
        yield said("TRAINABLE_SHARE_DIFFERS", "trainable_share_differs", **stated)


def last_part(name: str) -> str:
    """The part of a model's name that is compared."""
    part = name.rstrip("/").rpartition("/")[2].lower()
    return "".join(one for one in part if unicodedata.category(one)[0] in "LN")


def _of_counts(session: J, sessions: list[J], devices: list[Rated]) -> Iterator[J]:
    """A count of operators that is in no figure."""
    stated: J = {"session": session["id"][:8]}
    if refused := session.get("refused"):
        stated |= {"flop": str(refused["flop"]), "device": refused["device"]}
        if refused["reason"] == "device_changed":
            yield said("DEVICE_CHANGED", "device_changed", **stated)
        else:
            yield said("COUNT_EXCEEDS_CEILING", "count_exceeds_ceiling", **stated, ceiling=str(refused["ceiling"]))
        return
    flop, uuid = counted(session), session["facts"].get("device")
    stated["flop"] = str(flop)
    if not flop:
        return
    if uuid is None:
        yield said("DEVICE_NOT_METERED", "device_not_named", **stated)
        return
    own = [device for device in devices if device.record["uuid"] == uuid]
    same = (one for one in sessions if one["facts"].get("device") == uuid and not one.get("refused"))
    stated["flop"] = str(all_of_it := sum(map(counted, same)))
    if not own:
        yield said("DEVICE_NOT_METERED", "device_not_metered", **stated, device=uuid)
        return
    most = add(device.total() for device in own)[2]
    if most is not None and all_of_it > most:
        yield said("COUNT_EXCEEDS_CEILING", "count_exceeds_ceiling", **stated, device=uuid, ceiling=str(most))


def counted(session: J) -> int:
    return sum(work.get("operator_flop", 0) for work in session["work"].values())


def merged_contradictions(entries: list[J], base: J | None, policies: list[J], *, is_job: bool) -> list[J]:
    found = [one for entry in entries for one in entry["declared"]["contradictions"]] + list(of_base(base, policies))
    declared = {entry["declared"]["method"] for entry in entries}
    methods = sorted(declared - {None})
    if is_job and len(methods) > 1:
        found.append(said("METHOD_DIFFERS", "node_methods_differ", methods=methods))
    if is_job and declared >= {None, "pretraining"}:
        found.append(said("METHOD_DIFFERS", "node_method_not_declared"))
    texts = {json.dumps(one, sort_keys=True, separators=(",", ":")): one for one in found}
    return [texts[text] for text in sorted(texts)]
