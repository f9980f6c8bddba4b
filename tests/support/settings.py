"""The effective settings from flags, environment and file, as `flopsd run` loads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd.settings.load import read_layers, settings_of_layers
from flopsd.settings.schema import Setting, Settings


def load_settings(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    config_file: str | None = None,
    source_settings: Sequence[Setting] = (),
) -> Settings:
    return settings_of_layers(read_layers(flags, environment, config_file, source_settings))
