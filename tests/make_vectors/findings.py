"""Vectors of findings and of the requirements that follow from a model's shape: valid ledgers whose policies and
declarations decide.

Each finding's vector has a policy of its own beside it, `our.policy.yaml`, with thresholds around the figures of the
run.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flopsd.core.companions import POLICY, companion_name
from flopsd.core.declarations import Base, Method, OperatorDeclarations, Phase, Recomputation
from flopsd.core.ledger.statement import encode
from flopsd.core.model import Device, Pipe
from flopsd.core.policy.policy_file import Policy
from flopsd.core.session_protocol import FactsDeclared, PhaseChanged, SessionOpened
from flopsd.settings.data_files import parse_policy
from tests.make_vectors.files import Files, signed, statement_of, vector
from tests.make_vectors.runs import BUSY, TRAINING, Process, trained
from tests.support.story import A100, CONTEXT, H100, HALF_KNOWN, Story, active, tell

J = dict[str, Any]
Model = tuple[str, str, list[Process]]
TRAIN, FULL, NONE = Phase.TRAIN, Method.FULL, Recomputation.NONE
PRE = Method.PRETRAINING
# The figures of two seconds of the story: taken from the ledger itself, so that thresholds lie exactly at them.
LOW, MEASURED, HIGH = "LOW", "MEASURED", "HIGH"


def base(kind: str = "known", flop: int | None = 10**15, systemic: bool | None = None) -> Base:
    return Base("a base model", kind, flop, "6 x parameters x tokens" if kind == "estimated" else None, systemic)


def declared(
    method: Method | None = None, base: Base | None = None, phase: Phase | None = TRAIN
) -> OperatorDeclarations:
    return OperatorDeclarations(phase, method, NONE, base)


MODIFIED = "when: {modification: true}"
KNOWN = 'when: {modification: true, base.kind: [known, estimated], base.flop: {above: "1e15"}}'
SMALL = 'when: {modification: true, base.kind: [known, estimated], base.flop: {not_above: "1e15"}}'
FALLBACKS = """
  - {{id: with-risk, citation: c, quantity: cumulative, {0}, or_else: without-risk,
     when: {{modification: true, base.kind: [unknown], base.systemic: true}}}}
  - {{id: without-risk, citation: c, quantity: updates, {1}, or_else: with-risk,
     when: {{modification: true, base.kind: [unknown], base.systemic: false}}}}"""


def rule(threshold: str, *more: str) -> str:
    return "\n  - {id: one, citation: c, " + ", ".join((threshold, *more)) + "}"


# Name, description, rules, declarations. HIGH and LOW stand for the ends of the run's own figures.
CASES: list[tuple[str, str, str, OperatorDeclarations]] = [
    ("tie-greater", "The upper bound is the threshold: not greater, so below.", rule('greater_than: "HIGH"'), declared(PRE)),
    ("tie-at-least", "The upper bound is the threshold of `at_least`: not below.", rule('at_least: "HIGH"'), declared(PRE)),
    ("tie-low-greater", "The lower bound is the threshold: not above.", rule('greater_than: "LOW"'), declared(PRE)),
    ("tie-low-at-least", "The lower bound is the threshold of `at_least`: above.", rule('at_least: "LOW"'), declared(PRE)),
    ("one-less", "The threshold is one FLOP below the lower bound: above.", rule('greater_than: "LOW-1"'), declared(PRE)),
    ("share-of-a-half", "Shares that are rounded: down, to the even side, up.", rule('greater_than: "MEASUREDx2000000"'), declared(PRE)),
    ("share-of-a-third", "A threshold that is not a whole number.", rule('greater_than: "HIGH/3"'), declared(PRE)),
    ("straddling", "A threshold between the two ends: indeterminate.", rule('greater_than: "MEASURED"'), declared(PRE)),
    ("modification-not-declared", "No method: whether the rule applies is not known; it is above if it does.", rule('at_least: "LOW"', MODIFIED), declared()),
    ("modification-not-declared-below", "No method, and below whether it applies or not.", rule('at_least: "1e30"', MODIFIED), declared()),
    ("modification-of-pretraining", "Pretraining is not a modification: the rule does not apply.", rule('at_least: "LOW"', MODIFIED), declared(PRE)),
    ("no-modification-of-a-method", "A rule of models trained from the start, and a fine-tuning.", rule('at_least: "LOW"', "when: {modification: false}"), declared(FULL)),
    ("pretraining-with-a-base", "Pretraining and a base model contradict each other.", rule('at_least: "LOW"', MODIFIED), declared(PRE, base())),
    ("method-in-the-list", "A rule for two methods, and one of them.", rule('at_least: "LOW"', "when: {method: [lora, full]}"), declared(FULL)),
    ("method-not-in-the-list", "A rule for other methods.", rule('at_least: "LOW"', "when: {method: [lora, qlora]}"), declared(FULL)),
    ("method-of-nobody", "A rule for a method, and none is declared.", rule('at_least: "LOW"', "when: {method: [lora]}"), declared()),
    ("base-of-nobody", "A rule for base models, and none is declared: the threshold has no upper bound.", rule('greater_than: {of_base: "1/3"}', KNOWN), declared(FULL)),
    ("base-of-another-kind", "The base model's compute is unknown: the rule does not apply.", rule('greater_than: {of_base: "1/3"}', KNOWN), declared(FULL, base("unknown", None))),
    ("base-above", "A third of a known base model above the limit.", rule('greater_than: {of_base: "1/3"}', KNOWN), declared(FULL, base(flop=10**15 + 1))),
    ("base-at-the-limit", "The base model is at the limit, which is not above it.", rule('greater_than: {of_base: "1/3"}', KNOWN), declared(FULL, base())),
    ("base-at-most", "The base model is at the limit of `not_above`.", rule('at_least: "HIGH"', "quantity: base+updates", SMALL), declared(FULL, base())),
    ("base-estimated-across", "An estimate with the limit between its ends: open.", rule('greater_than: {of_base: "1/3"}', KNOWN), declared(FULL, base("estimated", 11 * 10**14))),
    ("base-estimated-above", "An estimate whose both ends are above the limit: a threshold with two ends.", rule('greater_than: {of_base: "1/7"}', KNOWN), declared(FULL, base("estimated", 16 * 10**15))),
    ("base-estimated-at-the-limit", "The lower bound of an estimate is the limit: open, and above it only with a FLOP more.", rule('greater_than: {of_base: "1/3"}', 'when: {modification: true, base.flop: {above: "7e14"}}'), declared(FULL, base("estimated", 10**15))),
    ("base-estimated-up-to-the-limit", "The upper bound of an estimate is the limit.", rule('at_least: "HIGH"', "quantity: base+updates", 'when: {modification: true, base.flop: {not_above: "13e14"}}'), declared(FULL, base("estimated", 10**15))),
    ("base-estimated-of-base", "An estimate alone decides: which base models would be above.", rule('at_least: {of_base: "1/7"}', MODIFIED), declared(FULL, base("estimated", 17 * 10**15))),
    ("base-and-updates", "The base model's compute is added to both ends, and nothing is measured.", rule('greater_than: "1e16"', "quantity: base+updates"), declared(FULL, base(flop=9 * 10**15))),
    ("base-and-updates-estimated", "An estimate with ends that are not whole numbers is added outward.", rule('greater_than: "1e16"', "quantity: base+updates"), declared(FULL, base("estimated", 7 * 10**15 + 3))),
    ("base-and-updates-open", "Nothing is declared of the base model: above only if it took so much.", rule('greater_than: "1e16"', "quantity: base+updates", "when: {base.flop: {not_above: \"9e15\"}}"), declared(FULL)),
    ("base-and-updates-at-least", "The same of `at_least`: one FLOP less suffices.", rule('at_least: "1e16"', "quantity: base+cumulative", "when: {base.flop: {not_above: \"9e15\"}}"), declared(FULL)),
    ("base-of-a-range", "A fraction of a base model above a limit, of which nothing is declared.", rule('greater_than: {of_base: "1/3"}', "when: {base.flop: {above: \"1e15\"}, base.systemic: false}"), declared(FULL)),
    ("base-at-least-of-a-range", "The same of `at_least`.", rule('at_least: {of_base: "1/3"}', "when: {base.flop: {above: \"1e15\"}}"), declared(FULL)),
    ("base-at-least-of-two-sevenths", "The same of two sevenths.", rule('at_least: {of_base: "2/7"}', 'when: {base.flop: {above: "1e15"}}'), declared(FULL)),
    ("systemic-not-declared", "Either quantity may be meant: systemic risk is not declared.", rule('greater_than: "MEASURED"', "quantity: {ordinary_base: updates, systemic_base: cumulative}"), declared(FULL, base())),
    ("systemic-not-declared-of-a-wider-first", "Either quantity may be meant, and the first is the larger one.", rule('greater_than: "MEASURED"', "quantity: {ordinary_base: base+cumulative, systemic_base: updates}"), declared(FULL, base())),
    ("systemic-declared", "With systemic risk the second quantity is meant.", rule('greater_than: "MEASURED"', "quantity: {ordinary_base: updates, systemic_base: base+cumulative}"), declared(FULL, base(systemic=True))),
    ("systemic-of-pretraining", "Of a model trained from the start the first quantity is meant.", rule('greater_than: "MEASURED"', "quantity: {ordinary_base: updates, systemic_base: base+cumulative}"), declared(PRE)),
    ("systemic-by-the-rule", "The rule itself is for models without systemic risk.", rule('greater_than: "MEASURED"', "quantity: {ordinary_base: updates, systemic_base: base+cumulative}", "when: {base.systemic: false}"), declared(FULL, base())),
    ("systemic-of-both-kinds", "A rule for systemic risk, a base model without.", rule('greater_than: "LOW-1"', "when: {base.systemic: true}"), declared(FULL, base(systemic=False))),
    ("fallbacks-both-above", "One of two rules applies, and both are above.", FALLBACKS.format('at_least: "LOW"', 'at_least: "LOW"'), declared(FULL, base("unknown", None))),
    ("fallbacks-one-above", "One of two rules applies, and only one is above.", FALLBACKS.format('at_least: "HIGH"', 'at_least: "LOW"'), declared(FULL, base("unknown", None))),
    ("fallbacks-of-no-base-model", "One of two rules applies if there is a base model, and none is declared: both are open.", FALLBACKS.format('at_least: "LOW"', 'at_least: "LOW"').replace("base.kind: [unknown], ", ""), declared(FULL)),
    ("fallbacks-declared", "Systemic risk is declared: one of the two applies.", FALLBACKS.format('at_least: "LOW"', 'at_least: "LOW"'), declared(FULL, base("unknown", None, systemic=False))),
    ("derived-of-one", "A rule takes over what another one has.", rule('at_least: "LOW"', MODIFIED) + "\n  - {id: two, citation: c, derived: [one]}", declared(FULL)),
    ("derived-of-none", "A rule is derived from one that does not apply.", rule('at_least: "LOW"', MODIFIED) + "\n  - {id: two, citation: c, derived: [one]}", declared(PRE)),
    ("derived-of-two", "A rule is derived from two that both apply: its state is that of neither for certain.", rule('at_least: "LOW"', MODIFIED) + '\n  - {id: other, citation: c, at_least: "HIGH"}\n  - {id: two, citation: c, derived: [one, other]}', declared(FULL)),
    ("derived-of-two-below", "Both are below, and so it is.", rule('at_least: "1e30"', MODIFIED) + '\n  - {id: other, citation: c, at_least: "1e31"}\n  - {id: two, citation: c, derived: [one, other]}', declared(FULL)),
    ("derived-of-two-one-below", "One of two is below: what is left is the other.", rule('greater_than: "MEASURED"', MODIFIED) + '\n  - {id: other, citation: c, at_least: "1e31"}\n  - {id: two, citation: c, derived: [one, other]}', declared(FULL)),
    ("derived-of-two-open", "Both hang on a base model of which nothing is declared.", rule('greater_than: {of_base: "1/3"}', KNOWN) + '\n  - {id: other, citation: c, greater_than: {of_base: "1/7"}}\n  - {id: two, citation: c, derived: [one, other]}', declared(FULL)),
    ("derived-of-either", "Of two rules either may apply, with another quantity and threshold: figures around both.", rule('greater_than: {of_base: "1/3"}', "quantity: updates", KNOWN) + '\n  - {id: other, citation: c, quantity: base+cumulative, at_least: "HIGH", ' + SMALL + "}\n  - {id: two, citation: c, derived: [one, other]}", declared(FULL, base("estimated"))),
    ("derived-with-a-condition", "A derived rule with a condition of its own, which is open.", rule('at_least: "LOW"', MODIFIED) + "\n  - {id: two, citation: c, derived: [one], when: {base.systemic: true}}", declared(FULL, base())),
    ("derived-that-does-not-apply", "A derived rule with a condition of its own, which is false.", rule('at_least: "LOW"', MODIFIED) + "\n  - {id: two, citation: c, derived: [one], when: {base.systemic: true}}", declared(FULL, base(systemic=False))),
    ("integers-counted", "Integer operations count too.", rule('greater_than: "HIGH"'), declared(PRE)),
    ("integers-of-no-kind", "Integer operations count too, and nobody can tell how many of the products were some.", rule('greater_than: "HIGH"'), declared(PRE)),
    ("integers-of-a-bounded-device", "Integer operations count too, of a device of which nothing is measured.", rule('greater_than: "HIGH"'), declared(PRE)),
    ("integers-of-a-half-known-device", "Integer operations count too, of a device that the table has in part.", rule('greater_than: "HIGH"'), declared(PRE)),
    ("integers-of-generation", "Integer operations count too, some of which generated.", rule('greater_than: "HIGH/2"', "quantity: updates") + '\n  - {id: two, citation: c, greater_than: "HIGH/2", quantity: cumulative}', declared(PRE, phase=None)),
    ("base-of-exactly-one-size", "Above only if the base model took one number of FLOP.", rule('at_least: "HIGH+9e15"', "quantity: base+updates", "when: {base.flop: {not_above: \"9e15\"}}"), declared(FULL)),
    ("base-estimated-of-a-fraction", "An estimate whose ends are not whole numbers.", rule('at_least: {of_base: "1/7"}', MODIFIED), declared(FULL, base("estimated", 17 * 10**15 + 1))),
    ("base-of-an-odd-part", "An odd part of a base model of which nothing is declared.", rule('greater_than: {of_base: "1000003/3000000"}', "when: {base.flop: {above: \"1e15\"}}"), declared(FULL)),
    ("base-at-least-of-an-odd-part", "The same of `at_least`.", rule('at_least: {of_base: "1000003/3000000"}', "when: {base.flop: {above: \"1e15\"}}"), declared(FULL)),
    ("base-and-updates-of-a-third", "What lacks is not a whole number.", rule('greater_than: "4e16/3"', "quantity: base+updates", "when: {base.flop: {not_above: \"9e16\"}}"), declared(FULL)),
    ("base-and-updates-at-least-of-a-third", "The same of `at_least`.", rule('at_least: "4e16/3"', "quantity: base+updates", "when: {base.flop: {not_above: \"9e16\"}}"), declared(FULL)),
    ("systemic-not-declared-of-one-with-a-base", "Of two quantities one has the base model in it.", rule('greater_than: "1e16"', "quantity: {ordinary_base: base+updates, systemic_base: updates}", "when: {base.flop: {not_above: \"9e15\"}}"), declared(FULL)),
    ("claims-change-the-state", "If the process says the truth the rule is below.", rule('greater_than: "HIGH/2"'), declared(PRE)),
    ("part-of-a-job", "The job has another node: no upper bound is known.", rule('greater_than: "1e30"'), declared(PRE)),
    ("phase-not-declared", "Nothing counts for certain where no phase is declared.", rule('greater_than: "HIGH"'), declared(PRE, phase=None)),
]  # fmt: skip


# Runs whose device and work differ from the others'.
WORK_OF: dict[str, tuple[Device, Any]] = {
    "integers-of-no-kind": (H100, active(132, 1755, {Pipe.TENSOR: 400_000, Pipe.FP32: 9})),
    "integers-of-a-bounded-device": (A100, BUSY),
    "integers-of-a-half-known-device": (HALF_KNOWN, active(7, 907, {Pipe.FP32: 333_333})),
}  # fmt: skip


def story_of(name: str, said: OperatorDeclarations, policies: tuple[Policy, ...]) -> Callable[[Path], bytes]:
    def story(folder: Path) -> bytes:
        context = CONTEXT
        if name == "part-of-a-job":
            from dataclasses import replace

            context = replace(CONTEXT, job_nodes=("node-0", "node-1"), rank=0)
        device, does = WORK_OF.get(name, (H100, TRAINING))
        stated = Story(folder, (device,), declared=said, policies=policies, context=context)
        if name == "claims-change-the-state":
            stated.says(SessionOpened("11" * 16, 4711, 1000, "0.1.0"), FactsDeclared("11" * 16, {"precision": "fp8"}))
            stated.says(PhaseChanged("11" * 16, "evaluate"))
        if name == "integers-of-generation":
            stated.says(SessionOpened("11" * 16, 4711, 1000, "0.1.0"), PhaseChanged("11" * 16, "generate"))
            stated.during(3, {device: does})
            stated.says(PhaseChanged("11" * 16, "train"))
        stated.during(2, {device: does})
        return stated.finish()

    return story


def findings_vectors() -> Files:
    files: Files = {}
    ends: dict[str, J] = {}
    for name, what, rules, said in CASES:
        head = "id: ours\ntitle: ours\n" + ("integer_operations: counted\n" if name.startswith("integers") else "")
        if str(said) not in ends:
            empty = policy_of(head + 'rules:\n  - {id: one, citation: c, at_least: "1"}\n')
            journal = tell(story_of("", said, (empty,)))
            ends[str(said)] = statement_of(journal, policies=(empty,))["predicate"]["totals"]["guidelines"]
        counted = ends[str(said)]
        text = rules
        for word, value in (
            ("MEASUREDx2000000", str(int(counted["measured"] or 1) * 2_000_000)),
            ("LOW-1", str(int(counted["low"]) - 1)),
            ("HIGH+9e15", str(int(counted["high"]) + 9 * 10**15)),
        ):
            text = text.replace(word, value)
        for word in ("low", "measured", "high"):
            text = text.replace(word.upper(), counted[word] or "1")
        data = f"{head}rules:{text}\n"
        policy = policy_of(data)
        journal = tell(story_of(name, said, (policy,)))
        ledger = signed(encode(statement_of(journal, policies=(policy,))))
        files[f"valid/finding-{name}/our.policy.yaml"] = data.encode()
        files |= vector(f"valid/finding-{name}", what, ledger, journal, more=("--policy", "our.policy.yaml"))
    return files


def companion_vectors() -> Files:
    """A ledger judged by two policies beside it: a verifier who accepts both by hand accepts it."""
    said = declared(FULL)
    texts = {
        name: f'id: {name}\ntitle: t\nrules:\n  - {{id: one, citation: c, at_least: "1"}}\n' for name in ("a", "b")
    }
    policies = tuple(policy_of(text) for text in texts.values())
    journal = tell(story_of("", said, policies))
    ledger = signed(encode(statement_of(journal, policies=policies)))
    first, second = (f"ledger.{companion_name(POLICY, policy.sha256)}" for policy in policies)
    one, two = (text.encode() for text in texts.values())
    given = ("--policy", first, "--policy", second)
    cases = [
        ("valid/companions-accepted", "Two policies came with the ledger, and the reader accepts both by hand.", None, two, given),
        ("invalid/foreign-policy-beside", "Two policies came with the ledger, and the reader accepts one of them.", "policy_unknown", two, given[:2]),
        ("invalid/companion-of-another-digest", "A file has the name of a policy that the ledger names, and other bytes.", "policy_unknown", two + b"#\n", given),
    ]  # fmt: skip
    files: Files = {}
    for name, what, code, lying, more in cases:
        clause = None if code is None else "VERIFY-6"
        files |= vector(name, what, ledger, journal, code, clause, more=more)
        files |= {f"{name}/{first}": one, f"{name}/{second}": lying}
    return files


def policy_of(text: str) -> Policy:
    policy = parse_policy(text.encode(), "our.policy.yaml")
    assert policy.sha256 == hashlib.sha256(text.encode()).hexdigest()
    return policy


LLAMA = {
    "model_type": "llama", "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 31,
}  # fmt: skip
WORK = {"tokens": 70, "sequences": 3, "square_pairs": 1700}
HEADS = {**WORK, "headless_tokens": 11, "unlabelled_tokens": 13, "fused_head_tokens": 17}
TOTAL = 10**6 + 7
# Name, description, and the facts and work of each process.
MODELS: list[Model] = [
    ("full-eager", "A Llama trained in full, with eager attention.", [({"model_config": LLAMA, "method": "full", "attention": "eager", "recomputation": "none"}, {"train": HEADS})]),
    ("full-sdpa", "The same with a kernel that recomputes scores, and full activation checkpointing.", [({"model_config": LLAMA, "method": "full", "attention": "sdpa", "recomputation": "full"}, {"train": HEADS, "evaluate": WORK})]),
    ("full-selective", "Selective checkpointing; nobody says which attention.", [({"model_config": LLAMA, "method": "pretraining", "recomputation": "selective"}, {"train": WORK, "generate": HEADS, "other": WORK})]),
    ("lora-attention", "LoRA of two projections.", [({"model_config": LLAMA, "method": "lora", "lora": {"r": 3, "target_modules": ["q_proj", "v_proj"]}, "recomputation": "full", "attention": "eager"}, {"train": HEADS, "other": WORK})]),
    ("lora-all", "QLoRA of all linear layers.", [({"model_config": LLAMA, "method": "qlora", "lora": {"r": 2, "target_modules": ["all-linear"]}, "recomputation": "none", "attention": "sdpa"}, {"train": WORK})]),
    ("lora-down", "LoRA of two other projections; the counted parameters differ from the declared ones.", [({"model_config": LLAMA, "method": "lora", "lora": {"r": 1, "target_modules": ["down_proj", "k_proj"]}, "parameters_total": 5000}, {"train": WORK})]),
    ("lora-of-nobody", "LoRA of which the modules are not declared.", [({"model_config": LLAMA, "method": "lora", "lora": {"r": 4}, "recomputation": "selective"}, {"train": WORK})]),
    ("another-size", "More parameters are declared than the shape has.", [({"model_config": LLAMA, "method": "full", "parameters_total": 9999, "parameters_trainable": 9999}, {"train": WORK})]),
    ("partial", "Weights are trained in part.", [({"model_config": LLAMA, "method": "partial", "parameters_trainable": 2000}, {"train": HEADS})]),
    ("size-alone", "Only a size is declared.", [({"parameters_total": TOTAL}, {"train": WORK, "evaluate": WORK})]),
    ("size-full", "Only a size, trained in full, checkpointed.", [({"parameters_total": TOTAL, "method": "full", "recomputation": "full"}, {"train": WORK, "other": WORK})]),
    ("size-all-trainable", "Only a size, of which all is trainable.", [({"parameters_total": TOTAL, "parameters_trainable": TOTAL, "recomputation": "full"}, {"train": WORK})]),
    ("size-lora", "Only a size, with adapters.", [({"parameters_total": TOTAL, "parameters_trainable": 9001, "method": "lora", "recomputation": "none"}, {"train": WORK, "generate": WORK})]),
    ("size-lora-of-nobody", "Only a size, with adapters of which the size is not known.", [({"parameters_total": TOTAL, "method": "lora"}, {"train": WORK})]),
    ("two-ranks", "Two processes of one training add up.", [({"parameters_total": TOTAL, "method": "full"}, {"train": WORK}), ({"parameters_total": TOTAL, "method": "full"}, {"train": {**WORK, "tokens": 69}})]),
    ("with-a-critic", "A second model is trained beside, and passes without gradients.", [({"parameters_total": TOTAL, "method": "full"}, {"train": WORK}), ({"parameters_total": 10**5 + 1, "role": "critic"}, {"train": WORK, "other": WORK})]),
    ("with-a-reference", "A reference model passes without gradients.", [({"model_config": LLAMA, "method": "full"}, {"train": WORK}), ({"model_config": LLAMA, "role": "reference"}, {"other": HEADS, "evaluate": WORK})]),
    ("not-all-counted", "A process says what it does not count of generation.", [({"parameters_total": TOTAL, "method": "full", "not_counted": {"generate": ["by vLLM"]}}, {"train": WORK})]),
    ("training-not-all-counted", "A process says what it does not count of training.", [({"parameters_total": TOTAL, "method": "full", "recomputation": "full", "not_counted": {"train": ["a judge"]}}, {"train": WORK})]),
    ("own-count", "The framework has a count of its own.", [({"parameters_total": TOTAL, "method": "full"}, {"train": {**WORK, "framework_flop": 6 * TOTAL * 70}})]),
    ("own-count-at-the-margin", "The framework counts three tenths more.", [({"parameters_total": TOTAL, "method": "full"}, {"train": {**WORK, "framework_flop": 6 * TOTAL * 7 * 13}})]),
    ("own-count-beyond-the-margin", "It counts a millionth more.", [({"parameters_total": TOTAL, "method": "full"}, {"train": {**WORK, "framework_flop": 6 * TOTAL * 7 * 13 + 6 * 71 * 7}})]),
    ("own-count-below-the-margin", "The framework counts three tenths less, and one FLOP.", [({"parameters_total": TOTAL, "method": "full"}, {"train": {**WORK, "framework_flop": 6 * TOTAL * 7 * 7 - 1}})]),
    ("of-nobody-beside-one", "One of two processes declares no model.", [({"parameters_total": TOTAL, "method": "full"}, {"train": WORK}), ({}, {"train": WORK})]),
    ("methods-differ", "Two processes declare different methods.", [({"parameters_total": TOTAL, "method": "full"}, {"train": WORK}), ({"parameters_total": TOTAL, "method": "lora"}, {"train": WORK})]),
]  # fmt: skip


def models_vectors(models: Sequence[Model] = MODELS) -> Files:
    files: Files = {}
    for name, what, processes in models:
        journal = tell(trained(processes))
        files |= vector(f"valid/model-{name}", what, statement_of(journal), journal)
    return files
