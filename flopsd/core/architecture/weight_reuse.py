"""Models that use a weight more than once per token. 6PD is no upper bound for them, so no hint suggests it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LAYERS = "its layers are shared, or passed in a loop"
STREAMS = "several streams pass its weights for each token"
MEDIA = "pixels, patches or frames pass its weights, and counters of tokens do not show how many"
MEASURED = "FlopsdCallback and ForwardCounter count what passes its weights instead"
INSTEAD = (
    "if it uses each weight at most once a token, declare its size alone (parameters_total without model_config; of "
    "estimate --parameters): 6PD with wide bounds"
)
# From the modeling files of transformers 5.24; Ouro and Huginn from the code in their repositories.
_SHARED = ("albert", "dory", "esmfold2", "hrm_text", "huginn_raven", "ouro", "perceiver", "universal_transformer",
           "zamba", "zamba2")  # fmt: skip
_SEVERAL = ("deberta", "deberta-v2", "decision_transformer", "prophetnet", "xlnet")
_LOOPS = re.compile(
    r"num_hidden_groups|inner_group_num|[HL]_cycles|mean_recurrence|total_ut_steps|num_mem_blocks|esmfold_config"
    r"|\w*(?:num|n)_(?:recurrent_|recursion_)?(?:loops|recursions|passes|recycles)"
)
_TOWERS = re.compile(
    r"\w*(?:vision|audio|image|video|speech|backbone|encodec)\w*_config|(?:image|patch|crop)_size|num_channels|in_chans"
    r"|num_mel_bins|num_codebooks|conv_dim|conv_stride|input_feat_per_channel|sampling_rate"
)
# Words in a model_type between hyphens and underscores: a config.json may omit fields that are defaults of its class.
_MEDIA = frozenset(
    """
    align asr audio bark beit bit blip blip2 bridgetower canary chameleon clap clip clipseg colpali colqwen2 convnext
    convnextv2 csm cvt dac data2vec deit detr dia dinat dino dinov2 dinov3 dit donut dpt efficientnet emu3 encodec eomt
    evolla fastspeech2 flava florence2 focalnet fuyu gemma3 gemma3n gemma4 git glpn hiera hubert idefics idefics2
    idefics3 image imagegpt internvl janus kosmos lasr layoutlmv2 layoutlmv3 layoutxlm levit lightglue llama4 llava
    lxmert mask2former maskformer mctct mimi mistral3 mllama mobilenet mobilevit mobilevitv2 moonshine moshi musicgen
    nougat ocr omni oneformer owlv2 owlvit paligemma parakeet pi0 pix2struct pixtral poolformer pop2piano pvt regnet
    resnet sam sam2 sam3 seamless segformer sew siglip siglip2 smolvlm speech speecht5 superglue superpoint swin swin2sr
    swinv2 timesformer timm trocr tts tvp udop unispeech upernet videomae video videoprism vilt vision visual vit
    vitdet vitmatte vitpose vits vivit vl voxtral wav2vec2 wavlm whisper xclip xcodec yolos
    """.split()  # noqa: SIM905 (a hundred quoted words read worse)
)
_TEXT = ("gemma3_text", "gemma3n_text", "gemma4_text", "llama4_text", "data2vec-text")


def reused(family: object, config: Mapping[str, Any]) -> str | None:
    """Why a weight of this model is used more than once per token; None if that is not known."""
    name = str(family)
    if name in _SHARED or any(_LOOPS.fullmatch(str(field)) for field in config):
        return LAYERS
    if name in _SEVERAL:
        return STREAMS
    towers = any(_TOWERS.fullmatch(str(field)) for field in config)
    return MEDIA if towers or (name not in _TEXT and _MEDIA.intersection(re.split("[-_]", name))) else None


def instead(family: object, config: Mapping[str, Any]) -> str:
    """Advice for a refused configuration: declare the size alone, unless 6PD is known not to be a bound."""
    why = reused(family, config)
    if why is None:
        return f"{MEASURED}; before a run, or with a counter of one's own: {INSTEAD}"
    return f"{MEASURED}; without them there is no figure: {why}, and 6PD is not an upper bound of that"
