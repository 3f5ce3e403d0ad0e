"""Tiny models of further families, with the tokenizers of those of the tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as T
from transformers import AutoTokenizer

from tests.models.zoo import build

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_LONG = {"max_position_embeddings": 128}
_DECODER = {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 256}
_ROBERTA = {**_SIZES, "max_position_embeddings": 130, "type_vocab_size": 1}
_SEQ = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4},
    **{"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, **_LONG},
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_GPT = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4}

FURTHER: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bart": ("roberta", "BartModel", _SEQ),
    "bert_decoder": ("bert", "BertLMHeadModel", {**_SIZES, **_LONG, "is_decoder": True}),
    "canine": ("bert", "CanineModel", {**_SIZES, **_LONG}),
    "clip_text": ("roberta", "CLIPTextModel", {**_SIZES, "max_position_embeddings": 77}),
    "cohere": ("llama", "CohereForCausalLM", _DECODER),
    "ctrl": (
        "gpt2",
        "CTRLModel",
        {"n_positions": 128, "n_embd": 32, "dff": 64, "n_layer": 2, "n_head": 4},
    ),
    "ernie": ("bert", "ErnieModel", {**_SIZES, **_LONG}),
    "eurobert": ("roberta", "EuroBertModel", _DECODER),
    "funnel": (
        "bert",
        "FunnelModel",
        {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1]},
    ),
    "gemma3_text": (
        "gemma",
        "Gemma3ForCausalLM",
        {
            **_DECODER,
            **{"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8},
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "ibert": ("roberta", "IBertModel", _ROBERTA),
    "jamba": (
        "gpt2",
        "JambaForCausalLM",
        {
            **_DECODER,
            **{"num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 8},
            **{"attn_layer_period": 2, "attn_layer_offset": 1},
            **{"expert_layer_period": 2, "expert_layer_offset": 1},
        },
    ),
    "layoutlm": ("bert", "LayoutLMModel", {**_SIZES, **_LONG}),
    "llama_both_ways": ("llama", "LlamaModel", {**_DECODER, "is_causal": False}),
    "mamba": ("gpt2", "MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2}),
    "mixtral": ("llama", "MixtralForCausalLM", {**_DECODER, **_EXPERTS}),
    "mobilebert": (
        "bert",
        "MobileBertModel",
        {**_SIZES, **_LONG, "embedding_size": 16, "intra_bottleneck_size": 32},
    ),
    "modernbert_decoder": (
        "modernbert",
        "ModernBertDecoderForCausalLM",
        {**_SIZES, "max_position_embeddings": 256, "local_attention": 16},
    ),
    "nemotron": ("llama", "NemotronForCausalLM", {**_DECODER, "head_dim": 8}),
    "olmo2": ("gpt2", "Olmo2ForCausalLM", _DECODER),
    "opt": (
        "gpt2",
        "OPTModel",
        {
            **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"ffn_dim": 64, "word_embed_proj_dim": 32, **_LONG},
        },
    ),
    "perceiver": ("bert", "PerceiverModel", {"num_latents": 8, "d_latents": 32, "d_model": 32}),
    "phimoe": ("llama", "PhimoeForCausalLM", {**_DECODER, **_EXPERTS}),
    "recurrent_gemma": (
        "gemma",
        "RecurrentGemmaForCausalLM",
        {**_DECODER, "head_dim": 8, "attention_window_size": 16, "lru_width": 32},
    ),
    "squeezebert": (
        "bert",
        "SqueezeBertModel",
        {
            **{**_SIZES, **_LONG, "embedding_size": 32, "q_groups": 2, "k_groups": 2},
            **{"v_groups": 2, "intermediate_groups": 2, "output_groups": 2},
        },
    ),
    "starcoder2": ("gpt2", "Starcoder2ForCausalLM", {**_DECODER, "sliding_window": 16}),
    "xglm": (
        "gpt2",
        "XGLMForCausalLM",
        {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64, **_LONG},
    ),
}
"""Name -> the family whose tokenizer it has, its class, and its sizes."""


def build_further(names: Sequence[str], folder: Path) -> Path:
    """Writes tiny models of these families, and of those whose tokenizers they have."""
    sources = sorted({FURTHER[name][0] for name in names})
    if missing := [name for name in sources if not (folder / name).is_dir()]:
        build(missing, folder)
    for name in names:
        source, kind, sizes = FURTHER[name]
        tokenizer = AutoTokenizer.from_pretrained(str(folder / source))
        cls: Callable[..., Any] = getattr(T, kind)
        ids = {
            f"{each}_token_id": getattr(tokenizer, f"{each}_token_id")
            for each in ("pad", "bos", "eos", "cls", "sep")
        }
        config = cls.config_class(  # type: ignore[attr-defined]
            vocab_size=len(tokenizer), **{k: v for k, v in ids.items() if v is not None}, **sizes
        )
        torch.manual_seed(7)
        model = cls(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1 and parameter.std() < 0.1:
                    parameter.mul_(5)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder
