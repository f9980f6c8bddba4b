"""Vectors of declarations by settings and training processes: contradictions among them, and conclusions about
recomputation."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from tests.make_vectors.files import Files, statement_of, vector
from tests.make_vectors.findings import LLAMA, TOTAL, WORK, policy_of
from tests.make_vectors.runs import Process, trained
from tests.support.story import H100, tell

J = dict[str, Any]
POLICY = """\
id: ours
title: ours
base_systemic_presumed: {above: "1e15", citation: c}
rules:
  - {id: one, citation: c, at_least: "1"}
"""
M, R = Method, Recomputation
SIZE = {"parameters_total": TOTAL}
OPERATORS = {"device": H100.uid, **SIZE}


def said(
    base: Base | None = None,
    method: Method | None = None,
    phase: Phase | None = None,
    again: Recomputation | None = None,
) -> OperatorDeclarations:
    return OperatorDeclarations(phase, method, again, base)


def base(name: str | None = "org/Model-A", flop: int | None = 10**15, systemic: bool | None = None) -> Base:
    return Base(name, "unknown" if flop is None else "known", flop, None, systemic)


def estimate(flop: int) -> Base:
    return Base("a model", "estimated", flop, "6 x parameters x tokens", None)


def model(name: str) -> list[Process]:
    return [({"model_name": name}, {"train": {"steps": 1}})]


def shares(method: str | None, total: int, trainable: int) -> list[Process]:
    stated = {} if method is None else {"method": method}
    return [({"parameters_total": total, "parameters_trainable": trainable, **stated}, {"train": WORK})]


def operators(flop: int, again: int, **facts: Any) -> list[Process]:
    counted = {"operator_flop": flop, "recomputed_operator_flop": again}
    return [({**OPERATORS, "method": "full", **facts}, {"train": {**WORK, **counted}})]


Case = tuple[str, str, OperatorDeclarations, Sequence[Process]]
CASES: list[Case] = [
    ("one-name", "The last parts of both names are the same but for capitals.", said(base()), model("another/model-a")),
    ("other-names", "The names of base model and loaded model differ.", said(base()), model("org/model-b")),
    ("names-without-an-owner", "Neither name has an owner, and they differ.", said(base("model-a")), model("model-b")),
    ("name-that-is-a-path", "What was loaded is named by a path.", said(base()), model("./models/b")),
    ("name-that-is-an-absolute-path", "What was loaded is named by an absolute path.", said(base()), model("/models/b")),
    ("name-below-home", "The base model is named by a path.", said(base("~/models/a")), model("org/model-b")),
    ("no-name", "The base model has no name.", said(base(None)), model("org/model-b")),
    ("names-and-methods-of-two", "Two processes load another model, one of them twice.", said(base(), M.LORA), [*model("org/b"), *model("org/b"), ({"model_name": "org/c", "method": "full"}, {"train": WORK})]),
    ("another-method", "A process trains by another method than the settings say.", said(method=M.LORA), [({"method": "qlora"}, {"train": WORK})]),
    ("the-same-method", "A process trains as the settings say.", said(method=M.LORA), [({"method": "lora"}, {"train": WORK})]),
    ("method-of-a-reference", "A reference of another method and name contradicts nothing.", said(base(), M.LORA), [({"method": "full", "model_name": "org/b", "role": "reference", **SIZE}, {"other": WORK})]),
    ("full-of-a-part", "Full training of a part of the weights.", said(method=M.FULL), shares(None, 9, 8)),
    ("full-of-all", "Full training of all weights.", said(method=M.FULL), shares(None, 9, 9)),
    ("pretraining-of-a-part", "A process pretrains a part of the weights.", said(), shares("pretraining", 9, 8)),
    ("lora-of-all", "LoRA that trains all weights.", said(method=M.LORA), shares("lora", 9, 9)),
    ("qlora-of-all", "QLoRA that trains all weights.", said(), shares("qlora", 9, 9)),
    ("lora-of-a-part", "LoRA that trains a part of the weights.", said(method=M.LORA), shares("lora", 9, 8)),
    ("partial-of-all", "Partial training of all weights.", said(method=M.PARTIAL), shares("partial", 9, 9)),
    ("evaluation-with-a-method", "The settings say evaluation, and a method.", said(method=M.FULL, phase=Phase.EVALUATE), []),
    ("evaluation-that-trains", "The settings say evaluation, and a process trains.", said(phase=Phase.EVALUATE), [(SIZE, {"train": {"tokens": 1}})]),
    ("evaluation-that-trains-on-images", "The settings say evaluation, and a process trains on images.", said(phase=Phase.EVALUATE), [({}, {"train": {"images": 1}})]),
    ("evaluation-that-trains-on-patches", "The settings say evaluation, and a process trains on parts of images.", said(phase=Phase.EVALUATE), [({}, {"train": {"patches": 1}})]),
    ("evaluation-that-evaluates", "The settings say evaluation, and so does a process.", said(phase=Phase.EVALUATE), [(SIZE, {"evaluate": WORK, "train": {"tokens": 0}})]),
    ("training-that-trains", "The settings say training, and a process trains.", said(phase=Phase.TRAIN), [(SIZE, {"train": WORK})]),
    ("pretraining-with-a-base", "The settings say pretraining, and a base model.", said(base(), M.PRETRAINING), [({"method": "pretraining", **SIZE}, {"train": WORK})]),
    ("process-that-pretrains-a-base", "A process says pretraining, the settings a base model.", said(base()), [({"method": "pretraining"}, {"train": WORK})]),
    ("process-that-pretrains", "A process says pretraining, and there is no base model.", said(), [({"method": "pretraining"}, {"train": WORK})]),
    ("process-that-tunes-a-base", "A process says full training, the settings a base model.", said(base()), [({"method": "full"}, {"train": WORK})]),
    ("base-at-the-presumption", "The base model took as much as the law's limit, which is not above it.", said(base(flop=10**15, systemic=False)), []),
    ("base-above-the-presumption", "A FLOP more, and nothing is declared of systemic risk.", said(base(flop=10**15 + 1)), []),
    ("base-above-the-presumption-denied", "Systemic risk is denied, without a reason.", said(base(flop=10**15 + 1, systemic=False)), []),
    ("base-above-the-presumption-declared", "Systemic risk is declared.", said(base(flop=10**15 + 1, systemic=True)), []),
    ("base-of-unknown-compute", "Nobody knows what the base model took.", said(base(flop=None, systemic=False)), []),
    ("base-estimated-above-the-presumption", "The lower bound of an estimate is above it.", said(estimate(1_428_571_428_571_429)), []),
    ("base-estimated-at-the-presumption", "The lower bound of an estimate is not above it.", said(estimate(1_428_571_428_571_428)), []),
    ("loss-that-recomputes", "The settings say that nothing is computed again, and a fused loss does so.", said(again=R.NONE), [(SIZE, {"train": {**WORK, "fused_head_tokens": 1}})]),
    ("loss-that-recomputes-of-a-critic", "The loss of a critic does so.", said(again=R.NONE), [(SIZE, {"train": WORK}), ({**SIZE, "role": "critic"}, {"train": {**WORK, "fused_head_tokens": 1}})]),
    ("loss-that-may-recompute", "All is computed again, a fused loss too.", said(again=R.FULL), [({**SIZE, "method": "full"}, {"train": {**WORK, "fused_head_tokens": 1}})]),
    ("again-by-processes", "Two processes say that all is computed again.", said(method=M.FULL), [({**SIZE, "recomputation": "full"}, {"train": WORK}), ({"recomputation": "full"}, {"train": {"steps": 1}})]),
    ("again-by-one-process", "One of two processes that train says so, the other nothing: it is not declared.", said(method=M.QLORA), [({"recomputation": "full"}, {"train": {"steps": 1}}), ({}, {"train": {"steps": 1}})]),
    ("again-of-two-kinds", "Two processes say different things.", said(method=M.FULL), [({"recomputation": "full"}, {"train": {"steps": 1}}), ({"recomputation": "none"}, {"train": {"steps": 1}})]),
    ("again-of-a-reference", "What a reference says of it decides nothing.", said(method=M.FULL), [({"recomputation": "full"}, {"train": {"steps": 1}}), ({"recomputation": "none", "role": "reference"}, {"other": {"steps": 1}})]),
    ("again-in-part", "Something is computed again.", said(method=M.FULL, again=R.SELECTIVE), []),
    ("again-of-all-weights", "Of no declared method all weights are trained.", said(again=R.FULL), shares(None, 1, 1)),
    ("again-of-all-but-one", "All weights but one are trained.", said(again=R.FULL), shares(None, 9, 8)),
    ("again-of-no-weights", "A model without weights is declared.", said(again=R.FULL), shares(None, 0, 0)),
    ("again-of-no-process", "All is computed again, and no process trains.", said(again=R.FULL), []),
    ("again-of-all-weights-of-one", "One of two that work trains all weights.", said(again=R.FULL), [*shares(None, 9, 9), ({}, {"train": {"steps": 1}})]),
    ("again-of-all-weights-that-work", "One that does not work declares nothing.", said(again=R.FULL), [*shares(None, 9, 9), ({}, {})]),
    ("operators-of-selective", "The settings say that something is computed again: operators say how much.", said(method=M.FULL, again=R.SELECTIVE), operators(10**6, 10**5)),
    ("operators-of-full", "The settings say that all is computed again: operators decide nothing.", said(method=M.FULL, again=R.FULL), operators(10**6, 10**5)),
    ("operators-of-none", "The settings say that nothing is computed again: operators decide nothing.", said(method=M.FULL, again=R.NONE), operators(10**6, 10**5)),
    ("operators-at-the-least-share", "A third was computed again, as much as any recomputation comes to.", said(method=M.FULL), operators(1_500_000, 500_001)),
    ("operators-below-the-least-share", "More was computed again than any recomputation comes to.", said(method=M.FULL), operators(10**6, 10**6 - 1)),
    ("operators-all-again", "All was computed again.", said(method=M.FULL), operators(10**6, 10**6)),
    ("operators-more-than-all-again", "More was computed again than at all.", said(method=M.FULL), operators(10**6, 10**6 + 1)),
    ("operators-none-again", "One operator, and none again.", said(method=M.FULL), operators(1, 0)),
    ("operators-none", "No operator was counted.", said(method=M.FULL, again=R.SELECTIVE), operators(0, 0)),
    ("operators-left-out-of-training", "Of training not all operators are counted.", said(method=M.FULL), operators(10**6, 10**5, operators_not_counted={"train": ["a kernel"]})),
    ("operators-of-work-left-out", "Of training not all work is counted.", said(method=M.FULL), operators(10**6, 10**5, not_counted={"train": ["a judge"]})),
    ("operators-of-nobody", "Operators are counted of a device that nobody names.", said(method=M.FULL), [({"method": "full"}, {"train": {"operator_flop": 7}})]),
    ("operators-of-all-there-can-be", "As many operators are counted as the device can have executed.", said(), [({"device": H100.uid}, {"train": {"operator_flop": 1_966_354_067_743_583}})]),
    ("operators-of-more-than-there-can-be", "One FLOP more.", said(), [({"device": H100.uid}, {"train": {"operator_flop": 1_966_354_067_743_584}})]),
    ("operators-of-another-device", "Operators are counted of a device that is not there.", said(method=M.FULL), [({"method": "full", "device": "GPU-x"}, {"train": {"operator_flop": 7}})]),
    ("operators-of-no-figure", "Counts that no figure has: of a device that is not there, of more than one can have executed, of nobody's.", said(), [({"device": "GPU-x"}, {"train": {"operator_flop": 7}}), ({"device": H100.uid}, {"train": {"operator_flop": 3 * 10**16}}), ({}, {"train": {"operator_flop": 11}}), ({"device": "GPU-x"}, {"evaluate": {"operator_flop": 13}}), ({"device": H100.uid}, {"train": {"operator_flop": 10**16}}), ({"device": H100.uid}, {"train": {"steps": 1}})]),
]  # fmt: skip
TEXT = {"rope_scaling": ["x"]}, {"rope_scaling": {"0": "x"}}


def stated(declared: OperatorDeclarations, processes: Sequence[Process], policies: Any = ()) -> Callable[[Path], bytes]:
    """Two seconds of processes whose ids have another order."""
    return trained(processes, 2, lambda number: f"{9 - number}" * 32, declared=declared, policies=policies)


def declared_vectors() -> Files:
    files: Files = {}
    policy = policy_of(POLICY)
    for name, what, declared, processes in CASES:
        journal = tell(stated(declared, processes, (policy,)))
        full = f"valid/declared-{name}"
        files[f"{full}/our.policy.yaml"] = POLICY.encode()
        files |= vector(
            full, what, statement_of(journal, policies=(policy,)), journal, more=("--policy", "our.policy.yaml")
        )
    return {**files, **plain_models()}


def llama(**changes: Any) -> J:
    return {name: value for name, value in {**LLAMA, **changes}.items() if value is not ...}


LARGEST = 10**9
ODD: J = {
    "_name_or_path": 1, "attention_dropout": None, "bos_token_id": [], "dtype": "x", "eos_token_id": {}, "hidden_act": 0,
    "initializer_range": "0.02", "pad_token_id": True, "pretraining_tp": 7, "rms_norm_eps": "1e-5", "rope_parameters": {"a": [1]},
    "rope_scaling": [], "rope_theta": -1, "torch_dtype": None, "transformers_version": 5, "use_cache": "no",
}  # fmt: skip
# A plain Llama, which no verifier may omit; for each there is a vector with a falsified basis.
PLAIN: list[tuple[str, str, J]] = [
    ("of-ones", "All sizes are 1.", llama(hidden_size=1, intermediate_size=1, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, vocab_size=1, head_dim=1, max_position_embeddings=1)),
    ("of-the-largest-width", "The width and what may be are as large as they can be.", llama(hidden_size=LARGEST, head_dim=LARGEST, max_position_embeddings=LARGEST)),
    ("of-the-largest-rest", "The other sizes are as large as they can be.", llama(intermediate_size=LARGEST, vocab_size=LARGEST, num_attention_heads=LARGEST, num_key_value_heads=LARGEST, head_dim=1)),
    ("of-the-most-layers", "A model of 2000 layers.", llama(num_hidden_layers=2000)),
    ("of-odd-heads", "The width is not a multiple of the heads, which have a size of their own.", llama(hidden_size=13, head_dim=3)),
    ("of-nothing-more", "Only what must be there.", llama(num_key_value_heads=...)),
    ("of-all-that-may-be", "All that changes nothing is there, of any type.", {**llama(architectures=["LlamaForCausalLM", "x"], attention_bias=False, mlp_bias=True, tie_word_embeddings=False, **ODD)}),
]  # fmt: skip
# Models that narrowly miss being a plain Llama.
NEARLY: list[tuple[str, str, J]] = [
    *((f"of-a-{name}-of-0", f"`{name}` is 0.", llama(**{name: 0})) for name in (*LLAMA, "head_dim", "max_position_embeddings") if name != "model_type"),
    *((f"of-a-{name}-beyond-all", f"`{name}` is one more than can be.", llama(**{name: LARGEST + 1})) for name in ("intermediate_size", "vocab_size", "max_position_embeddings")),
    ("of-too-many-layers", "A model of 2001 layers.", llama(num_hidden_layers=2001)),
    ("of-odd-key-heads", "Heads are not a multiple of the heads of keys.", llama(num_key_value_heads=3)),
    ("of-an-odd-width", "The width is not a multiple of the heads.", llama(hidden_size=13)),
    ("with-a-width-as-text", "`hidden_size` is a text.", llama(hidden_size="12")),
    ("without-a-width", "There is no `hidden_size`.", llama(hidden_size=...)),
    ("with-a-bias-of-1", "`attention_bias` is 1.", llama(attention_bias=1)),
    ("with-a-tie-of-null", "`tie_word_embeddings` is null.", llama(tie_word_embeddings=None)),
    ("of-another-class", "Its class has no head of a language model.", llama(architectures=["LlamaModel"])),
    ("of-no-class", "`architectures` is empty.", llama(architectures=[])),
    ("of-a-class-in-a-text", "`architectures` is a text.", llama(architectures="LlamaForCausalLM")),
    ("of-a-class-and-a-number", "`architectures` has a number behind its class.", llama(architectures=["LlamaForCausalLM", 7])),
    ("of-another-field", "A field that no plain Llama has.", llama(num_experts=8)),
    ("of-no-type", "There is no `model_type`.", llama(model_type=...)),
]  # fmt: skip


# Models that a verifier must compute, and a falsified basis of each.
BENT: list[tuple[str, str, list[Process]]] = [
    ("of-a-size", "Only a size is declared.", [({**SIZE, "method": "full"}, {"train": WORK})]),
    ("of-a-lora", "LoRA of two matrices.", [({"model_config": LLAMA, "method": "lora", "lora": {"r": 2, "target_modules": ["q_proj", "down_proj"]}}, {"train": WORK})]),
    ("of-a-lora-of-all", "LoRA of all matrices.", [({"model_config": LLAMA, "method": "lora", "lora": {"r": 2, "target_modules": ["all-linear"], "modules_to_save": []}}, {"train": WORK})]),
    ("of-a-lora-of-nothing-named", "LoRA whose matrices are not named.", [({"model_config": LLAMA, "method": "qlora", "lora": {"r": 2}}, {"train": WORK, "evaluate": WORK})]),
    ("of-two", "A Llama, and a size beside it.", [({"model_config": LLAMA, "method": "full"}, {"train": WORK}), ({**SIZE, "role": "critic"}, {"train": WORK})]),
    ("of-all-counters", "All counters that such a model has.", [({"model_config": LLAMA, "method": "full"}, {"train": {**WORK, "steps": 3, "forward_passes": 4, "padding_tokens": 1, "headless_tokens": 1, "unlabelled_tokens": 1, "fused_head_tokens": 1, "framework_flop": 9, "operator_flop": 7, "recomputed_operator_flop": 1, "window_pairs": 5}})]),
]  # fmt: skip


def plain_models() -> Files:
    files: Files = {}
    for name, what, processes in BENT:
        journal = tell(stated(said(), processes))
        bent: J = json.loads(json.dumps(statement_of(journal)))
        basis = bent["predicate"]["totals"]["architecture"]
        basis["low"] = str(int(basis["low"]) + 1)
        files |= _with(f"invalid/model-{name}-bent", f"{what} Its basis is one FLOP more.", bent, journal)
    for kind, models in (("plain", PLAIN), ("nearly-plain", NEARLY)):
        for name, what, config in models:
            journal = tell(stated(said(), [({"model_config": config, "method": "full"}, {"train": WORK})]))
            statement = statement_of(journal)
            files |= _with(f"valid/{kind}-{name}", what, statement, journal)
            basis = statement["predicate"]["totals"]["architecture"]
            assert kind != "plain" or basis is not None, name
            if kind == "plain":
                bent = copy.deepcopy(statement)
                bent["predicate"]["totals"]["architecture"]["low"] = str(int(basis["low"]) + 1)
                files |= _with(f"invalid/{kind}-{name}-bent", f"{what} Its basis is one FLOP more.", bent, journal)
    idle = tell(stated(said(), [({"model_config": LLAMA}, {})]))
    bent = json.loads(json.dumps(statement_of(idle)))
    bent["predicate"]["totals"]["architectureAbsentReasons"] = [{"code": "no_process"}]
    files |= _with(
        "invalid/plain-without-work-bent", "A plain Llama is declared, and it is said that none is.", bent, idle
    )
    work = {"train": {"tokens": 70}}
    two = tell(stated(said(), [({"model_config": {**LLAMA, **one}, "method": "full"}, work) for one in TEXT]))
    what = "Two models that differ in a list, and an object whose only name is the list's first place."
    return files | _with("valid/plain-twice", what, statement_of(two), two)


def _with(name: str, what: str, statement: J, journal: bytes) -> Files:
    is_bent = name.startswith("invalid")
    code, clause = ("statement_differs", "SHAPE-4") if is_bent else (None, None)
    return vector(name, what, statement, journal, code, clause, schema=None)
