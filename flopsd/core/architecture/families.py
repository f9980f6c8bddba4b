"""The model families that flopsd reads, each with its reader. Loading them takes a few megabytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flopsd.core.architecture.bert import STYLES as ENCODERS
from flopsd.core.architecture.bert import read_bert
from flopsd.core.architecture.classic import read_gpt2, read_gpt_neox
from flopsd.core.architecture.decoder_families import STYLES
from flopsd.core.architecture.decoders import read_decoder
from flopsd.core.architecture.delta_decoders import DELTA_FAMILIES, read_delta_decoder
from flopsd.core.architecture.diffusion import FLUX, SD3, read_flux, read_sd3
from flopsd.core.architecture.encoder_decoders import read_bart, read_t5, read_whisper
from flopsd.core.architecture.encoders import read_distilbert, read_modernbert
from flopsd.core.architecture.gemma_decoders import GEMMA_FAMILIES, read_gemma_decoder
from flopsd.core.architecture.image_encoders import read_clip_vision, read_siglip_vision, read_vit
from flopsd.core.architecture.image_text import read_gemma3, read_idefics3, read_llama4, read_llava
from flopsd.core.architecture.image_text_pairs import read_clip, read_clip_text, read_siglip
from flopsd.core.architecture.lfm2 import LFM2_FAMILIES, read_lfm2
from flopsd.core.architecture.mamba_decoders import MAMBA_FAMILIES, read_mamba_decoder
from flopsd.core.architecture.model import Model
from flopsd.core.architecture.nemotron_h import read_nemotron_h
from flopsd.core.architecture.qwen_vl import STYLES as QWEN_VL
from flopsd.core.architecture.qwen_vl import read_qwen_vl

READERS: Mapping[str, Callable[[Mapping[str, Any]], Model]] = {
    **{family: partial(read_decoder, family) for family in STYLES},
    **{family: partial(read_delta_decoder, family) for family in DELTA_FAMILIES},
    **{family: partial(read_mamba_decoder, family) for family in MAMBA_FAMILIES},
    **{family: partial(read_gemma_decoder, family) for family in GEMMA_FAMILIES},
    **{family: partial(read_lfm2, family) for family in LFM2_FAMILIES},
    "nemotron_h": read_nemotron_h,
    "gemma3": read_gemma3,
    "llama4": read_llama4,
    "llava": read_llava,
    **{family: partial(read_idefics3, family) for family in ("idefics3", "smolvlm")},
    "gpt2": read_gpt2,
    "gpt_neox": read_gpt_neox,
    **{family: partial(read_bert, family) for family in ENCODERS},
    "distilbert": read_distilbert,
    "modernbert": read_modernbert,
    "t5": read_t5,
    "bart": read_bart,
    "whisper": read_whisper,
    **{family: partial(read_vit, family) for family in ("vit", "deit", "dinov2")},
    **{family: partial(read_qwen_vl, family) for family in QWEN_VL},
    "clip": read_clip,
    "clip_text_model": read_clip_text,
    "clip_vision_model": read_clip_vision,
    "siglip": read_siglip,
    "siglip_vision_model": read_siglip_vision,
}
# The diffusers package names the class instead of a model type.
DIFFUSERS: Mapping[str, Callable[[Mapping[str, Any]], Model]] = {FLUX: read_flux, SD3: read_sd3}
