"""`sagemaker`."""

from __future__ import annotations

import argparse
import json

from flopsd.cli.common import OK, Verbs


def add(verbs: Verbs) -> None:
    sagemaker = verbs.add_parser(
        "sagemaker",
        help="print what a SageMaker training job needs",
        description="Prints parts of a CreateTrainingJob request as JSON. docs/sagemaker.md shows where they go.",
    )
    parts = sagemaker.add_subparsers(dest="part", required=True, metavar="PART")
    parts.add_parser(
        "metric-definitions", help="MetricDefinitions that turn flopsd's metric line on stdout into CloudWatch metrics"
    ).set_defaults(run=_metric_definitions)


def _metric_definitions(_: argparse.Namespace) -> int:
    from flopsd.telemetry.metric_lines import metric_definitions

    print(json.dumps(metric_definitions(), indent=1))
    return OK
