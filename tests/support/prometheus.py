"""The rule files, and `promtool test rules` over worlds of series, each derived from one healthy node."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent.parent.parent / "config" / "prometheus"
RULES, ALERTS = FOLDER / "flopsd.rules.yml", FOLDER / "flopsd.alerts.yml"
TESTS = FOLDER / "flopsd-tests.yml"
World = dict[str, str]


def rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def healthy(
    instance: str = "a", run: str = "r1", node: str = "n1", gpu: str = "G0", *, job: str = "flopsd", more: str = "",
    replay: str = "false",
) -> World:  # fmt: skip
    """The series of one node, once a minute from time 0: 1e15 FLOP/s in BF16 at half its peak, 600 W, all declared."""
    at = f'job="{job}",instance="{instance}"{more}'
    device = f'{at},gpu="0",uuid="{gpu}"'
    share = f'{at},policy="p",rule="third",quantity="updates"'
    bounds = {"low": "0+57e15x120", "measured": "0+60e15x120", "high": "0+63e15x120"}
    shares = {"low": "0.01+0x120", "measured": "0.02+0x120", "high": "0.03+0x120"}
    return {
        f"up{{{at}}}": "1x120",
        f'flopsd_run_info{{{at},run_id="{run}",node="{node}",platform="host",replay="{replay}"}}': "1x120",
        f'flopsd_device_info{{{device},evidence="activity"}}': "1x120",
        f"flopsd_device_up{{{device}}}": "1x120",
        f'flopsd_source_up{{{at},source="nvml"}}': "1x120",
        f'flopsd_source_errors_total{{{at},source="nvml",reason="stale"}}': "2x120",
        f'flopsd_flop_total{{{device},pipe="tensor_hmma",precision="bf16",evidence="activity"}}': "0+60e15x120",
        f'flopsd_flop_total{{{device},pipe="tensor",precision="undeclared",evidence="activity"}}': "0x120",
        f'flopsd_peak_flop_per_second{{{device},pipe="tensor_hmma",precision="bf16"}}': "2e15x120",
        f'flopsd_observed_seconds_total{{{device},evidence="activity"}}': "0+60x120",
        f'flopsd_gap_seconds_total{{{device},reason="starting"}}': "0x120",
        f'flopsd_gap_seconds_total{{{device},reason="other_job"}}': "0+60x120",
        f"flopsd_recovered_seconds_total{{{device}}}": "0x120",
        f"flopsd_energy_joules_total{{{device}}}": "0+36000x120",
        **{f'flopsd_run_flop{{{at},basis="{basis}",bound="{bound}"}}': values
           for basis in ("executed", "guidelines") for bound, values in bounds.items()},
        f'flopsd_run_flop{{{at},basis="architecture",bound="computed"}}': "0+24e15x120",
        **{f'flopsd_threshold_ratio{{{share},bound="{bound}"}}': values for bound, values in shares.items()},
        f"flopsd_journal_writable{{{at}}}": "1x120",
        f"flopsd_journal_put_back_total{{{at}}}": "0x120",
        f"flopsd_journal_last_append_timestamp_seconds{{{at}}}": "0+60x120",
        f"flopsd_time_seconds{{{at}}}": "0+60x120",
        f"flopsd_signing_key_usable{{{at}}}": "1x120",
        f"flopsd_ledger_seal_interval_seconds{{{at}}}": "900x120",
        f"flopsd_ledger_last_seal_timestamp_seconds{{{at}}}": "0+60x120",
        f"flopsd_ledger_seal_failures_total{{{at}}}": "0x120",
        f"flopsd_ledger_last_copy_timestamp_seconds{{{at}}}": "0+60x120",
        f"flopsd_ledger_copy_failures_total{{{at}}}": "0x120",
        f"flopsd_ledger_deliveries_pending{{{at}}}": "0x120",
        f"flopsd_journal_size_bytes{{{at}}}": "5e6+5e3x120",
        f"flopsd_state_free_bytes{{{at}}}": "10e9-15e3x120",
        f"flopsd_closed_segments_waiting{{{at}}}": "0x120",
        f"flopsd_run_ended{{{at}}}": "0x120",
        f"flopsd_daemon_starts{{{at}}}": "1x120",
        f"process_start_time_seconds{{{at}}}": "1000x120",
    }  # fmt: skip


def changed(world: World, changes: Mapping[str, str | None]) -> World:
    """The world with other values for each series that begins with a key and contains the rest of it, separated by
    `|`; None removes the series. A key that matches no series adds one."""
    found = dict(world)
    for key, values in changes.items():
        parts = key.split("|")
        hits = [name for name in world if name.startswith(parts[0]) and all(part in name for part in parts[1:])]
        assert hits or "|" not in key, f"no series of this world is {key}"
        for name in hits or [key]:
            if values is None:
                del found[name]
            else:
                found[name] = values
    return found


def one_after_the_other(first: World, second: World, minute: int) -> World:
    """Two runs at one address: the page of `second` follows that of `first`, whose last scrape is at `minute`."""
    absent = f"_x{minute + 1}"
    found = {}
    for name in {**first, **second}:
        before = " ".join(_each_minute(first[name])[: minute + 1]) if name in first else absent
        found[name] = f"{before} {second[name]}" if name in second else f"{before} stale"
    return found


def _each_minute(values: str) -> list[str]:
    """promtool's notation, expanded to one value a minute."""
    found = []
    for part in values.split():
        begin, step, times = re.fullmatch(r"([^x+]+?)(?:([+-][\d.e]+))?(?:x(\d+))?", part).groups()  # type: ignore[union-attr]
        if begin == "_":
            found += [begin] * int(times or 1)
        else:
            found += [repr(float(begin) + at * float(step or 0)) for at in range(int(times or 0) + 1)]
    return found


@dataclass(frozen=True)
class Case:
    """Expressions over a world, and their results at one minute: labels without a name, and values."""

    name: str
    world: World
    minute: int
    expected: Mapping[str, Sequence[tuple[Mapping[str, str], float]]]


# The labels by which rules tell nodes, runs and devices apart, and which of them a recorded series has.
APART = ("instance", "lineage", "node", "run_id", "uuid")
LABEL_OF = {"instance": "instance", "lineage": "lineage", "run": "run_id", "node": "run_id", "device": "uuid"}


def apart(name: str, text: str) -> str:
    """A series or expression with those labels prefixed by `name`, so that several worlds can share one Prometheus."""
    return re.sub(rf'({"|".join(APART)})="', rf'\1="{name}/', text)


def together(cases: Sequence[Case]) -> Case:
    """Cases of one minute, from worlds independent of each other, in one Prometheus: a rule takes hardly longer for
    all of them than for one. Their expressions use recorded series, but none for the fleet."""
    world, expected, (minute,) = World(), dict[str, Any](), {case.minute for case in cases}
    for case in cases:
        name = re.sub(r"\W+", "-", case.name)
        world |= {apart(name, series): values for series, values in case.world.items()}
        for expression, samples in case.expected.items():
            (label,) = (LABEL_OF[level] for level in re.findall(r"\b(\w+):flopsd", expression))
            inside = re.sub(
                r"(:flopsd\w+:\w+)(?:\{(.*?)\})?", rf'\1{{{label}=~"{name}/.*",\2}}', apart(name, expression)
            )
            expected[inside] = [
                ({key: f"{name}/{value}" if key in APART else value for key, value in labels.items()}, value)
                for labels, value in samples
            ]
    return Case("; ".join(case.name for case in cases), world, minute, expected)


def promtool_says(folder: Path, cases: Sequence[Case]) -> subprocess.CompletedProcess[str]:
    """Run `promtool test rules` over the committed rule files. Evaluating every two minutes gives the same verdicts
    as every minute, in half the time; for hours, so does every four minutes."""
    files = []
    for every, chosen in (
        ("2m", [case for case in cases if case.minute < 200]),
        ("4m", [case for case in cases if case.minute >= 200]),
    ):
        tests = [
            {
                "name": case.name,
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.world.items()],
                "promql_expr_test": [
                    {
                        "expr": expression,
                        "eval_time": f"{case.minute}m",
                        "exp_samples": [
                            {"labels": "{" + ",".join(f"{k}={json.dumps(v)}" for k, v in labels.items()) + "}", "value": value}
                            for labels, value in samples
                        ],
                    }
                    for expression, samples in case.expected.items()
                ],
            }
            for case in chosen
        ]  # fmt: skip
        if tests:
            files.append(folder / f"{every}.json")
            shown = {"rule_files": [str(RULES), str(ALERTS)], "evaluation_interval": every, "tests": tests}
            files[-1].write_text(json.dumps(shown).replace("Infinity", ".inf"))
    return promtool_test(*files)


def promtool_test(*files: Path) -> subprocess.CompletedProcess[str]:
    """Run it on files whose rule paths are absolute, or relative to the folder of the first."""
    environment = os.environ | {"GOGC": "300"}  # a sixth less time than with Go's default
    command = ["promtool", "test", "rules", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=files[0].parent)
