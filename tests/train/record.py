"""`python -m tests.train.record`: values of transformers and PyTorch for each family, for tests that run without
them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import peft
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

from flopsd.core.architecture import read_model
from flopsd.core.declared_facts import facts_from
from flopsd.errors import ArchitectureError
from flopsd.integrations.describe_model import describe
from tests.support.architectures import digest_of, paths_of_model
from tests.support.paths import SAMPLES
from tests.train import test_diffusion as diffusion
from tests.train.families import FAMILIES, LENGTH, RANK, adapt, alone, build, config_of, flop_counter, step, text_batch
from tests.train.table import CASES
from tests.train.test_diffusion import ADAPTED, PATCHES, ROWS, TEXT
from tests.train.test_parameters import WITHIN, paths_of, without
from tests.train.vision_families import BATCHES

STEPS = SAMPLES / "torch_steps.jsonl"


def row(name: str) -> dict[str, Any]:
    """One family: its configuration as given to transformers and as filled by it, the values filled for each omitted
    field, sizes, and the FLOP of a step for each training method."""
    _, config, targets = FAMILIES[name]
    model = build(name)
    whole, kind = config_of(model), [type(model).__name__]
    given = {"model_type": whole["model_type"], "architectures": kind, **config}
    steps = [step(name, *case) for case in CASES]
    total = sum(p.numel() for p in model.parameters())
    return {
        "name": name,
        "given": _declared(given),
        "filled": whole,
        "left_out": dict(_otherwise(given, whole)),
        "parameters": total,
        "modules": _named(model),
        "trainable": adapt(model, targets).get_nb_trainable_parameters()[0],
        "target_modules": targets,
        "work": steps[0].work,
        "flop": {" ".join(case): found.counted for case, found in zip(CASES, steps, strict=True)},
        "alone": alone(name),
    }


HEADS = {
    **dict.fromkeys(("bert", "roberta", "electra", "distilbert", "modernbert", "llama", "gpt2"),
                    ("", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")),
    **dict.fromkeys(("vit", "deit", "dinov2", "t5", "bart"), ("",)),
}  # fmt: skip


def with_heads() -> Iterator[dict[str, Any]]:
    """Families with other heads than in their row, trained in full; those that flopsd reads."""
    for name, head in ((name, head) for name, heads in HEADS.items() for head in heads):
        labels = {"num_labels": 2 if head == "ForQuestionAnswering" else 3}
        config = transformers.AutoConfig.for_model(name, **{**FAMILIES[name][1], "pad_token_id": 0, **labels})
        model = getattr(transformers, f"AutoModel{head}").from_config(config, attn_implementation="eager").train()
        whole = config_of(model)
        try:
            read_model(whole)
        except ArchitectureError:
            continue
        inputs, work = BATCHES[name]() if name in BATCHES else text_batch(model, LENGTH)
        targets = inputs.pop("labels", None)
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = targets
        with flop_counter() as counter:
            found = model(**inputs)
            read = ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")
            sum(one.sum() for one in map(found.get, read) if one is not None).backward()
        yield {
            **({"modules": _named(model)} if name in BATCHES else {}),
            "name": f"{name}, {whole['architectures'][0]}", "given": whole, "filled": whole, "left_out": {},
            "parameters": sum(p.numel() for p in model.parameters()), "target_modules": FAMILIES[name][2],
            "trainable": adapt(model, FAMILIES[name][2]).get_nb_trainable_parameters()[0],
            "work": work, "flop": {"full none": counter.get_total_flops()},
        }  # fmt: skip


def of_diffusers() -> Iterator[dict[str, Any]]:
    """The diffusion transformers of test_diffusion.py."""
    work = {
        "sequences": ROWS, "tokens": ROWS * (PATCHES + TEXT), "square_pairs": ROWS * (PATCHES + TEXT) ** 2,
        "patches": ROWS * PATCHES, "patch_square_pairs": ROWS * PATCHES**2,
    }  # fmt: skip
    for name, targets in ADAPTED.items():
        model = diffusion.build(name)
        whole = _declared(describe(model, None)["model_config"])
        read = read_model(whole)
        first = {re.sub(r"\.\d+\.", ".", one.path): one.path for one in reversed(read.linears()) if one.adaptable}
        adapted = diffusion.build(name)
        adapted.requires_grad_(False)
        adapted.add_adapter(peft.LoraConfig(r=RANK, target_modules=targets))
        yield {
            "name": name, "given": whole, "filled": whole, "left_out": {}, "target_modules": targets, "work": work,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trainable": sum(p.numel() for p in adapted.parameters() if p.requires_grad),
            "flop": {" ".join(case): _diffused(name, targets, *case) for case in CASES},
            "alone": {path: _diffused(name, [path], "lora", "none") for path in reversed(first.values())},
        }  # fmt: skip


def _diffused(name: str, targets: list[str], method: str, recomputation: str) -> int:
    """The FLOP of a step."""
    model = diffusion.build(name)
    if method == "lora":
        model.requires_grad_(False)
        model.add_adapter(peft.LoraConfig(r=RANK, target_modules=targets))
    if recomputation == "full":
        model.enable_gradient_checkpointing()
    given = diffusion.inputs(name)
    with flop_counter() as counted, sdpa_kernel(SDPBackend.MATH):  # its flash kernel counts as zero
        model(given.pop("hidden_states"), **given).sample.sum().backward()
    found: int = counted.get_total_flops()
    return found


def _named(model: Any) -> str:
    """The digest of the names of those matrices and tables that PyTorch has."""
    names = {name for name, _ in (*model.named_modules(), *model.named_parameters())}
    return digest_of(
        name
        for name in paths_of_model(read_model(config_of(model)))
        if any(f".{one}".endswith(f".{name}") for one in names)
    )


def _declared(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = facts_from({"model_config": config})["model_config"]
    return found


def _otherwise(given: dict[str, Any], whole: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The values that transformers fills for an omitted field, where both configurations can still be read."""
    for path in paths_of(given):
        left = without(given, path)
        try:
            of_left = transformers.AutoConfig.for_model(**{"model_type": given["model_type"], **left})
            filled = _declared({**of_left.to_dict(), "architectures": whole["architectures"]})
            for config in (_declared(left), filled):
                read_model(config)
        except Exception:  # noqa: BLE001 (each version of transformers refuses with its own error)
            continue
        changed = _changed(whole, filled)
        if path != ("architectures",) and changed is not None:
            yield ".".join(path), changed


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any] | None:
    """The fields of `after` that differ; None if one is missing."""
    found = {}
    for name, value in after.items():
        there = before.get(name)
        inner = _changed(there, value) if name in WITHIN and there else value
        if inner is None and name in WITHIN:
            return None
        if name not in before or there != value:
            found[name] = inner
    return found if before.keys() <= after.keys() else None


if __name__ == "__main__":
    rows = [*map(row, FAMILIES), *with_heads(), *of_diffusers()]
    STEPS.write_text("".join(json.dumps(one, sort_keys=True, separators=(",", ":")) + "\n" for one in rows))
