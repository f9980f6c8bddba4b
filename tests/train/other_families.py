"""Small real encoders, and Whisper: see families.py."""

from collections.abc import Mapping
from typing import Any

_BERT = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 128,
    "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
_MODERNBERT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 128,
    "max_position_embeddings": 64, "local_attention": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
OTHERS: Mapping[str, tuple[str, dict[str, Any], list[str]]] = {
    **{name: ("AutoModelForMaskedLM", {**_BERT}, ["query", "value"]) for name in ("bert", "roberta", "xlm-roberta",
                                                                                  "camembert")},
    "electra": ("AutoModelForMaskedLM", {**_BERT, "embedding_size": 32}, ["query", "value"]),
    "electra, discriminator": ("AutoModelForPreTraining", {**_BERT, "embedding_size": 64}, ["query", "value"]),
    "distilbert": (
        "AutoModelForMaskedLM",
        {"dim": 64, "hidden_dim": 160, "n_layers": 3, "n_heads": 4, "vocab_size": 128, "max_position_embeddings": 64,
         "dropout": 0.0, "attention_dropout": 0.0},
        ["q_lin", "v_lin"],
    ),
    "modernbert": ("AutoModelForMaskedLM", _MODERNBERT, ["Wqkv"]),
    "modernbert, biases": (
        "AutoModelForTokenClassification",
        {**_MODERNBERT, "norm_bias": True, "mlp_bias": True, "attention_bias": True, "classifier_bias": True,
         "num_labels": 128},
        ["Wqkv", "Wi"],
    ),
    "whisper": (
        "AutoModelForSpeechSeq2Seq",
        {"d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 160, "decoder_ffn_dim": 144,
         "encoder_attention_heads": 4, "decoder_attention_heads": 2, "vocab_size": 128, "num_mel_bins": 20,
         "max_source_positions": 24, "max_target_positions": 64, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2, "decoder_start_token_id": 1, "begin_suppress_tokens": [3]},
        ["q_proj", "v_proj"],
    ),
}  # fmt: skip
