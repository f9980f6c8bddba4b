"""Checks of what training processes declare about themselves: facts, and counters by phase. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flopsd.core.declarations import (
    COUNTERS,
    MAX_COUNT,
    MAX_TEXT,
    Method,
    Phase,
    Recomputation,
    Role,
    count_from,
    precision_from,
)
from flopsd.core.field_reader import FieldReader, raising

MAX_CONFIG_ENTRIES = 400
MAX_CONFIG_DEPTH = 4
MAX_MODULES = 256
MAX_LEFT_OUT = 16
# The facts, besides the counted work, from which a model's FLOP are computed.
MODEL_FACTS = (
    "model_config", "parameters_total", "parameters_trainable", "lora", "method", "recomputation", "attention",
    "packing", "window",
)  # fmt: skip
_LAYERS_UNNAMED, _LAYERS_MOST = 200, 2000  # layers that a configuration may leave out; the most of any model
_DEVICE = re.compile("[!-~]{1,100}")
_ATTENTION = re.compile("[a-z0-9_]{1,40}")


def facts_from(raw: object) -> dict[str, Any]:
    """The facts that a process declares, checked: a small, closed set. Raises ValueError, which names the fact."""
    facts = FieldReader(raw, "", raising(ValueError))
    facts.only(*_FACTS)
    return {name: _FACTS[name](facts, name) for name in facts.mapping}


def refuse_unprintable(facts: Mapping[str, Any]) -> None:
    """Raise ValueError for a text that is more than a line of printable characters. Applied to processes only, not to
    journals: which characters are printable depends on the Python version, and others read the journal."""
    for name, value in facts.items():
        if name != "model_config" and not all(text.isprintable() and text.strip() for text in _texts(value)):
            raise ValueError(f"{name}: must be of printable characters, is {value!r:.100}")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in _items(value):
        yield from _texts(inner)


def _items(value: object) -> Iterable[object]:
    """The values in a mapping or a list; none in anything else."""
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()


def work_from(raw: object) -> dict[str, dict[str, int]]:
    """The counters by phase, checked. Raises ValueError."""
    if not isinstance(raw, Mapping):
        raise ValueError("work is not a mapping of phases")
    found: dict[str, dict[str, int]] = {}
    for phase, counters in raw.items():
        if not isinstance(counters, Mapping):
            raise ValueError(f"the work of phase {str(phase)[:40]!r} is not a mapping of counters")
        found[Phase(phase).value] = {_counter(name): count_from(value) for name, value in counters.items()}
    return found


def layers_to_compute(facts: Mapping[str, Any]) -> int:
    """A generous estimate of the cost of computing a model with these facts, in layers of a model without adapters. A
    process may declare any number of models, with more layers than any real one."""
    lora = facts.get("lora") or {}
    names = sum(len(lora.get(key) or ()) for key in ("target_modules", "modules_to_save"))
    return (_LAYERS_UNNAMED + _layers(facts.get("model_config"), "")) * (10 + names) // 10


def _layers(value: object, name: str) -> int:
    if isinstance(value, Mapping):
        return sum(_layers(inner, key) for key, inner in value.items())
    if isinstance(value, list):
        return len(value)
    is_count = ("layer" in name or "depth" in name) and isinstance(value, int) and 0 < value <= _LAYERS_MOST
    return int(value) if is_count else 0  # type: ignore[call-overload]


def _counter(name: object) -> str:
    if name not in COUNTERS:
        raise ValueError(f"{str(name)[:40]!r} is not a known counter; known: {', '.join(COUNTERS)}")
    return str(name)


def _count_fact(facts: FieldReader, name: str) -> int:
    return facts.whole(name, 0, MAX_COUNT)


def _text_fact(facts: FieldReader, name: str) -> str:
    text = facts.text(name)
    if not 0 < len(text) <= MAX_TEXT:
        facts.wrong(name, f"text of 1 to {MAX_TEXT} characters")
    return text


def _device(facts: FieldReader, name: str) -> str:
    return facts.matching(name, _DEVICE, "an accelerator's UUID as its driver names it, such as GPU-… or MIG-…")


def _precision_fact(facts: FieldReader, name: str) -> object:
    value = facts.raw(name)
    try:
        precision_from(value, "")
    except ValueError as fault:
        facts.problem(name, str(fault))
    return dict(value) if isinstance(value, Mapping) else value


def _lora(facts: FieldReader, name: str) -> dict[str, Any]:
    """Adapters in PEFT's terms: r, and the modules that they are attached to."""
    lora = facts.object(name)
    lora.only("r", "target_modules", "modules_to_save", null=True)
    found: dict[str, Any] = {"r": lora.whole("r", 0, MAX_COUNT)}
    for key in ("target_modules", "modules_to_save"):
        if key in lora:
            modules = lora.texts(key)
            named = all(0 < len(text) <= MAX_TEXT for text in modules)
            if not named or len(modules) > MAX_MODULES:
                lora.wrong(key, f"a list of at most {MAX_MODULES} module names")
            found[key] = sorted(modules)
    return found


def _not_counted(facts: FieldReader, name: str) -> dict[str, list[str]]:
    """Work that a process does but cannot count, in words, by phase."""
    work = facts.object(name)
    work.only(*(phase.value for phase in Phase))
    found = {phase: work.texts(phase) for phase in work.mapping}
    for phase, texts in found.items():
        if len(texts) > MAX_LEFT_OUT or not all(0 < len(text) <= MAX_TEXT for text in texts):
            work.wrong(phase, f"a list of at most {MAX_LEFT_OUT} texts")
    return {phase: sorted(set(texts)) for phase, texts in found.items() if texts}


def _config(facts: FieldReader, name: str) -> dict[str, Any]:
    """A model's config.json: JSON of bounded size, with floats as text, since ledgers hold no floats."""
    try:
        found = _plain(facts.object(name).mapping, MAX_CONFIG_DEPTH)
    except ValueError as fault:
        facts.problem(name, str(fault))
    if _entries(found) > MAX_CONFIG_ENTRIES:
        facts.problem(name, f"more than {MAX_CONFIG_ENTRIES} entries: leave out what is not architecture")
    assert isinstance(found, dict)
    return found


def _plain(value: object, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if depth == 0:
        raise ValueError("nested too deep")
    if isinstance(value, Mapping):
        return {str(key)[:MAX_TEXT]: _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    raise ValueError(f"{type(value).__name__} is not JSON")


def _entries(value: object) -> int:
    return sum(1 + _entries(item) for item in _items(value))


_FACTS: Mapping[str, Callable[[FieldReader, str], Any]] = {
    "model_config": _config,
    "model_name": _text_fact,
    "model_revision": _text_fact,
    "parameters_total": _count_fact,
    "parameters_trainable": _count_fact,
    "method": lambda facts, name: facts.one_of(name, [method.value for method in Method]),
    "lora": _lora,
    "recomputation": lambda facts, name: facts.one_of(name, [value.value for value in Recomputation]),
    "attention": lambda facts, name: facts.matching(name, _ATTENTION, "a name such as eager, sdpa, flash_attention_2"),
    "precision": _precision_fact,
    "packing": FieldReader.flag,
    "role": lambda facts, name: facts.one_of(name, [role.value for role in Role]),
    "not_counted": _not_counted,
    "window": _count_fact,  # the causal window that window_pairs were counted with
    "rank": _count_fact,
    "local_rank": _count_fact,
    "world_size": _count_fact,
    "framework": _text_fact,
    "operators_not_counted": _not_counted,  # as not_counted, for operator_flop
    "device": _device,  # the accelerator on which operator_flop were counted; it never changes
}
