"""The components of figures, as in the `rows.json` of some vectors.

docs/conformance.md defines each member. Nothing of flopsd is used here.
"""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from tests.second_implementation import architecture
from tests.second_implementation.arithmetic import FRAME, Figures, Rated, add, said, seconds
from tests.second_implementation.ledger import NAMES, Run, _by_uuid, _compared, _sessions, figures_of, run_of, summed
from tests.second_implementation.merged import _complete, _counts
from tests.second_implementation.operators import PHASES, operator_rows
from tests.second_implementation.shapes import COMPUTED, HIGH, LEVELS, LOW, Counts, Llama, OfSize
from tests.second_implementation.statement import figures
from tests.second_implementation.verify import read_envelope, read_yaml

J = dict[str, Any]
FILE = "rows.json"
# A few vectors for each kind of arithmetic.
VECTORS = (
    "valid/two-signatures", "valid/activity-and-gaps", "valid/declared-mix", "valid/declared-phases",
    "valid/lying-declarations", "valid/cycles-recovered", "valid/neuron-count", "valid/unknown-device",
    "valid/accounted-elsewhere", "valid/journal-replaced", "valid/unread-in-one-phase",
    "valid/busy-by-a-sampled-clock", "valid/ceiling-by-clock", "valid/squares-that-are-large", "valid/operator-count",
    "valid/operator-count-exceeding", "valid/operator-count-as-claimed", "valid/energy-as-published", "valid/model-full-sdpa",
    "valid/model-lora-attention", "valid/model-size-full", "merged/job-with-figures-that-count",
    "merged/job-with-a-hole", "merged/lineage",
)  # fmt: skip


def files_of(made: Mapping[str, bytes], peaks: bytes) -> dict[str, bytes]:
    """The `rows.json` of those vectors, from their ledgers and journals."""
    found = {}
    for name in VECTORS:
        predicate = json.loads(read_envelope(made[f"{name}/ledger.json"])["payload"])["predicate"]
        if name.startswith("merged/"):
            rows = rows_of_children(predicate)
        else:
            lines = made[f"{name}/ledger.journal.jsonl"].split(b"\n")[:-1]
            matches = [FRAME.fullmatch(line + b"\n") for line in lines]
            records = [json.loads(match[3]) for match in matches if match]
            rows = rows_of_run(run_of(records, read_yaml(peaks), predicate["method"]["sealedAt"]))
        found[f"{name}/{FILE}"] = laid_out({"format": "flopsd-rows/1", **rows}).encode() + b"\n"
    return found


def laid_out(value: Any, indent: str = "") -> str:
    """JSON with each innermost list or object of figures, such as a row, on a line of its own."""
    if (
        not isinstance(value, dict | list)
        or not value
        or (isinstance(value, dict) and {"low", "flop", "forward"} & value.keys())
    ):
        return json.dumps(value)
    inner = indent + " "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + laid_out(one, inner) for one in value) + f"\n{indent}]"
    members = (f"{inner}{json.dumps(name)}: {laid_out(one, inner)}" for name, one in value.items())
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def text(n: int | None) -> str | None:
    return None if n is None else str(n)


def rows_of_run(run: Run) -> J:
    computed = figures_of(run)
    everything = [(at, device) for at, devices in enumerate(run.rated, 1) for device in devices.values()]
    devices = [device for _, device in everything]
    sessions = _sessions(run.records)
    same = sorted(_by_uuid(devices), key=lambda one: str(one[0].record["uuid"]))
    operators = [row for one in same for row in operator_rows(one, sessions)]
    found: J = {
        "tallies": [{"incarnation": at, **tally_of(device)} for at, device in everything],
        "operatorCount": [one for listed in same if (one := counts_of(listed, sessions, operators))],
        "executed": computed["executed"],
        "integerOperations": said(add(device.total("integers") for device in devices)),
        "byPhase": dict(sorted(computed["byPhase"].items())),
    }
    if computed["guidelines"] is not None:
        found["guidelines"] = {
            "requiredPpm": computed["guidelines"]["requiredPpm"],
            **phases_of(devices, "figures", operators),
            "integerOperations": phases_of(devices, "integers", []),
        }
        if computed["guidelines"]["asClaimed"] is None:
            found["guidelines"]["asClaimed"] = None
    compared = [(one[0].record["uuid"], parts) for one in same for parts in _compared(one)]
    found["energy"] = [energy_of(uuid, parts) for uuid, parts in compared]
    basis = architecture.declared(architecture.settings_of(run.begins), sessions)
    found["models"] = [model_of(*part) for part in basis.parts]
    return {name: one for name, one in found.items() if one or name not in ("operatorCount", "energy", "models")}


def tally_of(device: Rated) -> J:
    """One device in one daemon start."""
    rows = sorted(device.rows(), key=lambda row: (row["bucket"], *row["key"]))
    return {
        "device": device.record["uuid"],
        "peakRow": device.record["peak_row"],
        "smsMhz": text(device.sms_mhz),
        "flopPerSecond": text(device.chip_flop_per_s),
        "integerOperationsPerSecond": text(device.chip_integers_per_s),
        "rows": [row_of(device, row) for row in rows],
        "executed": said(device.total()),
        "integerOperations": said(device.total("integers")),
        "byPhase": {phase: said(one) for phase, one in sorted(device.by_phase().items())},
    }


def row_of(device: Rated, row: J) -> J:
    _, evidence, pipe, precision = row["key"]
    c, d, most = row["cycles"], row["used"].get("d"), row["used"].get("most")
    cycles = (None, None, most) if d is None else (max(0, c - d), c, c + d)
    return {
        "share": row["bucket"],
        "evidence": evidence,
        "pipe": pipe or None,
        "precision": precision,
        "seconds": seconds(row["ns"]),
        "smCycles": str(c),
        "cycles": said_of(cycles),
        "marginPpm": text(row["margin"]),
        "flop": {**said(row["figures"]), "rates": said_of(rates_of(device, row, ""))},
        "integerOperations": {**said(row["integers"]), "rates": said_of(rates_of(device, row, "integer_"))},
        "clockUncertaintyFlop": str(row["doubt"]),
        "mayBeInteger": row["mixed"],
    }


def rates_of(device: Rated, row: J, kind: str) -> tuple[int | None, int | None, int | None]:
    """The factors of cycles, if the row is of cycles or of a time with so many cycles a second."""
    _, evidence, pipe, _ = row["key"]
    if device.row is None or evidence == "count" or (device.sms_mhz is None and evidence == "gap"):
        return None, None, None
    if not pipe:
        return None, None, getattr(device, f"{kind}ceiling_rate")()
    bound = getattr(row["of"], f"{kind}bound")(pipe)
    if evidence == "gap":
        return None, None, bound
    low, point = (getattr(one, f"{kind}rates")(pipe) for one in (row["of"], row.get("measured_of", row["of"])))
    return low[LOW], point[COMPUTED], bound


def said_of(three: Iterable[int | None], names: tuple[str, ...] = NAMES) -> J:
    return {name: text(n) for name, n in zip(names, three, strict=True)}


def counts_of(same: list[Rated], sessions: list[J], operators: list[J]) -> J | None:
    """Training processes' counts for one device, and the amount that they add."""
    uuid = same[0].record["uuid"]
    own = [one for one in sessions if one["facts"].get("device") == uuid and not one.get("refused")]
    counted = {p: sum(one["work"].get(p, {}).get("operator_flop", 0) for one in own) for p in PHASES}
    if not any(counted.values()):
        return None
    ceilings = [row["figures"][2] for one in same for row in one.rows() if row["key"][1] in ("utilization", "gap")]
    return {
        "device": uuid,
        "counted": {phase: str(flop) for phase, flop in counted.items() if flop},
        "without": said(add(device.total() for device in same)),
        "room": None if None in ceilings else str(sum(ceilings)),
        "rows": [{"phase": row["key"][0], "flop": said(row["figures"])} for row in operators if row["uuid"] == uuid],
    }


def phases_of(devices: list[Rated], name: str, operators: list[J]) -> J:
    """E(phase) of both ends, of `measured`, and by the claims of processes."""
    found: J = {}
    for at, which in enumerate(("bySettings", "measured", *(["asClaimed"] if name == "figures" else []))):
        of_operators = [
            {(*row["words"], row["key"][0])[at]: row["claimed" if at == 2 else "figures"]} for row in operators
        ]
        phases: dict[str, Figures] = summed([*(device.by_words(name)[at] for device in devices), *of_operators])
        found[which] = {phase: said(one) for phase, one in sorted(phases.items())}
    return found


def energy_of(uuid: str, parts: tuple[Any, ...]) -> J:
    part, precision, _, _, mj, ns, flop, doubt = parts
    return {
        "device": uuid, "part": part, "precision": precision, "energyJoules": f"{mj // 1000}.{mj % 1000:03d}",
        "deviceSeconds": seconds(ns), "measuredFlop": str(flop), "doubtFlop": str(doubt),
    }  # fmt: skip


def model_of(facts: J, work: J, part: architecture.Part) -> J:
    """One model: its bounds, and for a Llama the walks of training that make `required`."""
    bounds = partial(said_of, names=architecture.NAMES)
    model = Llama(facts) if "model_config" in facts else OfSize(facts)
    others = {phase: one for phase, one in sorted(work.items()) if phase != "train" and architecture.has_passed(one)}
    found = {
        "forwardPasses": {phase: bounds(model.forward(one)) for phase, one in others.items()},
        "required": bounds(part.required),
        "executed": bounds(part.executed),
        "executedByTraining": bounds(part.trained),
    }
    if isinstance(model, OfSize) or "train" not in work:
        return found
    counts = Counts(work["train"], facts, model.config.get("max_position_embeddings"))
    walks = []
    for level in LEVELS:
        walk = model.through(counts, level, graded=level == HIGH or (level == COMPUTED and model.vague))
        of = {"rows": counts.rows, "headRows": counts.head, "pairs": counts.pairs}
        sums = {"forward": walk.forward, "inputs": walk.inputs, "weights": walk.weights, "scores": walk.scores}
        more = {"layers": walk.layers, "layersAttention": walk.layers_attention, "spare": walk.spare}
        numbers = {**{name: three[level] for name, three in of.items()}, **sums, **more}
        trained = model.trained(level)
        walks.append(
            {"level": architecture.NAMES[level], "trained": trained, **{k: str(n) for k, n in numbers.items()}}
        )
    return {"parameters": str(model.total), "adapters": str(model.adapters), "walks": walks, **found}


def rows_of_children(predicate: J) -> J:
    """The summands of each child, and the sums before a possibly incomplete `high` is omitted."""
    entries = predicate["children"]
    parts = [summands(entry["totals"]) for entry in entries]
    counts = _counts([entry["totals"]["guidelines"] for entry in entries], complete=True)
    plain = {name: said(add(part[name] for part in parts)) for name in ("executed", "integerOperations")}
    return {
        "children": [
            {"child": entry["name"], **{name: said(one) for name, one in part.items()}}
            for entry, part in zip(entries, parts, strict=True)
        ],
        "sums": {**plain, "updates": {name: counts[name] for name in NAMES}, "cumulative": counts["cumulative"]},
        "complete": _complete(predicate, entries),
    }


def summands(totals: J) -> dict[str, Figures]:
    found = {name: figures(totals[name]) for name in ("executed", "integerOperations")}
    counted = totals["guidelines"]
    return {**found, "updates": figures(counted), "cumulative": figures(counted["cumulative"])}
