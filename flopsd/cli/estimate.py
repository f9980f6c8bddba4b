"""`estimate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopsd.cli.common import OK, Verbs, settings_of
from flopsd.cli.estimate_options import (
    DEFAULT_FORMAT,
    DEFAULT_MFU,
    DEFAULT_RANK,
    DEFAULT_TARGETS,
    add_options,
    interval,
)
from flopsd.core.declarations import Method, Recomputation
from flopsd.errors import ConfigError, FlopsdError
from flopsd.system.file_presence import is_folder

if TYPE_CHECKING:
    from flopsd.core.architecture import Model
    from flopsd.report.estimate.planned_hardware import Hardware, Mfu

_MAX_BYTES = 1 << 20
_MOST_FLOP = 10**39  # plus the margin of an estimate, below the limit of counts in ledgers
# Options that describe a model further if only its size is given.
_OF_A_SIZE = ("--active-parameters", "--dense", "--embedding-parameters", "--layers", "--attention-width")
_OF_HARDWARE = ("--count", "--devices-per-instance", "--format", "--mfu", "--mfu-from")


def add(verbs: Verbs) -> None:
    add_options(verbs).set_defaults(run=_estimate)


def _estimate(arguments: argparse.Namespace) -> int:
    from flopsd.core.architecture import Lora, Training, parameters
    from flopsd.report.estimate.estimate import ALONE, Plan, estimate, methods_of, work_from_lengths
    from flopsd.report.estimate.estimate_json import as_dict
    from flopsd.report.estimate.estimate_text import estimate_text
    from flopsd.settings.data_files import load_policies
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
    names = tuple(name.strip() for name in targets.split(","))
    if "" in names:
        raise ConfigError(["--lora-targets: a name is empty"], hint=f"leave it out for {DEFAULT_TARGETS}")
    with_adapters = {Method.LORA, Method.QLORA}.intersection(methods)
    if with_adapters and model.bare is None and (arguments.lora_targets is None or arguments.lora_rank is None):
        assumed.append(f"adapters of rank {rank} on {targets}")
    _check_lengths(arguments, model)
    total = parameters(model).total
    too_many = arguments.trainable is not None and arguments.trainable > total
    if too_many and {Method.FULL, Method.PARTIAL, Method.PRETRAINING}.intersection(methods):
        raise ConfigError(
            [f"--trainable {arguments.trainable}: the model has {total} parameters"],
            hint="more than that can be trained only with adapters: --method lora or qlora",
        )
    lengths = arguments.sequence_length, arguments.target_length
    plan = Plan(
        model,
        work_from_lengths(arguments.tokens, *lengths, arguments.epochs),
        Training(
            recomputation=None if settings.recomputation is None else Recomputation(settings.recomputation),
            lora=Lora(rank, names),
            attention=arguments.attention,
            packing=arguments.packing,
            trainable=arguments.trainable,
        ),
        methods,
        _hardware(arguments, settings.peaks),
        _mfu(arguments, settings.peaks),
        declared.base,
        load_policies(settings.policies),
        work_from_lengths(arguments.tokens * arguments.epochs, *lengths) if arguments.epochs > 1 else None,
        tuple(assumed),
    )
    found = estimate(plan)
    if any(option.flop.executed.high >= _MOST_FLOP for option in found.options):
        raise ConfigError(
            ["that is more than 1e39 FLOP, more than a ledger can hold"],
            hint="correct --tokens, --epochs, the lengths, or the size of the model",
        )
    print(json.dumps(as_dict(found)) if arguments.json else estimate_text(found), end="\n" if arguments.json else "")
    return OK


def _check_lengths(arguments: argparse.Namespace, model: Model) -> None:
    """Check the row lengths, on which the cost of attention depends; a model's maximum says nothing about them."""

    longest = f"; the longest that this model takes is {model.max_positions}" if model.max_positions else ""
    if arguments.sequence_length is None:
        raise ConfigError(
            ["--sequence-length is missing: the compute of attention depends on it"],
            hint=f"give the tokens in a row; if a row holds several documents add --packing{longest}",
        )
    if arguments.target_length is not None and not (model.two_sided or model.bare is not None):
        raise ConfigError(
            [f"--target-length is for encoder-decoders, and {model.family} is not one"],
            hint="leave it out: --sequence-length is all tokens of a row",
        )


def _hardware(arguments: argparse.Namespace, peaks_file: str | None) -> tuple[Hardware, ...]:
    """The hardware that --on names, without repeats, with the price given for it."""
    from flopsd.report.estimate.planned_hardware import hardware_from
    from flopsd.settings.data_files import load_peaks

    names, prices = list(dict.fromkeys(arguments.on)), dict(arguments.prices)
    problems = [f"--price is given for {name!r:.60}, which no --on names" for name in prices if name not in names]
    if len(prices) < len(arguments.prices):
        problems.append("--price is given twice for one name")
    given = [flag for flag in _OF_HARDWARE if getattr(arguments, flag[2:].replace("-", "_")) is not None]
    if given and not names:
        raise ConfigError(
            [f"{', '.join(given)}: no hardware is named"],
            hint="name an instance type or a part with --on, or leave it out",
        )
    if problems:
        raise ConfigError(problems, hint="give one price for each name of --on, or none")
    if not names:
        return ()
    table, each = load_peaks(peaks_file), arguments.devices_per_instance
    if each is not None and not any(name in table.instances for name in names):
        raise ConfigError(["--devices-per-instance: --on names no instance type"], hint="give their number by --count")
    return tuple(
        hardware_from(table, name, arguments.count or 1, each, arguments.format or DEFAULT_FORMAT, prices.get(name))
        for name in names
    )


def _mfu(arguments: argparse.Namespace, peaks_file: str | None) -> Mfu:
    """MFU as given, as measured by a ledger, or assumed; `source` states which."""
    from flopsd.report.estimate.measured_mfu import mfu_of
    from flopsd.report.estimate.planned_hardware import Mfu
    from flopsd.settings.data_files import Tables

    if arguments.mfu_from is not None:
        tables = Tables(peaks_files=[peaks_file] if peaks_file else ())
        return mfu_of(Path(arguments.mfu_from), tables, arguments.format or DEFAULT_FORMAT)
    low, high = arguments.mfu or interval(DEFAULT_MFU)
    return Mfu(low, high, "assumed, not measured" if arguments.mfu is None else "as given")


def _model(arguments: argparse.Namespace) -> Model:
    from flopsd.core.architecture import bare_model, read_model
    from flopsd.system.regular_files import read_at_most

    if arguments.model is None:
        return bare_model(
            arguments.parameters,
            active=arguments.parameters if arguments.dense else arguments.active_parameters,
            embedding=arguments.embedding_parameters,
            layers=arguments.layers,
            attention_width=arguments.attention_width,
        )
    given = [flag for flag in _OF_A_SIZE if getattr(arguments, flag[2:].replace("-", "_")) not in (None, False)]
    if given:
        raise ConfigError(
            [f"{', '.join(given)}: config.json states this already"], hint="leave it out, or give --parameters instead"
        )
    path = Path(arguments.model)
    path = path / "config.json" if is_folder(path) else path
    try:
        data = read_at_most(path, _MAX_BYTES)
    except OSError as fault:
        raise FlopsdError(f"cannot read {path}: {fault.strerror}", hint="give a model's config.json") from fault
    try:
        config: Any = json.loads(data)
        if not isinstance(config, dict):
            raise ValueError("it holds no JSON object")
    except (ValueError, RecursionError) as fault:
        raise FlopsdError(f"{path} is not a config.json: {fault}", hint="give a model's config.json") from fault
    return read_model(config)
