"""The options of `estimate` and their checks."""

from __future__ import annotations

import argparse
from fractions import Fraction

from flopsd.cli.common import Verbs, add_repeatable, add_settings, positive
from flopsd.core.declarations import Method
from flopsd.core.values import parse_flop
from flopsd.settings.schema import SETTINGS

DEFAULT_FORMAT, DEFAULT_MFU = "bf16", "0.3..0.5"
DEFAULT_RANK, DEFAULT_TARGETS = 16, "all-linear"
_SETTINGS = ("recomputation", "base_model", "base_flop", "base_flop_method", "base_systemic",
             "base_systemic_reason", "policies", "peaks")  # fmt: skip
_RECOMPUTATION = (
    "activation checkpointing: none, full or selective (default: undeclared: the lower bound of executed assumes none, "
    "the upper bound all layers)"
)
_MOST_USD = 10**9


def add_options(verbs: Verbs) -> argparse.ArgumentParser:
    estimate = verbs.add_parser(
        "estimate",
        help="estimate FLOP, hours and distance to the thresholds before a run",
        description="Computes what full fine-tuning, LoRA and QLoRA would cost, each as an interval, from a model's "
        "config.json or its size, and the tokens. Nothing is measured.",
    )
    option = estimate.add_argument
    _add_model(estimate)
    option("--tokens", type=count, required=True, metavar="N", help="tokens of one epoch, such as 2e9")
    option("--epochs", type=positive, default=1, metavar="N", help="how often the tokens are seen (default: 1)")
    option("--sequence-length", type=positive, metavar="N", help="tokens in a row; required")
    option("--target-length", type=positive, metavar="N", help="tokens in a target, for encoder-decoders")
    option("--packing", action="store_true", help="a row holds several documents")
    option(
        "--method",
        dest="methods",
        action="append",
        choices=[m.value for m in Method],
        help="how weights are trained; repeatable (default: full, lora, qlora)",
    )
    option("--trainable", type=count, metavar="N", help="trainable parameters, where they are known")
    option("--lora-rank", type=positive, metavar="R", help=f"rank of the adapters (default: {DEFAULT_RANK})")
    option(
        "--lora-targets",
        metavar="NAMES",
        help=f"modules with adapters, such as q_proj,v_proj (default: {DEFAULT_TARGETS})",
    )
    option("--attention", metavar="NAME", help="attention implementation, such as sdpa or eager")
    _add_hardware(estimate)
    settings = [setting for setting in SETTINGS if setting.key in _SETTINGS]
    add_settings(
        estimate, [one._replace(help=_RECOMPUTATION) if one.key == "recomputation" else one for one in settings]
    )
    option("--json", action="store_true", help="facts as JSON on stdout")
    return estimate


def _add_model(estimate: argparse.ArgumentParser) -> None:
    option = estimate.add_argument
    model = estimate.add_mutually_exclusive_group(required=True)
    model.add_argument("model", nargs="?", metavar="CONFIG", help="a config.json, or the folder that it is in")
    model.add_argument(
        "--parameters",
        type=count,
        metavar="N",
        help="parameters of a model without a config.json: 6 x parameters x tokens",
    )
    active = estimate.add_mutually_exclusive_group()
    active.add_argument(
        "--active-parameters",
        type=count,
        metavar="N",
        help="with --parameters: those that a token goes through, embeddings and head included",
    )
    active.add_argument("--dense", action="store_true", help="with --parameters: a token goes through all of them")
    option(
        "--embedding-parameters",
        type=count_or_zero,
        metavar="N",
        help="how many of the active parameters are in tables of tokens and positions that the head does not share",
    )
    option("--layers", type=positive, metavar="N", help="with --parameters: layers with attention")
    option(
        "--attention-width",
        type=positive,
        metavar="N",
        help="with --layers: heads x head size of a layer, the larger of keys and values",
    )


def _add_hardware(estimate: argparse.ArgumentParser) -> None:
    option = estimate.add_argument
    what = "a SageMaker instance type, a part of the peak table, or a device's name as nvidia-smi prints it"
    add_repeatable(estimate, "--on", "NAME", what)
    option("--count", type=positive, metavar="N", help="how many of each of them (default: 1)")
    option(
        "--devices-per-instance",
        type=positive,
        metavar="N",
        help="accelerators of an instance, where the peak table does not have the number",
    )
    option(
        "--price",
        dest="prices",
        type=_price,
        action="append",
        default=[],
        metavar="NAME=USD",
        help="assumed price of one NAME of --on in USD an hour; repeatable (default: no cost is computed)",
    )
    option("--format", metavar="NAME", help=f"number format of the peak (default: {DEFAULT_FORMAT})")
    share = estimate.add_mutually_exclusive_group()
    share.add_argument(
        "--mfu", type=interval, metavar="LOW..HIGH", help=f"share of the peak (default: {DEFAULT_MFU}, assumed)"
    )
    share.add_argument("--mfu-from", metavar="LEDGER", help="instead, the share of the peak that this ledger's run had")


def count(text: str) -> int:
    return _whole(text, 1)


def count_or_zero(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        number = parse_flop(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None
    if not least <= number <= 10**18:
        raise argparse.ArgumentTypeError(f"expected between {least} and 1e18")
    return number


def interval(text: str) -> tuple[Fraction, Fraction]:
    low, separator, high = text.partition("..")
    try:
        ends = Fraction(low), Fraction(high if separator else low)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a share or two, such as {DEFAULT_MFU}") from None
    if not 0 < ends[0] <= ends[1] <= 1:
        raise argparse.ArgumentTypeError(f"expected shares above 0 and up to 1, the lower first, such as {DEFAULT_MFU}")
    return ends


def _price(text: str) -> tuple[str, Fraction]:
    name, _, usd = text.rpartition("=")
    try:
        price = Fraction(usd)
    except (ValueError, ZeroDivisionError):
        price = Fraction(0)
    if not name or not 0 < price <= _MOST_USD:
        raise argparse.ArgumentTypeError("expected a name and a price above 0, such as ml.p5.48xlarge=98.32")
    return name, price
