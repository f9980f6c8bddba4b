"""The effective settings and their origins, for `config show`; the problems of a file, for `config check`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from flopsd.core.dataclass import dataclass
from flopsd.core.model import Precision
from flopsd.errors import ConfigError
from flopsd.settings.client_socket import socket_path
from flopsd.settings.device_selection import DevicesSetting
from flopsd.settings.load import (
    COMMAND_LINE,
    ENVIRONMENT,
    SECRETS,
    Layers,
    check_needs,
    problems_of,
    read_layers,
    settings_of_layers,
)
from flopsd.settings.platform import Context
from flopsd.settings.sagemaker_defaults import with_defaults
from flopsd.settings.schema import Setting

HIDDEN = "HIDDEN"


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting. `value` is its YAML value, None if not set; `origin` is flag, variable, file, platform or default,
    and `where` names that flag, variable or file."""

    setting: Setting
    value: Any
    origin: str
    where: str

    def for_json(self) -> dict[str, Any]:
        return {"value": self.value, "from": self.origin, "where": self.where}


def effective_settings(layers: Layers, context: Context) -> list[EffectiveSetting]:
    """Every setting, with the defaults of the platform in `context`. Raises ConfigError with every problem."""
    settings, found = settings_of_layers(layers), []
    here = with_defaults(settings, context)
    for setting in layers.known:
        value = here.value(setting.key)
        origin, where = _origin(setting, layers)
        if value != settings.value(setting.key):
            origin, where = "platform", context.platform
        found.append(EffectiveSetting(setting, _yaml_value(setting, value), origin, where))
    return found


def as_yaml(found: list[EffectiveSetting], layers: Layers, environment: Mapping[str, str]) -> str:
    """The settings as a settings file without secrets. A comment on each line states the origin of the value."""
    lines = [
        "# The effective settings. Precedence: flag > variable > file > default.",
        f"# file: {layers.file if layers.file is not None else 'none found'}",
    ]
    lines += [f"# {name} is set; its value is not shown" for name in SECRETS if name in environment]
    for one in found:
        if one.value is None:
            default = re.search(r"\(default: (?P<what>.*)\)$", one.setting.help)
            lines.append(f"# {one.setting.key}: not set  # default: {default['what'] if default else 'none'}")
            continue
        text = yaml.safe_dump(one.value, default_flow_style=True, width=1_000_000, sort_keys=False)
        text = text.removesuffix("...\n").rstrip()  # the end of a scalar
        origin = one.origin if one.origin == "default" else f"{one.origin} {one.where}"
        lines.append(f"{one.setting.key}: {text}  # {origin}")
    return "\n".join(lines) + "\n"


def check_file(path: str, source_settings: Sequence[Setting]) -> int:
    """The number of settings in the file. Raises ConfigError with every problem, including those that `flopsd run`
    would find only at its start."""
    layers = read_layers({}, {}, path, source_settings)
    try:
        settings = settings_of_layers(layers)
    except ConfigError as fault:
        raise ConfigError(fault.problems, hint="`flopsd config show` lists all settings") from fault
    checks = (partial(check_needs, settings), partial(socket_path, settings.client_socket, Path()))
    problems, hint = problems_of(checks)
    if problems:
        raise ConfigError([f"{layers.file}: {problem}" for problem in problems], hint=hint)
    return sum(len(raw) for _, raw in layers.given)


def _origin(setting: Setting, layers: Layers) -> tuple[str, str]:
    for name, raw in reversed(layers.given):
        if setting.key in raw:
            if name == COMMAND_LINE:
                return "flag", "--no-seal" if setting.key == "seal" else setting.flag
            return ("variable", setting.variable) if name == ENVIRONMENT else ("file", str(layers.file))
    return "default", ""


def _yaml_value(setting: Setting, value: Any) -> Any:
    """The value in YAML that parses back to the same value; secrets are hidden."""
    if value is None or value == ():
        return "off" if _means_off(setting, value) else None if value is None else []
    if isinstance(value, Precision):
        return value.label
    if isinstance(value, DevicesSetting):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _yaml_value(setting, one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_yaml_value(setting, one) for one in value]
    if isinstance(value, float):
        return "off" if _means_off(setting, value) else int(value) if value.is_integer() else value
    return without_secrets(value) if isinstance(value, str) else value


def _means_off(setting: Setting, value: Any) -> bool:
    try:
        return bool(setting.parse("off") == value)
    except ValueError:
        return False


def without_secrets(text: str) -> str:
    """`text` without the PIN of a key URI, and without the user, password and query of a URL; hides a malformed URL."""
    text = re.sub(r"((?:^|[?&;])pin-value=)[^&;]+", rf"\1{HIDDEN}", text)
    if not text.startswith(("http://", "https://")):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return HIDDEN
    who, at, host = parts.netloc.rpartition("@")
    query = re.sub(r"=[^&]*", f"={HIDDEN}", parts.query)
    return urlunsplit(parts._replace(netloc=f"{HIDDEN}@{host}" if at and who else host, query=query))
