"""Strict reader of a config.json: a field that is neither understood nor known to be irrelevant is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flopsd.core.architecture.weight_reuse import instead
from flopsd.core.values import is_whole
from flopsd.errors import ArchitectureError, UnknownFieldsError

MAX_SIZE = 10**9
MAX_LAYERS = 2_000
REQUIRED = -1

# Not a field of any class. Set where some passes skip layers of the configuration, or run some more than once.
LAYERS_LEFT_OUT = "layers_left_out"
# Fields of transformers' configurations that affect no shape and no product.
IRRELEVANT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path activation_dropout
    activation_function add_bias_logits add_final_layer_norm architectures attention_dropout
    attention_probs_dropout_prob attn_implementation attn_logit_softcapping attn_pdrop auto_map bad_words_ids
    begin_suppress_tokens boi_token_id boi_token_index bos_token_id cache_implementation chunk_size_feed_forward
    classif_dropout classifier_activation classifier_dropout decoder_start_token_id diversity_penalty do_sample
    dropout dropout_rate dtype early_stopping embd_pdrop encoder_no_repeat_ngram_size eoi_token_id eoi_token_index
    eos_token_id experts_implementation exponential_decay_length_penalty final_logit_softcapping finetuning_task
    force_bos_token_to_be_generated forced_bos_token_id forced_eos_token_id gradient_checkpointing
    gradient_checkpointing_kwargs hidden_act hidden_activation hidden_dropout hidden_dropout_prob id2label
    image_token_id image_token_index init_std initializer_factor initializer_range is_encoder_decoder
    keys_to_ignore_at_inference label2id layer_norm_eps layer_norm_epsilon length_penalty max_length
    max_position_embeddings min_length model_type no_repeat_ngram_size norm_topk_prob normalize_before
    normalize_embedding num_beam_groups num_beams num_labels num_return_sequences original_max_position_embeddings
    output_attentions output_hidden_states output_logits output_past output_router_logits output_scores pad_token_id
    partial_rotary_factor prefix pretraining_tp problem_type quantization_config query_pre_attn_scalar
    relative_attention_max_distance remove_invalid_values reorder_and_upcast_attn repetition_penalty resid_pdrop
    return_dict return_dict_in_generate rms_norm_eps rope_local_base_freq rope_parameters rope_scaling rope_theta
    rotary_emb_base rotary_pct router_aux_loss_coef router_jitter_noise scale_attn_by_inverse_layer_idx
    scale_attn_weights scale_decoder_outputs scale_embedding sep_token_id static_position_embeddings suppress_tokens
    swiglu_alpha swiglu_limit task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p
    torch_dtype torchscript transformers.js_config transformers_version typical_p unsloth_fixed unsloth_version
    use_bfloat16 use_cache
    """.split()  # noqa: SIM905 (a hundred and twenty quoted words read worse)
)
# Fields that change the counts unless they have one of these values, checked if a family's reader does not read them.
HARMLESS: Mapping[str, tuple[object, ...]] = {
    LAYERS_LEFT_OUT: (False, None),
    "pruned_heads": ({}, None),
    "add_cross_attention": (False, None),
    "is_decoder": (False, None),
    "tie_encoder_decoder": (False, None),
    "cross_attention_hidden_size": (None,),
    "sparse_attention": (False, None),
    "use_bidirectional_attention": (None, False),
    "use_mrope": (False, None),  # joint positions of images and text, which Qwen2.5 has in every file
    "use_qk_norm": (False, None),
    "qk_layernorm": (False, None),
    "attention_chunk_size": (None,),
    "num_nextn_predict_layers": (0, None),
    "use_sliding_window": (False, None),
    "sliding_window": (None,),
}


class Fields:
    """The fields of one configuration. Every field read counts as understood; `finish` refuses the rest. `defaults` are
    those of the family's class in transformers for absent fields; they take precedence over the default arguments of
    the methods."""

    def __init__(self, family: str, config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        self.family = family
        self._config = config
        self._defaults = defaults or {}
        self._seen: set[str] = {"model_type"}

    def get(self, name: str, default: Any = None) -> Any:
        self._seen.add(name)
        return self._config.get(name, self._defaults.get(name, default))

    def number(self, name: str, default: int | None = REQUIRED, *, at_least: int = 1) -> int:
        """A size. If absent it has the default of transformers' own class, since a config.json may leave it out."""
        value = self.get(name)
        if value is None:
            value = self._defaults.get(name, None if default == REQUIRED else default)
        if value is None:
            raise ArchitectureError(
                "field_missing", family=self.family, name=name, hint="give the whole config.json of the model"
            )
        if not is_whole(value) or not at_least <= value <= MAX_SIZE:
            raise self.wrong(name, value)
        return value

    def pair(self, name: str, default: int) -> tuple[int, int]:
        """A height and a width; a single number is both."""
        value = self.get(name)
        if not isinstance(value, list | tuple):
            both = self.number(name, default)
            return both, both
        if len(value) != 2 or not all(is_whole(side) and 0 < side <= MAX_SIZE for side in value):
            raise self.wrong(name, value)
        return value[0], value[1]

    def heads(self, name: str, width: int, default: int = REQUIRED) -> int:
        """The number of heads that share `width` equally."""
        count = self.number(name, default)
        if width % count:
            raise self.wrong(name, count)
        return count

    def layers(self, name: str = "num_hidden_layers", default: int = REQUIRED) -> int:
        count = self.number(name, default)
        if count > MAX_LAYERS:
            raise self.wrong(name, count)
        return count

    def optional(self, name: str, default: int | None = None) -> int | None:
        """A size that may be null or 0, both meaning none; `default` stands for an absent field."""
        value = self.get(name, default)
        return None if value is None else self.number(name, default, at_least=0) or None

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if value is None:
            return bool(self._defaults.get(name, default))
        if not isinstance(value, bool):
            raise self.wrong(name, value)
        return value

    def output_unneeded(self, dropout: str, default: float = 0.0) -> bool | None:
        """`Block.output_unneeded` of layers that end in a dropout whose rate is in this field."""
        rate = self.get(dropout, default)
        try:
            share = float(rate or 0)  # declared facts have fractions as text
        except (TypeError, ValueError):
            raise self.wrong(dropout, rate) from None
        if not 0 <= share <= 1:
            raise self.wrong(dropout, rate)
        return None if share else True

    def sequence(self, name: str) -> Sequence[Any] | None:
        value = self.get(name)
        if value is not None and (not isinstance(value, list | tuple) or len(value) > MAX_LAYERS):
            raise self.wrong(name, value)
        return value

    def only(self, name: str, *allowed: object, missing: object = None) -> None:
        """Refuse a field with any other value, since flopsd does not model it; an absent field counts as `missing`, if
        given."""
        value = self.get(name, allowed[0] if missing is None else missing)
        if value not in allowed:
            raise ArchitectureError(
                "field_not_modelled", family=self.family, name=name, value=f"{value!r:.60}", hint=self.instead()
            )

    def instead(self) -> str:
        """The advice for a configuration that flopsd does not model."""
        return instead(self.family, self._config)

    def wrong(self, name: str, value: object) -> ArchitectureError:
        said = f"{value!r:.60}"
        return ArchitectureError("field_invalid", family=self.family, name=name, value=said, hint="check config.json")

    def finish(self, irrelevant: Sequence[str] = ()) -> None:
        """Refuse fields that were not read: an unknown field may change the counts."""
        for name, allowed in HARMLESS.items():
            if name not in self._seen and name not in irrelevant:
                self.only(name, *allowed)
        unknown = sorted(set(map(str, self._config)) - self._seen - IRRELEVANT - set(irrelevant))
        if unknown:
            shown = tuple(name[:60] if name.isprintable() else f"{name!r:.60}" for name in unknown[:8])
            more = {"more": len(unknown) - len(shown)} if unknown[len(shown) :] else {}
            code = "more_fields_not_known" if more else "fields_not_known"
            hint = f"leave the field out if it changes no shape; else {self.instead()}"
            fault = UnknownFieldsError(code, family=self.family, names=shown, **more, hint=hint)
            fault.fields = tuple(unknown)
            raise fault
