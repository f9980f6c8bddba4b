"""`python -m tests.hardware.accuracy RESULTS.json... -o docs/accuracy.md`: writes the page, from measurements only.

The same files give the same bytes, in whatever order they are named.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from flopsd.core.values import ceil_div
from tests.hardware.margins import margin_ppm
from tests.hardware.plan import GEMM_FORMATS
from tests.hardware.questions import QUESTIONS
from tests.hardware.results import Document, ResultsError, read
from tests.hardware.table import cells

LONG_SECONDS = 10  # shorter loads are mostly edges
LARGE = 2048  # smaller products do not fill their tiles, so that more than 2MNK is executed
PPM = 1_000_000

_TOP = """# Accuracy

<!-- Made by `python -m tests.hardware.accuracy`; do not edit. -->

This page compares the FLOP that flopsd meters with the FLOP that a load is known to execute. `make hardware` runs
matrix products, a small transformer, memory traffic and idle time, whose FLOP follow from their shapes, while flopsd
meters them from a separate process. Only runs on hardware give figures here.
"""
_NOTHING = """
**No run on hardware has been made yet. There is no accuracy figure for flopsd**, and the margins in
`config/peaks.yaml` are not calibrated by it.
"""
_RUN = """
## How to run it

    make hardware HARDWARE_PYTHON=python3
    python3 -m tests.hardware.accuracy docs/accuracy/*.json -o docs/accuracy.md

The first command is planned for five minutes, with `HARDWARE_ARGS=--full` for half an hour, from which `--only REGEX`
selects loads. It needs an NVIDIA GPU without other work, and an interpreter with PyTorch, nvidia-ml-py, pyyaml and
prometheus-client; it names missing packages and how to bring them there. It changes no clocks or power limits unless
HARDWARE_ARGS has `--change-settings`. Before the second command, put its `results.json` into `docs/accuracy/` under a
name of its own. Without a GPU, `python3 -m tests.hardware --simulated --out DIR` tests the suite on a simulated driver;
this says nothing about flopsd's accuracy, and its results do not belong in `docs/accuracy/`.
"""


def page(documents: Sequence[Document]) -> str:
    """The page for these results, in any order. Without results it says that there are none."""
    runs = sorted(documents, key=lambda d: (d["origin"], d["date"] or "", d["device"]["name"], str(d["loads"])))
    real = [run for run in runs if run["origin"] == "hardware"]
    parts = [_TOP]
    if not real:
        parts += [_NOTHING, _would_measure()]
    else:
        parts += ["\n## By format\n", *_by_format(real), "\n## Margins\n", *_margins(real)]
    for run in runs:
        parts += _one_run(run)
    parts += ["\n## Open questions\n", *_questions(real), _RUN]
    return "".join(parts)


def _would_measure() -> str:
    return f"""
## What a run would measure

- Products in {", ".join(GEMM_FORMATS)} and 2:4-sparse BF16, of several sizes and
  durations: 2MNK FLOP each, or MNK if half of the values are zero.
- A small transformer trained plainly, with activation checkpointing, with LoRA, and with both: FLOP in closed form,
  and by PyTorch's own FlopCounterMode.
- Copies, additions and idle time: the FLOP metered where hardware computes little or nothing.
- For each: true and metered FLOP, their ratio, the pipe that moved, SM clock, evidence, and whether the truth lies
  between flopsd's lower and upper figure.
"""


def _one_run(run: Document) -> Iterator[str]:
    device, versions = run["device"], run["versions"]
    yield f"\n## {device['name']}, {run['date'] or 'date not given'}\n\n"
    if run["origin"] != "hardware":
        yield f"**{run['origin'].upper()}: no hardware was measured. Nothing below says anything about accuracy.**\n\n"
    yield (
        f"Driver {device['driver']}, torch {versions['torch'] or 'none'}, CUDA {versions['cuda'] or 'none'}, "
        f"flopsd {versions['flopsd']} at {run['commit'] or 'an unknown commit'}, peak table {run['peak_table_sha256'][:12]}, "
        f"reading every {run['daemon']['interval_seconds']:g} s, "
        f"settings {'changed for some loads' if run['settings']['changed'] else 'left as they were'}.\n\n"
    )
    yield "| load | true FLOP | metered | ratio | pipe | that pipe alone | true within low..high | SM MHz | evidence |\n"
    yield "|---|---:|---:|---:|---|---:|---|---:|---|\n"
    for load in run["loads"]:
        if load["status"] == "done":
            yield f"| {' | '.join(cells(load))} |\n"
    for load in run["loads"]:
        if load["status"] != "done":
            yield f"\n{load['name']}: {load['status']}, {load['reason']}\n"


def _by_format(runs: Sequence[Document]) -> Iterator[str]:
    """The spread of one pipe against the truth, by device and evidence, for long and large loads only."""
    found: dict[tuple[str, str, str, str], list[float]] = {}
    for run, load in _comparable(runs):
        key = (run["device"]["name"], load["kind"], load["format"], load["main"]["evidence"])
        found.setdefault(key, []).append(load["main"]["ratio"])
    if not found:
        yield "\nNo load was long and large enough to be compared.\n"
        return
    yield f"\nThe main pipe's metered FLOP over the true ones, loads of {LONG_SECONDS} s and more, {LARGE} and larger, without gaps.\n\n"
    yield "| device | load | format | evidence | loads | least | most |\n|---|---|---|---|---:|---:|---:|\n"
    for key, ratios in sorted(found.items()):
        yield f"| {' | '.join(key)} | {len(ratios)} | {min(ratios):.4f} | {max(ratios):.4f} |\n"


def _margins(runs: Sequence[Document]) -> Iterator[str]:
    found: dict[tuple[str, str, str], list[tuple[Fraction, str]]] = {}
    for run, load in _comparable(runs):
        # The FMA pipe includes integer work, and rates are dense: neither shows how well cycles measure FLOP.
        if load["format"] == "fp32" or load["kind"] == "sparse":
            continue
        ratio, part = Fraction(load["main"]["ratio"]), run["device"]["part"] or "none"
        off = abs(1 / ratio - 1) if ratio else Fraction(1)
        found.setdefault((part, load["main"]["evidence"], load["format"]), []).append((off, load["name"]))
    if not found:
        yield "\nNo load gives a margin.\n"
        return
    yield (
        "\nBy the rule of [ADR 21](adr/0021-margins-have-a-rule.md), of every long, large product and training run here "
        "(FP32 and\nsparse products excepted). For `config/peaks.yaml`: `margins`, evidence, format in the row of the part, "
        "in place of\nwhat stands there.\n\n"
    )
    yield "| part | evidence | format | ppm | runs | widest ppm | of |\n|---|---|---|---:|---:|---:|---|\n"
    for (part, evidence, name), loads in sorted(found.items()):
        off, widest = max(loads)
        ppm = ceil_div(off.numerator * PPM, off.denominator)
        yield f"| {part} | {evidence} | {name} | {margin_ppm(Fraction(ppm, PPM))} | {len(loads)} | {ppm} | {widest} |\n"


def _comparable(runs: Sequence[Document]) -> Iterator[tuple[Document, Document]]:
    for run in runs:
        for load in run["loads"]:
            long = load["status"] == "done" and load["seconds_asked"] >= LONG_SECONDS and not load["setting"]
            large = load["kind"] == "training" or (load["kind"] in ("gemm", "sparse") and load["size"] >= LARGE)
            if long and large and load["main"] is not None and not load["metered"]["gap_seconds"]:
                yield run, load


def _questions(runs: Sequence[Document]) -> Iterator[str]:
    unanswered = "" if runs else "None is answered: no run on hardware has been made. "
    yield f"\n{unanswered}Ids are those of NVML's GPM metrics.\n"
    for number, (_, question, asked, _) in enumerate(QUESTIONS, start=1):
        yield "\n" + _item(f"{number}. ", f"**{question}**")
        if runs:
            yield _item("    - ", f"Asked by: {asked}.")
        for run in runs:
            stated = next((q for q in run["questions"] if q["number"] == number), None)
            where = f"{run['device']['name']}, {run['date'] or 'date not given'}"
            if stated is None or stated["answer"] is None:
                yield _item(
                    "    - ", f"Not answered here ({where}): {stated['not_answered'] if stated else 'not asked'}."
                )
            else:
                yield _item("    - ", f"{where}: {stated['answer']}.")


def _item(mark: str, text: str) -> str:
    """An item of a list, in lines of at most 120 columns."""
    return textwrap.fill(text, 120, initial_indent=mark, subsequent_indent=" " * len(mark)) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hardware.accuracy", description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS.json")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args(argv)
    try:
        arguments.output.write_text(page([read(path) for path in arguments.results]))
    except ResultsError as fault:
        print(f"accuracy: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
