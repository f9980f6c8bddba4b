"""The open questions that only hardware settles, answered one by one from a results document as far as possible.

An answer states the observation with its numbers. Without an observation it is "not answered here", with the reason.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.hardware import probe_answers
from tests.hardware.probe_answers import Facts, NotAnsweredError
from tests.hardware.raw import NAMES

MOVED_PERCENT = 0.5
_OK = 0


def answers(document: Facts, environment: Mapping[str, str] = os.environ) -> list[dict[str, Any]]:
    """All answers, in order: {number, subject, question, asked, answer, not_answered}."""
    found = []
    for number, (subject, question, asked, ask) in enumerate(QUESTIONS, start=1):
        answer, reason = None, None
        try:
            if document["origin"] == "simulated" and number in _HARDWARE_ONLY:
                raise NotAnsweredError("the driver was simulated")
            answer = ask(document, environment)
        except NotAnsweredError as fault:
            reason = str(fault)
        stated = {"number": number, "subject": subject, "question": question, "asked": asked}
        found.append({**stated, "answer": answer, "not_answered": reason})
    return found


def done(document: Facts, **wanted: object) -> list[Facts]:
    """The measured loads, sorted with the longest and largest last."""
    found = [r for r in document["loads"] if r["status"] == "done" and all(r[k] == v for k, v in wanted.items())]
    return sorted(found, key=lambda r: (r["seconds_asked"], r["size"]))


def grown(triple: Facts | None, metric: int) -> tuple[float, str] | None:
    """(growth from the second to the third sample, the form in which the driver gives it), or None if it gives none."""
    if triple is None:
        return None
    ab, bc, ac = (triple[name][str(metric)]["value"] for name in ("cycles_ab", "cycles_bc", "cycles_ac"))
    if ab is None or bc is None or ac is None:
        return None
    if ac == bc and bc >= ab > 0:
        return bc - ab, "absolute"
    if abs(ac - ab - bc) <= 1e-6 * max(1.0, ac):
        return bc, "difference"
    return None


def _percent(triple: Facts | None, metric: int) -> float | None:
    value = None if triple is None else triple["percent"][str(metric)]
    return None if value is None or value["status"] != _OK else value["value"]


def _span_s(triple: Facts) -> float:
    return float(triple["ns"][2] - triple["ns"][1]) / 1e9


def _no_cycles(document: Facts) -> NotAnsweredError:
    statuses = {r["raw"]["whole"]["cycles_bc"]["248"]["status"] for r in done(document) if r["raw"]["whole"]}
    return NotAnsweredError(
        f"driver {document['device']['driver']} does not give ids 248 to 260 (status {sorted(map(str, statuses))})"
        if statuses
        else "no load with GPM samples was measured"
    )


def scale(document: Facts, _: Mapping[str, str]) -> str:
    lines = []
    for result in (*done(document, kind="idle")[-1:], *done(document, kind="gemm", format="bf16", setting="")[-1:]):
        steady, clock = result["raw"]["steady"], result["clock_mhz"]
        elapsed, mma = grown(steady, 248), grown(steady, 250)
        if elapsed is None or clock is None or not _span_s(steady):
            continue
        factor = elapsed[0] / (clock["mean"] * 1e6 * _span_s(steady))
        line = f"{result['name']}: ELAPSED is {factor:.3f} x SM clock x time"
        tensor = _percent(steady, 5)
        if mma is not None and tensor is not None and elapsed[0]:
            line += f", MMA/ELAPSED {100 * mma[0] / elapsed[0]:.2f} % where ANY_TENSOR_UTIL says {tensor:.2f} %"
        lines.append(line)
    if not lines:
        raise _no_cycles(document)
    return "; ".join(lines) + f"; the device has {document['device']['sm_count']} SMs"


def absolute(document: Facts, _: Mapping[str, str]) -> str:
    measured = [r for r in document["loads"] if r["status"] == "done"]
    kinds = [g[1] for r in measured if (g := grown(r["raw"]["whole"], 248)) is not None]
    if not kinds:
        raise _no_cycles(document)
    first = measured[0]
    at_first = first["raw"]["whole"]["cycles_ab"]["248"]["value"] if first["raw"]["whole"] else None
    stood = ""
    if set(kinds) == {"absolute"} and at_first and first["clock_mhz"]:
        seconds = at_first / first["clock_mhz"]["mean"] / 1e6
        stood = f"; it stood at {at_first:.4g} before the first load, {seconds:.0f} s of that load's SM clock"
    seen = " and ".join(f"{kind} in {kinds.count(kind)} loads" for kind in sorted(set(kinds)))
    return f"SM_CYCLES_ELAPSED: {seen}{stood}. Process exit, persistence mode and reset were not tried"


def formats(document: Facts, _: Mapping[str, str]) -> str:
    lines = []
    products = [r for r in done(document, setting="") if r["kind"] in ("gemm", "sparse")]
    for key in dict.fromkeys((r["kind"], r["format"]) for r in products):
        result = [r for r in products if (r["kind"], r["format"]) == key][-1]
        moved = [NAMES[i] for i in (*range(6, 10), 11, 12, 13)
                 if (_percent(result["raw"]["whole"], i) or 0) > MOVED_PERCENT]  # fmt: skip
        ratio = "not metered" if result["main"] is None else f"{result['main']['ratio']:.4f} of the true FLOP"
        pipe = "" if result["main"] is None else f" through {result['main']['pipe']}"
        lines.append(f"{result['name']}: {', '.join(moved) or 'no id'} moved; {ratio}{pipe}")
    if not lines:
        raise NotAnsweredError("no product was measured")
    return "; ".join(lines)


def saturation(document: Facts, _: Mapping[str, str]) -> str:
    locked = [r for r in done(document, kind="gemm", format="bf16") if r["setting"].startswith("clock:")]
    free = done(document, kind="gemm", format="bf16", setting="")[-1:]
    seen = [f"{r['name']}: ANY_TENSOR {tensor:.2f} % at {r['clock_mhz']['mean']:.0f} MHz" for r in (*locked, *free)
            if (tensor := _percent(r["raw"]["steady"], 5)) is not None and r["clock_mhz"]]  # fmt: skip
    if not locked or not seen:
        why = [r["reason"] for r in document["loads"] if r["setting"].startswith("clock:") and r["reason"]]
        raise NotAnsweredError("; ".join([why[0] if why else "no load with a locked clock was measured", *seen]))
    return "; ".join(seen)


def rights(document: Facts, _: Mapping[str, str]) -> str:
    p, nobody = document["privileges"], document["privileges"]["as_nobody"]
    works = document["device"]["evidence"] in ("activity", "cycles")
    line = (f"euid {p['euid']}, SYS_ADMIN {'yes' if p['sys_admin'] else 'no'}, "
            f"container {'yes' if p['container'] else 'no sign of one'}: GPM {'works' if works else 'does not work'}")  # fmt: skip
    if nobody["asked"]:
        line += f"; as user 65534: {'works' if nobody['works'] else 'does not work'} (status {nobody['status']})"
    elif p["euid"] == 0:
        raise NotAnsweredError(f"only root was tried ({line}); {nobody['why']}")
    return line + "; switching streaming off was not tried, since it is global to the machine"


def intervals(document: Facts, _: Mapping[str, str]) -> str:
    longest = [r for r in done(document, kind="gemm", setting="") if len(r["raw"]["spacings"]) > 1][-1:]
    if not longest:
        raise NotAnsweredError("no load was long enough for samples of different spacing")
    seen = []
    for spacing in longest[0]["raw"]["spacings"]:
        metric = spacing["any_tensor"]
        value = f"status {metric['status']}"
        if metric["status"] == _OK:
            value = "not a number" if metric["value"] is None else f"{metric['value']:.2f} %"
        seen.append(f"{spacing['ms']:.0f} ms {value}")
    daemon = document["daemon"]
    busy = 100 * daemon["cpu_seconds"] / daemon["wall_seconds"]
    return (f"{longest[0]['name']}, ANY_TENSOR by spacing: {', '.join(seen)}; flopsd at {daemon['interval_seconds']:g} s "
            f"took {busy:.3f} % of a core; 10 minutes, 8 GPUs, dcgm-exporter and ncu were not tried")  # fmt: skip


def vectors(document: Facts, _: Mapping[str, str]) -> str:
    lines = []
    for name, ids in (("fp32", (4, 12)), ("fp64", (6, 8, 11))):
        for result in done(document, kind="gemm", format=name, setting="")[-1:]:
            values = {NAMES[i]: _percent(result["raw"]["steady"], i) for i in ids}
            shown = ", ".join(f"{k} {'none' if v is None else f'{v:.2f} %'}" for k, v in values.items())
            ratio = (
                result["main"] and f", {result['main']['ratio']:.4f} of the true FLOP through {result['main']['pipe']}"
            )
            lines.append(f"{result['name']}: {shown}{ratio or ''}")
    if not lines:
        raise NotAnsweredError("no FP32 or FP64 product was measured")
    return "; ".join(lines) + "; a GEMM is nearly all FFMA, not purely so"


def ampere(document: Facts, _: Mapping[str, str]) -> str:
    if "A10G" not in document["device"]["name"]:
        raise NotAnsweredError(f"the device is {document['device']['name']}")
    products = [r for r in done(document, kind="gemm", setting="") if r["format"] in ("bf16", "fp16")]
    if not products:
        raise NotAnsweredError("no BF16 or FP16 product was measured")
    rates = {r["name"]: int(r["true_flop"]) / ((r["end_ns"] - r["begin_ns"]) / 1e9) for r in products}
    best = max(rates, key=lambda name: rates[name])
    return f"{rates[best] / 1e12:.1f} TFLOP/s in {best}; DCGM was not read"


def sagemaker(document: Facts, environment: Mapping[str, str]) -> str:
    if not any(name in environment for name in ("SM_TRAINING_ENV", "TRAINING_JOB_NAME", "SM_HOSTS")):
        raise NotAnsweredError("this is not a SageMaker training job")
    return f"driver {document['device']['driver']} on {document['device']['name']}"


_HARDWARE_ONLY = (5, 8, 9)
QUESTIONS: Sequence[tuple[str, str, str, Callable[[Facts, Mapping[str, str]], str]]] = (
    ("scale", "Scale of ids 248 to 254: summed over SMs or averaged? Is MMA/ELAPSED ANY_TENSOR_UTIL? Does ELAPSED advance when idle?",
     "growth of 248 and 250 inside the idle load and the longest BF16 product, against SM clock x time", scale),
    ("absolute", "Are 248 to 260 absolute or differences, and do they survive process exit, persistence off and reset?",
     "three samples queried in pairs around every load", absolute),
    ("formats", "Which counter moves for BF16, FP16, TF32, FP8, INT8, FP64 and 2:4-sparse products, and is FLOP/(cycles x rate) 1?",
     "products of known FLOP in each format; percentages of ids 6 to 13 beside flopsd", formats),
    ("saturation", "Does tensor activity saturate at about 1 at 1830 and at 1980 MHz?",
     "ANY_TENSOR_UTIL within a BF16 product at locked clocks, where changing them is allowed", saturation),
    ("rights", "Does GPM work in a container without root and SYS_ADMIN, and what if another process disables streaming?",
     "GPM read with the suite's rights, and as user 65534 where the suite is root", rights),
    ("intervals", "How do values behave at intervals of 50 ms to 10 min, what does polling cost, and do dcgm-exporter and ncu agree?",
     "GPM samples 50 ms to 4 s apart inside one product; CPU time of flopsd", intervals),
    ("vectors", "What does the FP32 pipe read for pure FFMA, and which of DFMA and DMMA moves for FP64?",
     "ids 4, 6, 8, 11 and 12 within FP32 (TF32 off) and FP64 products", vectors),
    ("A10G", "A10G: 70 or 125 to 140 TFLOP/s, and its tensor ceiling in DCGM?",
     "rate of FP16 and BF16 products, on an A10G only", ampere),
    ("SageMaker", "Which driver does a SageMaker training job on p5 have?",
     "driver version, inside a training job only", sagemaker),
    ("clock buffer", "Does the driver keep a buffer of SM clock samples?",
     "NVML_PROCESSOR_CLK_SAMPLES before flopsd runs", probe_answers.clock_buffer),
    ("streaming", "Does GPM stream after boot, before anybody switches it on?",
     "nvmlGpmQueryIfStreamingEnabled before flopsd runs, and the time since boot", probe_answers.streaming),
    ("stuck", "What do counters that stand still look like?",
     "two samples closer than the refresh; where changing settings is allowed, streaming switched off and on again",
     probe_answers.stuck),
    ("Nsight", "How many FLOP has a cycle of the tensor pipe in each format, by Nsight Compute?",
     "one product of 4096 in each format under ncu, where it is installed", probe_answers.nsight),
    ("DCGM", "Do DCGM's fields 1084 to 1096 and GPM's ids 248 to 260 agree?",
     "dcgmi dmon between two readings of GPM, where it is installed", probe_answers.dcgm),
    ("operators", "Does the count of operators equal the products by hand, and what is seen of CUDA graphs and of what is queued?",
     "steps of two layers: eager, by torch.compile with CUDA graphs, by make_graphed_callables, by a graph of the loop",
     probe_answers.operators),
    ("kernel windows", "What do kernel windows see and cost, and does a profiler of the training work beside them?",
     "a training's steps with and without them, in a process of its own", probe_answers.windows),
)  # fmt: skip
