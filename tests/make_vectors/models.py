"""Vectors of models: the rules of docs/ledger-models.md for counters, for a size alone and for a plain Llama."""

from functools import lru_cache
from typing import Any

from tests.make_vectors.files import Files
from tests.make_vectors.findings import HEADS, LLAMA, TOTAL, WORK, Model, models_vectors

J = dict[str, Any]
BARE = {"tokens": 70}  # neither sequences nor pairs
PADDED = {**WORK, "padding_tokens": 9}
BIASED = {
    **LLAMA, "head_dim": 5, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    "max_position_embeddings": 16, "architectures": ["LlamaForCausalLM"], "rope_scaling": None, "use_cache": True,
}  # fmt: skip
DEVICE = "GPU-00000000-0000-4000-8000-000000000001"
FULL: J = {"model_config": LLAMA, "method": "full"}
SIZE: J = {"parameters_total": TOTAL, "method": "full"}


def lora(*modules: str, method: str = "lora", **facts: Any) -> J:
    return {"model_config": LLAMA, "method": method, "lora": {"r": 3, "target_modules": list(modules)}, **facts}


MODELS: list[Model] = [
    ("padded", "Rows are padded; nobody says which attention.", [({**FULL, "recomputation": "full"}, {"train": {**PADDED, "headless_tokens": 7}, "evaluate": PADDED})]),
    ("padded-flash", "Rows are padded, and a flash kernel skips what is masked.", [({**FULL, "attention": "flash_attention_2"}, {"train": {**PADDED, "square_pairs": 3000}})]),
    ("packed", "Rows hold several documents.", [({**FULL, "attention": "flex_attention", "packing": True}, {"train": WORK})]),
    ("packed-sdpa", "Rows hold several documents, and the kernel may be handed a mask.", [({**FULL, "attention": "sdpa", "packing": True}, {"train": PADDED})]),
    ("lengths-not-counted", "Pairs are not counted: sequences have the model's positions at most; biases, heads of another size.", [({"model_config": BIASED, "method": "full", "recomputation": "none"}, {"train": {"tokens": 70, "sequences": 6}, "generate": BARE})]),
    ("lengths-known", "Neither sequences nor pairs are counted, of a model that states no positions.", [({**FULL, "attention": "eager"}, {"train": BARE})]),
    ("pairs-of-a-cache", "With a cache more pairs pass than tokens have.", [(FULL, {"train": WORK, "generate": {"tokens": 5, "sequences": 9, "square_pairs": 400}})]),
    ("lora-of-more", "More weights are trained than the named adapters have.", [(lora("q_proj", "v_proj", parameters_trainable=999, recomputation="selective"), {"train": HEADS, "other": WORK})]),
    ("lora-of-fewer", "Fewer weights are trained than the named adapters have.", [(lora("o_proj", "gate_proj", parameters_trainable=99, recomputation="full"), {"train": WORK, "evaluate": WORK})]),
    ("lora-counted", "The process counts base and adapters.", [(lora("up_proj", parameters_total=4404 + 288, parameters_trainable=288), {"train": WORK})]),
    ("lora-of-rank-0", "An adapter of rank 0 is none.", [({**lora("down_proj"), "lora": {"r": 0, "target_modules": ["down_proj"]}}, {"train": WORK})]),
    ("lora-counted-of-nobody", "The modules are not declared, the number of trained weights is.", [({"model_config": LLAMA, "method": "qlora", "parameters_trainable": 500, "recomputation": "full"}, {"train": WORK})]),
    ("pretraining-of-fewer", "Pretraining of fewer weights than there are is partial.", [({**FULL, "method": "pretraining", "parameters_trainable": 2000}, {"train": WORK})]),
    ("full-of-fewer", "Full fine-tuning of fewer weights than there are is partial.", [({**FULL, "parameters_trainable": 2000, "attention": "sdpa"}, {"train": WORK})]),
    ("fewer-counted", "The process counts fewer parameters than the shape has.", [({**FULL, "parameters_total": 4000}, {"train": WORK, "other": WORK})]),
    ("size-partial", "Only a size, of which a part is trained.", [({"parameters_total": TOTAL, "parameters_trainable": 1000, "method": "partial"}, {"train": {**PADDED, "sequences": 0}})]),
    ("size-of-nobody", "Only a size, with adapters counted: forward passes have them at most.", [({"parameters_total": 77, "parameters_trainable": 5, "method": "qlora"}, {"train": BARE, "evaluate": {**WORK, "square_pairs": 9000}})]),
    ("two-models", "Two models are trained, of different sizes and kernels.", [(FULL | {"attention": "eager"}, {"train": WORK}), ({**SIZE, "parameters_trainable": TOTAL}, {"train": HEADS, "other": WORK}), (FULL | {"attention": "eager"}, {"evaluate": WORK})]),
    ("steps-alone", "A phase has steps and no tokens.", [(SIZE, {"train": {"steps": 3}, "evaluate": {"forward_passes": 2}, "other": WORK})]),
    ("passes-without-tokens", "A phase has forward passes and no tokens: the figures have no upper bound.", [(FULL, {"train": WORK, "other": {"forward_passes": 3}})]),
    ("of-size-0", "A size of 0 is none.", [({"parameters_total": 0}, {"train": WORK})]),
    ("of-more-flop-than-counts", "A size and tokens that come to 10^36 FLOP: no count of a ledger is to be that large.", [({"parameters_total": 10**20, "method": "full"}, {"train": {"tokens": 10**16, "sequences": 1}})]),
    ("of-nobody", "Work of which nobody says what model it passed.", [({"method": "full"}, {"train": WORK})]),
    ("of-two-refused", "Two models, each refused for its own counters.", [(SIZE, {"train": {**WORK, "padding_tokens": 71}}), (FULL, {"train": {**WORK, "headless_tokens": 60, "fused_head_tokens": 11}})]),
    ("too-many-sequences", "More sequences than tokens.", [(FULL, {"train": {"tokens": 2, "sequences": 3}})]),
    ("too-few-pairs", "Fewer pairs than the sequences have at least.", [(SIZE, {"train": {**WORK, "square_pairs": 1633}})]),
    ("too-many-pairs", "More pairs than the tokens have at most, in one sequence.", [(FULL, {"train": {"tokens": 70, "square_pairs": 4901}})]),
    ("of-another-family", "A model of a family that is not on the page: a verifier may leave it unverified.", [({"model_config": {**LLAMA, "model_type": "mistral", "sliding_window": 5}, "method": "full", "recomputation": "full"}, {"train": WORK})]),
    ("declared-without-work", "A model is declared, and nothing passed it.", [(FULL, {})]),
    ("with-a-teacher-not-counted", "A teacher's tokens are not counted.", [(FULL, {"train": WORK}), ({**SIZE, "role": "teacher"}, {"other": {"forward_passes": 2}})]),
    ("with-a-reward-of-nobody", "Of a reward model not even the size is declared.", [(FULL, {"train": WORK}), ({"role": "reward"}, {"other": WORK})]),
    ("with-a-refused-reference", "A reference's counters contradict each other.", [(SIZE, {"train": WORK}), ({"model_config": LLAMA, "role": "reference"}, {"evaluate": {**WORK, "padding_tokens": 99}})]),
    ("operators-again", "The operators that were computed again replace the model's own terms.", [({**FULL, "recomputation": "full", "device": DEVICE}, {"train": {**WORK, "operator_flop": 10**9, "recomputed_operator_flop": 10**8}})]),
    ("pairs-at-most", "As many pairs as the tokens have at most.", [(FULL, {"train": {"tokens": 70, "square_pairs": 4900}})]),
    ("pairs-at-least", "As few pairs as the sequences have at least.", [(SIZE, {"train": {**WORK, "square_pairs": 1634}})]),
    ("head-of-all-tokens", "No token passes the head.", [(FULL, {"train": {**WORK, "headless_tokens": 60, "fused_head_tokens": 10}})]),
    ("padding-of-all-tokens", "All tokens are padding.", [(FULL, {"train": {"tokens": 70, "padding_tokens": 70}})]),
    ("one-token-for-each-sequence", "As many sequences as tokens.", [(FULL, {"train": {"tokens": 3, "sequences": 3}})]),
    ("operators-not-all-counted", "Of generation operators are not counted, of training nothing is left out.", [({**FULL, "operators_not_counted": {"generate": ["by vLLM"]}, "device": DEVICE}, {"train": {**WORK, "operator_flop": 10**9}, "generate": {**WORK, "operator_flop": 10**7}})]),
    ("operators-again-where-denied", "A process says that it computes nothing again, and counts three tenths that it did.", [({**FULL, "recomputation": "none", "device": DEVICE}, {"train": {**WORK, "operator_flop": 10**9, "recomputed_operator_flop": 3 * 10**8}})]),
    ("operators-of-two-left-out", "Operators of training and tokens of other work are not counted.", [({**FULL, "recomputation": "selective", "operators_not_counted": {"train": ["a kernel"]}, "not_counted": {"other": ["a judge"]}, "device": DEVICE}, {"train": {**WORK, "operator_flop": 10**9, "recomputed_operator_flop": 10**8}, "other": {**WORK, "operator_flop": 10**7}})]),
    ("lora-that-saves-modules", "LoRA that trains the head in full: a verifier may leave it unverified.", [({**lora("q_proj"), "lora": {"r": 3, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}}, {"train": WORK})]),
    ("too-many-sequences-of-one-token", "More sequences than the one token.", [(FULL, {"train": {"tokens": 1, "sequences": 2}})]),
    ("sequences-of-no-token", "Sequences of no token beside a phase that passed.", [(FULL, {"train": WORK, "evaluate": {"sequences": 2}})]),
    ("head-of-one-token-less", "One token does not pass the head.", [(FULL, {"train": {**WORK, "headless_tokens": 1}})]),
    ("head-of-two-kinds-beyond-all", "More tokens do not pass the head, or have no label, than there are.", [(FULL, {"train": {**WORK, "headless_tokens": 60, "unlabelled_tokens": 11}})]),
    ("head-of-two-other-kinds-beyond-all", "More tokens have no label, or pass a fused head, than there are.", [(FULL, {"train": {**WORK, "unlabelled_tokens": 60, "fused_head_tokens": 11}})]),
    ("head-of-three-kinds", "All tokens are of three kinds.", [(FULL, {"train": {**WORK, "headless_tokens": 30, "unlabelled_tokens": 20, "fused_head_tokens": 20}})]),
    ("size-of-a-square", "A size of which the width is a whole number.", [({"parameters_total": 2400 * 400, "method": "full"}, {"train": BARE})]),
    ("size-of-two-squares", "A size of which the width is a root of 2.", [({"parameters_total": 4800, "method": "full"}, {"train": BARE})]),
    ("steps-of-what-passed", "A phase that passed has steps, and none of its passes is counted.", [(FULL, {"train": {**WORK, "steps": 3}, "evaluate": {**WORK, "forward_passes": 2}})]),
    ("of-two-families", "One of two models is of a family that is not on the page.", [(FULL, {"train": WORK}), ({"model_config": {**LLAMA, "model_type": "mistral"}, "method": "full"}, {"train": WORK})]),
    ("size-of-a-few", "A size of a few weights.", [({"parameters_total": 3, "parameters_trainable": 3}, {"train": BARE, "other": {"tokens": 1}})]),
    ("full-of-all", "As many weights are trained as there are.", [({**FULL, "parameters_trainable": 4404}, {"train": WORK})]),
    ("lora-of-exactly", "As many weights are trained as the named adapters have.", [(lora("q_proj", parameters_trainable=216), {"train": WORK})]),
    ("of-size-1", "A size of 1.", [({"parameters_total": 1, "method": "full"}, {"train": WORK})]),
    ("counted-as-0", "The process counts no parameters of a model that has some.", [({**FULL, "parameters_total": 0}, {"train": WORK})]),
    ("counted-with-the-trained", "The process counts its trained weights twice, and has no adapters.", [({**FULL, "parameters_total": 4404 + 4404, "parameters_trainable": 4404}, {"train": WORK})]),
    ("more-counted-of-short-rows", "The process counts more parameters than the configuration has, and rows are short.", [({**FULL, "parameters_total": 9000}, {"train": {"tokens": 60, "sequences": 30, "square_pairs": 120}, "other": {"tokens": 60, "square_pairs": 120}})]),
    ("lora-counted-with-one-more", "The process counts a parameter more than the base has, and fewer than base and adapters.", [(lora("up_proj", parameters_total=4405), {"train": WORK})]),
    ("lengths-as-positions", "As many tokens as the model has positions.", [({"model_config": BIASED, "method": "full"}, {"train": {"tokens": 16}})]),
    ("head-tokens-that-contradict", "Tokens without a label are among more than there are.", [(FULL, {"train": {**WORK, "headless_tokens": 60, "unlabelled_tokens": 6, "fused_head_tokens": 5}})]),
    ("of-size-1-and-few-tokens", "So little that nothing is required for certain.", [({"parameters_total": 1, "method": "full", "recomputation": "full"}, {"train": {"tokens": 5}})]),
    ("of-size-9600", "A size that is a square of layers.", [({"parameters_total": 9600, "method": "full"}, {"train": WORK})]),
    ("crossed-tokens", "Counters of a decoder beside an encoder: a verifier may leave it unverified.", [(FULL, {"train": {**WORK, "target_tokens": 9, "target_square_pairs": 81, "cross_pairs": 27, "cross_tokens": 30}})]),
    ("lora-of-another-module", "An adapter of the head: a verifier may leave it unverified.", [(lora("q_proj", "lm_head"), {"train": WORK})]),
    ("plain-beside-another-family", "One of two models is of a family that is not on the page.", [(FULL, {"train": WORK}), ({"model_config": {**LLAMA, "model_type": "mistral", "sliding_window": 5}, "method": "full"}, {"train": WORK})]),
    ("with-weight-passes", "Products with weights are counted: a verifier may leave it unverified.", [({**SIZE, "parameters_trainable": TOTAL}, {"train": {**WORK, "weight_passes": 70, "weight_products": 70 * TOTAL, "trained_weight_products": 70 * TOTAL, "graded_weight_products": 70 * TOTAL}})]),
    ("lora-in-another-order", "Two processes name the same modules in two orders, one of them none to save.", [(lora("q_proj", "v_proj", parameters_trainable=144), {"train": WORK}), ({**lora("q_proj", parameters_trainable=144), "lora": {"r": 3, "target_modules": ["v_proj", "q_proj"], "modules_to_save": None}}, {"train": WORK})]),
    ("phase-of-nothing", "A phase has counters that are 0.", [(FULL, {"train": WORK, "evaluate": {"tokens": 0}})]),
    ("recomputed-by-one", "One of two processes declares that it computes everything again.", [({**FULL, "recomputation": "full"}, {"train": WORK}), (FULL, {"train": WORK})]),
    ("recomputed-beside-an-evaluation", "One process computes everything again, another only evaluates and declares nothing of it.", [({**FULL, "recomputation": "full"}, {"train": WORK}), (FULL, {"evaluate": WORK})]),
    ("of-all-weights-beside-kernels", "All weights are trained, and everything is computed again. Another process only saw kernels.", [({**SIZE, "parameters_trainable": TOTAL, "recomputation": "full"}, {"train": WORK}), ({}, {"train": {"kernel_windows": 1, "kernel_window_ns": 2, "kernel_ns_vector": 2, "kernel_launches_vector": 1}})]),
    ("full-beside-partial", "One of two processes declares that it trains a part, and counts all parameters as trainable.", [({**FULL, "parameters_trainable": TOTAL}, {"train": WORK}), ({**FULL, "parameters_trainable": TOTAL, "method": "partial"}, {"train": WORK})]),
    ("evaluation-alone", "A model is only evaluated.", [(FULL, {"evaluate": WORK})]),
    ("with-a-reference-that-pads-nothing", "A reference counts padding in a phase without tokens.", [(FULL, {"train": WORK}), ({"model_config": LLAMA, "role": "reference"}, {"evaluate": WORK, "other": {"padding_tokens": 5}})]),
    ("of-five-refused", "Five models, each refused for a reason of its own.", [(SIZE, {"train": {**WORK, "padding_tokens": 71 + more}}) for more in range(5)]),
    ("operators-of-a-lora", "Operators of a LoRA, some of which were computed again.", [(lora("q_proj", recomputation="selective", device=DEVICE), {"train": {**WORK, "operator_flop": 10**9 + 1, "recomputed_operator_flop": 3 * 10**8}})]),
]  # fmt: skip


@lru_cache(maxsize=1)
def shapes_vectors() -> Files:
    return models_vectors(MODELS)
