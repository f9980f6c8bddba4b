"""`estimate`."""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.cli.common import OK, Verbs, add_settings, positive, settings_of
from flopsd.core.declarations import Method, Recomputation
from flopsd.settings.schema import SETTINGS

if TYPE_CHECKING:
    from flopsd.core.architecture import Model
    from flopsd.report.estimate import Mfu

_SETTINGS = ("recomputation", "base_model", "base_flop", "base_flop_method", "base_systemic",
             "base_systemic_reason", "policies", "peaks")  # fmt: skip
_MAX_BYTES = 1 << 20
DEFAULT_MFU = "0.3..0.5"
DEFAULT_RANK, DEFAULT_TARGETS = 16, "all-linear"


def add(verbs: Verbs) -> None:
    estimate = verbs.add_parser(
        "estimate",
        help="estimate FLOP, hours and distance to the thresholds before a run",
        description="Computes from a model's config.json and the tokens what full fine-tuning, LoRA and QLoRA would "
        "cost, each as an interval, beside each other. Nothing is measured.",
    )
    model = estimate.add_mutually_exclusive_group(required=True)
    model.add_argument("model", nargs="?", metavar="CONFIG", help="a config.json, or the folder that it is in")
    model.add_argument("--parameters", type=_count, metavar="N", help="parameters of a model without one: 6PD")
    estimate.add_argument("--tokens", type=_count, required=True, metavar="N", help="tokens of one epoch, such as 2e9")
    estimate.add_argument("--epochs", type=positive, default=1, metavar="N", help="how often they are seen")
    estimate.add_argument("--sequence-length", type=positive, metavar="N", help="tokens of a row")
    estimate.add_argument("--target-length", type=positive, metavar="N", help="of an encoder-decoder's target")
    estimate.add_argument("--packing", action="store_true", help="a row holds several documents")
    estimate.add_argument(
        "--method",
        dest="methods",
        action="append",
        choices=[m.value for m in Method],
        help="repeatable (default: full, lora, qlora)",
    )
    estimate.add_argument("--trainable", type=_count, metavar="N", help="trainable parameters, where they are known")
    estimate.add_argument("--lora-rank", type=positive, metavar="R", help=f"(default: {DEFAULT_RANK})")
    estimate.add_argument(
        "--lora-targets", metavar="NAMES", help=f"modules with adapters, q_proj,v_proj say (default: {DEFAULT_TARGETS})"
    )
    estimate.add_argument("--attention", metavar="NAME", help="attention implementation, such as sdpa or eager")
    estimate.add_argument("--on", metavar="NAME", help="a SageMaker instance type, or a part of the peak table")
    estimate.add_argument("--count", type=positive, default=1, metavar="N", help="how many of them")
    estimate.add_argument("--devices-per-instance", type=positive, metavar="N", help="where no source has it")
    estimate.add_argument("--format", default="bf16", metavar="NAME", help="number format of the peak (default: bf16)")
    share = estimate.add_mutually_exclusive_group()
    share.add_argument(
        "--mfu", type=_interval, metavar="LOW..HIGH", help=f"share of the peak (default: {DEFAULT_MFU}, assumed)"
    )
    share.add_argument("--mfu-from", metavar="LEDGER", help="take the share that an earlier run had, by its ledger")
    add_settings(estimate, [setting for setting in SETTINGS if setting.key in _SETTINGS])
    estimate.add_argument("--json", action="store_true", help="facts as JSON on stdout")
    estimate.set_defaults(run=_estimate)


def _estimate(arguments: argparse.Namespace) -> int:
    from flopsd.core.architecture import Lora, Training
    from flopsd.errors import ConfigError
    from flopsd.report.estimate import (
        ALONE,
        Plan,
        as_dict,
        estimate,
        hardware_from,
        methods_of,
        work_from_lengths,
    )
    from flopsd.report.estimate_text import estimate_text
    from flopsd.settings.data_files import load_peaks, load_policies
    from flopsd.settings.load import declared_of

    settings = settings_of(arguments)
    declared = declared_of(settings)
    methods = methods_of(arguments.methods)
    if Method.PRETRAINING in methods and declared.base is not None:
        raise ConfigError(
            ["--method pretraining has no base model: leave the --base settings out, or name another method"],
            hint="docs/thresholds.md explains how to declare a base model",
        )
    model, assumed = _model(arguments), [ALONE]
    targets = arguments.lora_targets or DEFAULT_TARGETS
    rank = arguments.lora_rank or DEFAULT_RANK
    if model.bare is None and (arguments.lora_targets is None or arguments.lora_rank is None):
        assumed.append(f"adapters of rank {rank} on {targets}")
    if arguments.sequence_length is None and model.max_positions is None:
        raise ConfigError(
            ["--sequence-length is missing: nothing else bounds the attention of this model"],
            hint="give the tokens of a row; of documents in packed rows add --packing",
        )
    if arguments.target_length is not None and not (model.two_sided or model.bare is not None):
        raise ConfigError(
            [f"--target-length is of an encoder-decoder, and {model.family} is none"],
            hint="leave it out: --sequence-length is all tokens of a row",
        )
    if arguments.target_length is not None and arguments.sequence_length is None:
        raise ConfigError(["--target-length is given without --sequence-length"], hint="give both: a target a sequence")
    hardware = None
    if arguments.on is not None:
        table = load_peaks(settings.peaks)
        hardware = hardware_from(table, arguments.on, arguments.count, arguments.devices_per_instance, arguments.format)
    plan = Plan(
        model,
        work_from_lengths(arguments.tokens * arguments.epochs, arguments.sequence_length, arguments.target_length),
        Training(
            recomputation=None if settings.recomputation is None else Recomputation(settings.recomputation),
            lora=Lora(rank, tuple(name for name in targets.split(",") if name)),
            attention=arguments.attention,
            packing=arguments.packing,
            trainable=arguments.trainable,
        ),
        methods,
        hardware,
        _mfu(arguments, settings.peaks),
        declared.base,
        load_policies(settings.policies),
        tuple(assumed),
    )
    found = estimate(plan)
    print(json.dumps(as_dict(found)) if arguments.json else estimate_text(found), end="\n" if arguments.json else "")
    return OK


def _mfu(arguments: argparse.Namespace, peaks_file: str | None) -> Mfu:
    """As given, as measured by a ledger, or assumed; `source` states which."""
    from flopsd.report.estimate import Mfu
    from flopsd.report.measured_mfu import mfu_of
    from flopsd.settings.data_files import load_peaks

    if arguments.mfu_from is not None:
        return mfu_of(Path(arguments.mfu_from), load_peaks(peaks_file), arguments.format)
    low, high = arguments.mfu or _interval(DEFAULT_MFU)
    return Mfu(low, high, "assumed, not measured" if arguments.mfu is None else "as given")


def _model(arguments: argparse.Namespace) -> Model:
    from flopsd.core.architecture import bare_model, read_model
    from flopsd.errors import ArchitectureError

    if arguments.model is None:
        return bare_model(arguments.parameters)
    path = Path(arguments.model)
    path = path / "config.json" if path.is_dir() else path
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as fault:
        raise ArchitectureError(f"cannot read {path}: {fault.strerror}", hint="give a model's config.json") from fault
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        config: Any = json.loads(data)
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
    except (ValueError, RecursionError) as fault:
        raise ArchitectureError(f"{path} is no config.json: {fault}", hint="give a model's config.json") from fault
    return read_model(config)


def _count(text: str) -> int:
    from flopsd.core.values import parse_flop

    try:
        number = parse_flop(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None
    if not 1 <= number <= 10**18:
        raise argparse.ArgumentTypeError("expected between 1 and 1e18")
    return number


def _interval(text: str) -> tuple[Fraction, Fraction]:
    low, separator, high = text.partition("..")
    try:
        ends = Fraction(low), Fraction(high if separator else low)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a share or two, such as {DEFAULT_MFU}") from None
    if not 0 < ends[0] <= ends[1] <= 1:
        raise argparse.ArgumentTypeError(f"expected shares above 0 and up to 1, such as {DEFAULT_MFU}")
    return ends
