"""Encoders, and Whisper, by the fields of their published config.json, and the pairs of local attention."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopsd.core.architecture import flop, parameters, read_model, training_from
from flopsd.core.architecture.attention_pairs import Level, Side, chunk_pairs, local_pairs
from flopsd.core.architecture.model import Attention, Mask, Stream
from flopsd.core.architecture.rows import resolve
from flopsd.core.architecture.training import Training
from tests.support.architectures import assumed, refused

_BASE = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
    "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "hidden_size": 768,
    "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1, "type_vocab_size": 1, "output_past": True,
    "bos_token_id": 0, "eos_token_id": 2, "position_embedding_type": "absolute", "use_cache": True,
}  # fmt: skip
MODERNBERT: dict[str, Any] = {
    "architectures": ["ModernBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 50281,
    "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0, "classifier_pooling": "mean",
    "cls_token_id": 50281, "decoder_bias": True, "deterministic_flash_attn": False, "embedding_dropout": 0.0,
    "eos_token_id": 50282, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0,
    "gradient_checkpointing": False, "hidden_activation": "gelu", "hidden_size": 768, "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02, "intermediate_size": 1152, "layer_norm_eps": 1e-05, "local_attention": 128,
    "local_rope_theta": 10000.0, "max_position_embeddings": 8192, "mlp_bias": False, "mlp_dropout": 0.0,
    "model_type": "modernbert", "norm_bias": False, "norm_eps": 1e-05, "num_attention_heads": 12,
    "num_hidden_layers": 22, "pad_token_id": 50283, "position_embedding_type": "absolute", "sep_token_id": 50282,
    "tie_word_embeddings": True, "torch_dtype": "float32", "transformers_version": "4.47.0.dev0", "vocab_size": 50368,
}  # fmt: skip
ELECTRA_SMALL: dict[str, Any] = {
    **_BASE, "architectures": ["ElectraForMaskedLM"], "model_type": "electra", "embedding_size": 128,
    "hidden_size": 256, "intermediate_size": 1024, "max_position_embeddings": 512, "num_attention_heads": 4,
    "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 30522,
}  # fmt: skip
# The sizes are those of transformers' classes with these fields; the model cards round them: 149 M, 1550 M.
FILES: dict[str, tuple[dict[str, Any], int]] = {
    "distilbert-base-uncased": (
        {"activation": "gelu", "architectures": ["DistilBertForMaskedLM"], "attention_dropout": 0.1, "dim": 768,
         "dropout": 0.1, "hidden_dim": 3072, "initializer_range": 0.02, "max_position_embeddings": 512,
         "model_type": "distilbert", "n_heads": 12, "n_layers": 6, "pad_token_id": 0, "qa_dropout": 0.1,
         "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False, "tie_weights_": True, "vocab_size": 30522},
        66_985_530,
    ),
    "ModernBERT-base": (MODERNBERT, 149_655_232),
    "ModernBERT-base without a head": ({**MODERNBERT, "architectures": ["ModernBertModel"]}, 149_014_272),
    "xlm-roberta-base": (
        {**_BASE, "architectures": ["XLMRobertaForMaskedLM"], "model_type": "xlm-roberta", "vocab_size": 250002},
        278_295_186,
    ),
    "camembert-base": (
        {**_BASE, "architectures": ["CamembertForMaskedLM"], "model_type": "camembert", "vocab_size": 32005}, 110_655_493
    ),
    "electra-base-discriminator": (
        {**_BASE, "architectures": ["ElectraForPreTraining"], "model_type": "electra", "embedding_size": 768,
         "max_position_embeddings": 512, "type_vocab_size": 2, "vocab_size": 30522, "summary_activation": "gelu",
         "summary_last_dropout": 0.1, "summary_type": "first", "summary_use_proj": True},
        109_483_009,
    ),
    "electra-small-generator": (ELECTRA_SMALL, 13_546_682),
    "electra-small-generator without a head": ({**ELECTRA_SMALL, "architectures": ["ElectraModel"]}, 13_483_008),
    "bart-large": (
        {"activation_dropout": 0.1, "activation_function": "gelu", "add_bias_logits": False,
         "add_final_layer_norm": False, "architectures": ["BartModel"], "attention_dropout": 0.1, "bos_token_id": 0,
         "classifier_dropout": 0.0, "d_model": 1024, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096,
         "decoder_layerdrop": 0.0, "decoder_layers": 12, "decoder_start_token_id": 2, "dropout": 0.1,
         "early_stopping": True, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096, "encoder_layerdrop": 0.0,
         "encoder_layers": 12, "eos_token_id": 2, "init_std": 0.02, "is_encoder_decoder": True,
         "max_position_embeddings": 1024, "model_type": "bart", "normalize_before": False, "num_hidden_layers": 12,
         "pad_token_id": 1, "scale_embedding": False, "vocab_size": 50265},
        406_291_456,
    ),
    "whisper-large-v3": (
        {"activation_dropout": 0.0, "activation_function": "gelu", "apply_spec_augment": False,
         "architectures": ["WhisperForConditionalGeneration"], "attention_dropout": 0.0,
         "begin_suppress_tokens": [220, 50257], "bos_token_id": 50257, "classifier_proj_size": 256, "d_model": 1280,
         "decoder_attention_heads": 20, "decoder_ffn_dim": 5120, "decoder_layerdrop": 0.0, "decoder_layers": 32,
         "decoder_start_token_id": 50258, "dropout": 0.0, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
         "encoder_layerdrop": 0.0, "encoder_layers": 32, "eos_token_id": 50257, "forced_decoder_ids": [[1, None]],
         "init_std": 0.02, "is_encoder_decoder": True, "mask_feature_length": 10, "mask_feature_min_masks": 0,
         "mask_feature_prob": 0.0, "mask_time_length": 10, "mask_time_min_masks": 2, "mask_time_prob": 0.05,
         "max_length": 448, "max_source_positions": 1500, "max_target_positions": 448, "median_filter_width": 7,
         "model_type": "whisper", "num_hidden_layers": 32, "num_mel_bins": 128, "pad_token_id": 50256,
         "scale_embedding": False, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0", "use_cache": True,
         "use_weighted_layer_sum": False, "vocab_size": 51866},
        1_543_490_560,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_published_files_are_read(name: str) -> None:
    config, total = FILES[name]
    assert parameters(read_model(config)).total == total


@given(st.integers(0, 60), st.integers(0, 60))
def test_local_pairs_match_a_count_over_the_mask(s: int, w: int) -> None:
    assert local_pairs(s, w) == sum(1 for q in range(s) for k in range(s) if abs(q - k) <= w)


def test_pairs_of_a_local_layer_depend_on_the_attention_kernel() -> None:
    """Two sequences of 200 tokens, 50 of them padding. A pair costs 4 FLOP per unit of width forward, and twice that
    backward."""
    work = {"tokens": 400, "sequences": 2, "square_pairs": 2 * 200**2, "padding_tokens": 0}
    pair, local, square = 3 * 4 * 768, 2 * local_pairs(200, 64), 2 * 200**2

    def executed(attention: str, **more: int) -> Any:
        facts = {"method": "full", "recomputation": "none", "attention": attention}
        return flop(read_model(MODERNBERT), {**work, **more}, training_from(facts))

    eager, flash, sdpa = (executed(name) for name in ("eager", "flash_attention_2", "sdpa"))
    assert eager.required.computed - flash.required.computed == 14 * (square - local) * pair
    assert sdpa.required.computed == eager.required.computed
    assert sdpa.required.low == flash.required.low == flash.required.computed
    padded = executed("flash_attention_2", padding_tokens=50)
    assert padded.executed.low == padded.required.low < flash.executed.low
    assert "padding may have been removed" in assumed(padded)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"sparse_prediction": True}, "sparse_prediction"),
        ({"layer_types": ["chunked_attention"] * 22}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"classifier_pooling": "max"}, "classifier_pooling"),
    ],
)
def test_fields_that_would_change_the_counts_are_refused(fields: dict[str, Any], names: str) -> None:
    with refused(match=names):
        read_model({**MODERNBERT, **fields})


@given(st.integers(1, 400), st.integers(1, 50), st.integers(1, 4))
def test_the_least_chunked_pairs_are_a_close_lower_bound_up_to_half_a_chunk(
    length: int, half_chunk: int, sequences: int
) -> None:
    chunk, tokens = 2 * half_chunk, length * sequences
    least = Side(tokens, 0, sequences, tokens, tokens**2).least_chunked(chunk)
    true = sequences * chunk_pairs(length, chunk)
    assert least <= true
    if length <= half_chunk or length % chunk == half_chunk:
        assert true - least <= sequences


@pytest.mark.parametrize("family", ["bart", "t5", "whisper"])
def test_a_decoder_attends_to_earlier_tokens_and_the_whole_encoder_output(family: str) -> None:
    model = read_model({"model_type": family})
    seen = {
        ("encoder" if "encoder" in block.path else "decoder", part.mask)
        for block in model.blocks
        for part in block.parts
        if isinstance(part, Attention)
    }
    assert seen == {("encoder", Mask.FULL), ("decoder", Mask.CAUSAL), ("decoder", Mask.CROSS)}


def test_sequences_that_were_not_counted_are_none_at_least_and_one_per_token_at_most() -> None:
    """The pooler of BERT has a row for each."""
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    _, _, rows, _ = resolve(read_model(config), {"tokens": 1000}, Training(), cached=False)
    assert [rows[level][Stream.SEQUENCES] for level in Level] == [0, 0, 1000]
