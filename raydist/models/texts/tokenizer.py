"""A folder's tokenizer: with one padding token, and the end of a text where the folder wants it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from raydist.errors import ArtifactError, ConfigError
from raydist.models.architecture import UNREADABLE, reason_of
from raydist.models.quiet import quiet

_VOCABULARIES = ("tokenizer.json", "*.model", "*.tiktoken", "tekken.json", "vocab*")
"""Files of which a tokenizer has one, beside those that its class names."""


def load_tokenizer(folder: Path, config: Any, *, trust_remote_code: bool = False) -> Any:
    """Returns the folder's tokenizer, with a padding token and the end that its settings append.

    The padding token is the configuration's, by which the network tells padding from text; else the
    tokenizer's own; else a decoder's end token.

    Raises:
        ArtifactError: there is no tokenizer, or no fast one.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=trust_remote_code, local_files_only=True
            )
    except UNREADABLE as error:
        raise ArtifactError(
            f"model {folder}: its tokenizer cannot be read ({reason_of(error)})"
        ) from None
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ArtifactError(
            f"model {folder}: no fast tokenizer (tokenizer.json) and none can be made"
        )
    names = {*_VOCABULARIES, *getattr(tokenizer, "vocab_files_names", {}).values()}
    if not any(file for name in names for file in folder.glob(name)):  # and yet it made one
        raise ArtifactError(f"model {folder}: has no tokenizer.json, nor another vocabulary")
    _agree_on_padding(tokenizer, config)
    settings = folder / "tokenizer_config.json"  # transformers itself forgets some of it
    if settings.is_file() and json.loads(settings.read_text("utf-8")).get("add_eos_token"):
        append_eos(tokenizer)
    return tokenizer


def _agree_on_padding(tokenizer: Any, config: Any) -> None:
    padding = getattr(config, "pad_token_id", None)
    token = None
    if isinstance(padding, int) and 0 <= padding < len(tokenizer):
        token = tokenizer.convert_ids_to_tokens(padding)
    if token is not None and padding != tokenizer.pad_token_id:
        tokenizer.pad_token = token
    elif tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token


def appends_eos(tokenizer: Any) -> bool:
    """Returns whether a text ends with the end token."""
    ids = tokenizer.backend_tokenizer.encode("a").ids
    return bool(ids) and ids[-1] == tokenizer.eos_token_id


def ends_with_cls(tokenizer: Any) -> bool:
    """Returns whether the token that stands for a text comes last, as XLNet's does."""
    ids = tokenizer.backend_tokenizer.encode("a").ids
    return bool(ids) and ids[-1] == tokenizer.cls_token_id != ids[0]


def append_eos(tokenizer: Any) -> None:
    """Makes each text end with the end token, which truncation leaves in place.

    Raises:
        ConfigError: the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.append_eos: {tokenizer.name_or_path} has no end token")
    if appends_eos(tokenizer):
        return
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    special: dict[int, str] = {tokenizer.eos_token_id: tokenizer.eos_token}
    end = f"{tokenizer.eos_token}:"
    single = _template(backend.encode("a"), special, end)
    pair = _template(backend.encode("a", "b"), special, end)
    backend.post_processor = TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, n) for n, token in special.items()]
    )
    if truncation:
        backend.enable_truncation(**truncation)
    if padding:
        backend.enable_padding(**padding)


def _template(probe: Any, special: dict[int, str], end: str) -> list[str]:
    """Returns an encoding's template with `end` after each text; adds to the special tokens."""
    pieces: list[str] = []
    last = None
    owners = [*probe.sequence_ids, None]
    for place, owner in enumerate(owners):
        if last is not None and owner != last:
            pieces.append(f"{end}{probe.type_ids[place - 1]}")
        if place < len(probe.ids):
            kind = probe.type_ids[place]
            if owner is None:
                special[probe.ids[place]] = probe.tokens[place]
                pieces.append(f"{probe.tokens[place]}:{kind}")
            elif owner != last:
                pieces.append(f"${'AB'[owner]}:{kind}")
        last = owner
    return pieces


def save_tokenizer(tokenizer: Any, place: Path, max_length: int) -> None:
    """Writes a tokenizer whose limit is `max_length`."""
    before = tokenizer.model_max_length
    tokenizer.model_max_length = max_length
    try:
        tokenizer.save_pretrained(str(place))
    finally:
        tokenizer.model_max_length = before
