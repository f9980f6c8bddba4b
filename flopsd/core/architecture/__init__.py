"""The architecture basis: exact parameter counts and FLOP from a model's config.json and the work on it. Pure.

`read_model` → `parameters`; with counters and `training_from` → `flop`. Start with flop.py, which has the conventions.
"""

from __future__ import annotations

from flopsd.core.architecture.attention_pairs import causal_pairs, window_pairs
from flopsd.core.architecture.bounds import ArchitectureFlop, Bounds
from flopsd.core.architecture.config_fields import LAYERS_LEFT_OUT
from flopsd.core.architecture.flop import flop, forward_flop
from flopsd.core.architecture.model import Model
from flopsd.core.architecture.parameters import Parameters, adapters, parameters
from flopsd.core.architecture.read_config import bare_model, read_model, why_not_read
from flopsd.core.architecture.training import Lora, Training, training_from

__all__ = [
    "LAYERS_LEFT_OUT", "ArchitectureFlop", "Bounds", "Lora", "Model", "Parameters", "Training", "adapters",
    "bare_model", "causal_pairs", "flop", "forward_flop", "parameters", "read_model", "training_from", "why_not_read",
    "window_pairs",
]  # fmt: skip
