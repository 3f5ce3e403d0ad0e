"""What an architecture is, by its configuration alone: causal or not, its width, its positions."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from raydist.errors import ArtifactError, ConfigError

UNLIMITED = 1 << 20
UNREADABLE = (
    *(AssertionError, AttributeError, ImportError, IndexError, KeyError, OSError, RuntimeError),
    *(SafetensorError, StrictDataclassError, TypeError, ValueError),
)
"""What transformers raises about folders that it cannot read, and texts that a model cannot."""
# These number positions from the padding id on, so their table takes fewer tokens than its length.
_OFFSET_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "lilt",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
_PERMUTED = frozenset({"xlnet"})
"""Language models whose attention sees both sides: their order of prediction is permuted."""
_CAUSAL = frozenset({"clip_text_model"})
"""Causal ones that are no language models."""
_DROPOUT = re.compile(r"dropout|pdrop")


def load_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Returns the folder's Hugging Face configuration.

    Raises:
        ArtifactError: transformers does not know the architecture.
        ConfigError: the folder has code of its own, which may not run.
    """
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"model {folder}: this folder has no config.json of a model")
    try:
        return AutoConfig.from_pretrained(
            str(folder), trust_remote_code=trust_remote_code, local_files_only=True
        )
    except UNREADABLE as error:
        _refuse_custom_code(folder, trust_remote_code)
        raise ArtifactError(
            f"model {folder}: transformers cannot read its config.json ({reason_of(error)})"
        ) from None


def reason_of(error: BaseException) -> str:
    """Returns the first line of an error's message, with the second where that says what it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _refuse_custom_code(folder: Path, trusted: bool) -> None:
    path = folder / "config.json"
    if trusted or not path.is_file():
        return
    if "auto_map" in json.loads(path.read_text(encoding="utf-8")):
        raise ConfigError(
            f"model {folder}: needs code of its own, which is not run; if you trust its author, "
            "set trust_remote_code=true beside the model's path"
        )


def has_head(config: Any) -> bool:
    """Returns whether the weights of a configuration include a classification head."""
    names = map(str, config.architectures or [])
    return any(name.endswith("ForSequenceClassification") for name in names)


def is_causal(config: Any) -> bool:
    """Returns whether a token attends to those before it alone.

    By the architecture, not by the task that the folder was saved for.
    """
    kind = config.model_type
    if config.is_encoder_decoder or kind in _PERMUTED:
        return False
    if kind in _CAUSAL:
        return True
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return bool(getattr(config, "is_decoder", False))
    both_ways = getattr(config, "use_bidirectional_attention", None)
    return getattr(config, "is_causal", True) is not False and both_ways not in (True, "all")


def width(config: Any) -> int:
    """Returns the width of the token vectors.

    Raises:
        ConfigError: the configuration does not say it.
    """
    size = getattr(config.get_text_config(), "hidden_size", None)
    if size is None:
        raise ConfigError(
            f"model: the configuration of {config.model_type} has no hidden_size; expected an "
            "encoder or a decoder of texts"
        )
    return int(size)


def position_limit(config: Any) -> int:
    """Returns the most tokens that a model's position table takes."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 0)
    if positions <= 0:  # XLNet says -1
        return UNLIMITED
    if config.model_type in _OFFSET_POSITIONS:
        positions -= int(config.pad_token_id or 0) + 1
    return positions


def max_positions(config: Any, tokenizer: Any) -> int:
    """Returns the most tokens a model takes: by its position table and its tokenizer."""
    return min(position_limit(config), int(min(tokenizer.model_max_length, UNLIMITED)))


def set_dropout(config: Any, probability: float) -> None:
    """Replaces every dropout probability of a configuration, whatever the family calls it."""
    for name, value in config.to_dict().items():
        if _DROPOUT.search(name) and isinstance(value, int | float) and not isinstance(value, bool):
            setattr(config, name, float(probability))


def names_positions(tower: nn.Module) -> bool:
    """Returns whether a transformer can be told its tokens' positions."""
    base: Any = getattr(tower, "get_base_model", lambda: tower)()
    return "position_ids" in inspect.signature(base.forward).parameters


def first_position(tower: Any) -> int:
    """Returns the position of a text's first token."""
    offset = tower.config.model_type in _OFFSET_POSITIONS
    return int(tower.config.pad_token_id or 0) + 1 if offset else 0


def takes_positions(tower: Any) -> bool:
    """Returns whether a transformer takes positions, which it would count from the left."""
    return names_positions(tower) and tower.config.model_type not in _OFFSET_POSITIONS


def sees_all_alike(tower: Any) -> bool:
    """Returns whether all layers take one mask of what each token sees (see `wide_mask`)."""
    base: Any = getattr(tower, "get_base_model", lambda: tower)()
    kinds = set(getattr(base.config, "layer_types", None) or ["full_attention"])
    # Eager attention adds a mask instead of choosing by it.
    chooses = base.config._attn_implementation == "sdpa" and base._supports_attention_backend
    windows = getattr(base.config, "sliding_window", None) is not None
    return bool(chooses) and not windows and kinds == {"full_attention"}


def has_position_table(tower: nn.Module) -> bool:
    """Returns whether a transformer looks positions up, so that padding on the left moves them."""
    return any(
        isinstance(part, nn.Embedding) and re.search(r"position|\bwpe$", name) is not None
        for name, part in tower.named_modules()
    )
