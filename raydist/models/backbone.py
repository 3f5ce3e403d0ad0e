"""The pretrained part of a model: located, loaded, prepared and saved.

Weights come from safetensors only, and code from a folder only where `trust_remote_code` says so.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
)

from raydist.errors import ArtifactError, ConfigError, DataError
from raydist.log import say
from raydist.models.adapters import add_lora, base_of, merged, with_adapters
from raydist.models.architecture import (
    UNREADABLE,
    has_head,
    load_config,
    reason_of,
    set_dropout,
    width,
)
from raydist.models.folders.packaged import local_folder
from raydist.models.folders.weights import load_weights
from raydist.models.fresh_head import start_as_likeness
from raydist.models.packed_attention import VARLEN, register
from raydist.models.quiet import quiet
from raydist.models.spec import ModelSettings

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_FILES = ["*.json", "*.txt", "*.safetensors", "*.model", "*.jinja", "*.py"]
DEFAULT_ATTENTION = "sdpa"
SHARD_BYTES = 5 * 10**9
"""Of the files that a large model's weights are written to."""
_said: set[str] = set()  # what was said of a folder need not be said again


def resolve_folder(path_or_name: str | Path, files: Sequence[str] = _FILES) -> Path:
    """Returns the local folder of a model: a folder, a training run, a URI, or a hub name.

    `package:NAME/FOLDER` is a folder inside an installed Python package.

    A hub name is looked up in the local cache and, unless HF_HUB_OFFLINE=1, downloaded if missing.

    Args:
        path_or_name: the model.
        files: patterns of what is downloaded.

    Raises:
        DataError: there is no such model.
    """
    name, copy = str(path_or_name), None
    if "://" in name:
        from raydist import storage

        copy = storage.local(name)
    if (folder := local_folder(name, copy)) is not None:
        return folder
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"model {name}: neither a folder nor a model that can be fetched ({reason})"
        ) from None


def model_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Returns the configuration of a folder's transformer, of its base for adapters."""
    return load_config(base_folder(folder), trust_remote_code=trust_remote_code)


def base_folder(folder: Path) -> Path:
    """Returns the folder of the whole weights: of the base for adapters, else the same."""
    base = base_of(folder)
    return folder if base is None else resolve_folder(base)


def load_backbone(
    folder: Path,
    spec: ModelSettings,
    *,
    head: bool = False,
    terms: bool = False,
    fresh_head: bool = False,
    attention: str = "",
    pad_token_id: int | None = None,
    seed: int = 0,
) -> Any:
    """Returns the folder's transformer, in evaluation mode.

    Args:
        folder: a Hugging Face folder with safetensors weights.
        spec: how they are loaded.
        head: whether a one-output classification head belongs on top.
        terms: whether the language model's head belongs on top.
        fresh_head: whether a missing head may start anew, drawn from `seed` where it is random.
        attention: what the folder was trained with, used where the machine and `spec` allow.
        pad_token_id: by which a head finds the last token, set where the configuration has none.
        seed: of the fresh head and the LoRA matrices.
    """
    if spec.dtype not in DTYPES:
        raise ConfigError(f"model.dtype: {spec.dtype!r}: expected one of {', '.join(DTYPES)}")
    place = base_folder(folder)
    config = load_config(place, trust_remote_code=spec.trust_remote_code)
    auto = _language_model(config, folder) if terms else _class_of(config, folder, head)
    width(config)  # or it reads something else than tokens
    _check_windows(config, folder)
    if spec.dropout is not None:
        set_dropout(config, spec.dropout)
    config.use_cache = False
    if head:
        _check_head(config, folder, fresh_head or place != folder)
        config.num_labels = 1
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = pad_token_id
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        draws = terms or (head and not has_head(config))
        model, fresh = _from_pretrained(auto, place, config, spec, attention, head or terms, draws)
        if terms and fresh and not fresh_head:
            raise ArtifactError(
                f"model {folder}: has no language-model head ({fresh[0]} is missing), which gives "
                "the weights of terms; train one (`raydist train model.kind=sparse`)"
            )
        alike = terms and bool(fresh) and start_as_likeness(model, fresh)
        if place != folder:
            model, fresh = with_adapters(model, folder, fresh if head else ()), []
        _train_every_row(model)
        if not head and isinstance(getattr(model, "pooler", None), nn.Module):
            # Carried along for those who start from the checkpoint, but no gradient reaches it.
            model.pooler.requires_grad_(False)
        if spec.gradient_checkpointing:
            _checkpoint_gradients(model)
        if spec.lora is not None:
            if terms and fresh:
                raise ConfigError(
                    f"model.lora: {folder} has no language-model head, and a new one is trained "
                    "whole; leave model.lora out"
                )
            if spec.gradient_checkpointing:
                model.enable_input_require_grads()
            model = add_lora(model, spec.lora, fresh=fresh, head=head)
    if fresh and (head or terms):
        start = "starts from likeness to the embeddings" if alike else "drawn at random"
        _say_once(f"model {folder}: {start}, to be trained: {', '.join(fresh)}")
    return model.eval()


def _class_of(config: Any, folder: Path, head: bool) -> Any:
    if type(config) not in AutoModelForSeq2SeqLM._model_mapping:
        auto = AutoModelForSequenceClassification if head else AutoModel
        brought = getattr(config, "auto_map", None) or {}
        if type(config) not in auto._model_mapping and auto.__name__ not in brought:
            what = "scoring head" if head else "model without a head"
            raise ConfigError(f"model {folder}: transformers has no {what} for {config.model_type}")
        return auto
    if head:
        raise ConfigError(
            f"model {folder}: {config.model_type} scores with a decoder, which a folder of an "
            "encoder lacks; a reranker starts from an encoder or a decoder"
        )
    if type(config) not in AutoModelForTextEncoding._model_mapping:
        raise ConfigError(
            f"model {folder}: {config.model_type} is an encoder-decoder; expected an encoder or a "
            "decoder"
        )
    return AutoModelForTextEncoding


def _language_model(config: Any, folder: Path) -> Any:
    """Returns transformers' class of the model with its head: of masked tokens, or of the next."""
    if not config.is_encoder_decoder:
        for auto in (AutoModelForMaskedLM, AutoModelForCausalLM):
            if type(config) in auto._model_mapping or auto.__name__ in (
                getattr(config, "auto_map", None) or {}
            ):
                return auto
    raise ConfigError(
        f"model.kind=sparse: transformers has no language-model head for {config.model_type} "
        f"({folder}), which gives the weights of terms; expected an encoder or a decoder with one"
    )


def _check_windows(config: Any, folder: Path) -> None:
    if getattr(config, "attention_type", "") == "block_sparse":
        raise ConfigError(
            f"model {folder}: attention_type=block_sparse of {config.model_type} gives "
            "a text another vector in another batch; write attention_type=original_full into its "
            "config.json"
        )


def _train_every_row(model: nn.Module) -> None:
    """Gives the padding token's row its gradient: where it ends a text, its vector is pooled.

    The rows of padding get none in any case, for no text attends to them.
    """
    for part in model.modules():
        if isinstance(part, nn.Embedding):
            part.padding_idx = None


def _checkpoint_gradients(model: Any) -> None:
    try:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    except ValueError:
        raise ConfigError(
            f"model.gradient_checkpointing: {type(model).__name__} does not support it; "
            "cache=CHUNK saves memory with any model"
        ) from None


def _check_head(config: Any, folder: Path, fresh_head: bool) -> None:
    if has_head(config) and config.num_labels != 1:
        raise ConfigError(
            f"model {folder}: its head gives {config.num_labels} numbers, a reranker's gives 1"
        )
    if not has_head(config) and not fresh_head:
        raise ArtifactError(
            f"model {folder}: {(config.architectures or ['?'])[0]} has no scoring head; train one "
            "(`raydist distill`), or pass fresh_head=True to start from a random one"
        )


def _from_pretrained(
    auto: Any,
    folder: Path,
    config: Any,
    spec: ModelSettings,
    attention: str,
    head: bool,
    fresh_head: bool,
) -> tuple[Any, list[str]]:
    wanted, kind = spec.attention, config.model_type
    if wanted == VARLEN:
        register()
    if wanted == DEFAULT_ATTENTION and attention:
        wanted = attention
    choices: list[str | None] = [wanted]
    if spec.attention == DEFAULT_ATTENTION:
        choices += [DEFAULT_ATTENTION, None]  # the last is transformers' own choice
    for choice in dict.fromkeys(choices):
        try:
            model, fresh = load_weights(
                auto,
                folder,
                head=head,
                fresh_head=fresh_head,
                config=config,
                dtype=DTYPES[spec.dtype],
                attn_implementation=choice,
                use_safetensors=True,
                trust_remote_code=spec.trust_remote_code,
                local_files_only=True,
            )
        except torch.OutOfMemoryError:
            raise
        except UNREADABLE as error:
            reason = reason_of(error)
            if not re.search("attention|attn", str(error), re.IGNORECASE):
                raise ConfigError(
                    f"model {folder}: transformers cannot open its {kind} ({reason})"
                ) from None
            continue
        if choice != wanted:
            own = model.config._attn_implementation
            _say_once(f"{type(model).__name__} has no {wanted} attention here; {own} is used")
        return model, fresh
    if spec.attention == DEFAULT_ATTENTION:
        raise ConfigError(f"model {folder}: transformers cannot open its {kind} ({reason})")
    raise ConfigError(
        f"attention={spec.attention}: {kind} does not take it here ({reason}); "
        "leave it out to use what the model has"
    )


PROBE = ("a", "one text of many other words, or the rest of them")
"""Two texts, of which the first needs padding beside the second."""
_ROUNDING, _HALF_ROUNDING, _SMALL = 1e-3, 0.25, 0.1
"""Allowed differences between batches, as a share of the largest value, which may be small where
a head is still to be trained."""
_EQUAL = 1e-6
"""The same for two texts that a model does not tell apart."""


def check_outputs(
    wrapper: Any,
    model: nn.Module,
    output: Callable[[Sequence[int]], Tensor],
    spec: ModelSettings,
    kind: str,
    *,
    score: bool = False,
) -> Tensor:
    """Returns the output for the first text of `PROBE`; bars padding that a model would learn from.

    Args:
        wrapper: the model with its `autocast`.
        model: the transformer.
        output: its output for some rows of `PROBE`, padded to the longest.
        spec: how the model was loaded.
        kind: its architecture, for the message.
        score: the first number is what is used.

    Raises:
        ConfigError: the model does not compute in half precision or on short texts, reads padding,
            sees one token alone, or keeps something of a text for the next one.
    """
    if wrapper.autocast is not None and not spec.attention.startswith("flash"):
        # In half precision what reads padding is hard to tell from rounding.
        autocast, wrapper.autocast = wrapper.autocast, None
        full = replace(spec, autocast="float32")
        check_outputs(wrapper, model, output, full, kind, score=score)
        wrapper.autocast = autocast
    half = spec.half_autocast or spec.dtype not in ("float32", "float64")
    name = f"autocast={spec.autocast}" if spec.half_autocast else f"dtype={spec.dtype}"
    before = _tensors(model)
    try:
        with torch.no_grad():
            alone, both = output([0])[0].float(), output([0, 1]).float()
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        reason = reason_of(error)
        if half:
            raise ConfigError(
                f"model.{name}: {kind} does not compute in it ({reason}); use float32"
            ) from None
        raise ConfigError(
            f"model: {kind} does not take a short text ({reason}); expected another architecture"
        ) from None
    if not alone.isfinite().all() or not both.isfinite().all():
        raise ConfigError(
            f"model: {kind} gives numbers that are not finite"
            + (f" with {name}; use float32" if half else "; its weights are of no use")
        )
    scale = max(_SMALL, float(alone.abs().max()))
    difference = float((alone - both[0]).abs().max()) / scale
    exact = not half and torch.get_float32_matmul_precision() == "highest"
    if difference > (_ROUNDING if exact else _HALF_ROUNDING):
        raise ConfigError(
            f"model: {kind} gives a text another output in another batch (by {difference:.1e}), "
            "because it does not leave padding out; expected another architecture"
        )
    used = both[:, :1] if score else both
    if (exact or not score) and not (used[0] - used[1]).abs().max() > _EQUAL * used.abs().max():
        raise ConfigError(
            f"model: {kind} gives different texts one output, since the token that is read sees no "
            "other; expected another pooling or architecture"
        )
    if kept := _tensors(model) - before:
        raise ConfigError(
            f"model: {kind} keeps {min(kept)} of a text for the next one; expected another "
            "architecture"
        )
    _bar_padding(model, lambda: output([0, 1])[0])
    return alone


def check_vocabulary(tokenizer: Any, model: Any, folder: Path) -> None:
    """Raises ArtifactError where a tokenizer gives tokens that a transformer has no row for."""
    tokens = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    try:
        rows = getattr(model.get_input_embeddings(), "num_embeddings", tokens)
    except NotImplementedError:  # transformers': a model without embeddings of tokens
        return
    if tokens > rows:
        raise ArtifactError(
            f"model {folder}: its tokenizer has {tokens:,} tokens, its embeddings {rows:,} rows; "
            "they do not belong together"
        )


def _tensors(model: nn.Module) -> set[str]:
    """Returns the names of modules' attributes that are tensors, weights and buffers aside."""
    return {
        key
        for module in model.modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    }


def _bar_padding(model: nn.Module, output: Callable[[], Tensor]) -> None:
    """Bars the padding token's row from gradients where a model reads it and it is nothing but 0.

    MobileBERT reads each token's neighbours. If the row became anything else, a text's vector would
    depend on its batch.
    """
    config: Any = getattr(model, "config", None)
    table: Any = getattr(model, "get_input_embeddings", lambda: None)()
    row = getattr(config, "pad_token_id", None)
    if not isinstance(table, nn.Embedding) or row is None or table.weight[row].any():
        return
    with torch.no_grad():
        before = output()
        table.weight[row] = 1.0
        after = output()
        table.weight[row] = 0.0
    if not torch.equal(before, after):
        table.padding_idx = row


def attention_of(tower: Any) -> dict[str, str]:
    """Returns what a folder keeps of a transformer's attention.

    Nothing of the default, nor of `varlen`, which gives the same vectors.
    """
    own = str(tower.config._attn_implementation)
    return {} if own in (DEFAULT_ATTENTION, VARLEN) else {"attention": own}


def compiled(models: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Makes transformers compile themselves at their next call; their weights stay theirs."""
    for model in models:
        model.compile(backend=backend, dynamic=True)


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        say(message)


def save_transformer(
    tower: nn.Module, place: Path, *, state: dict[str, Tensor] | None = None
) -> None:
    """Writes a transformer's config and safetensors; LoRA matrices go in merged.

    Args:
        tower: the transformer.
        place: its folder.
        state: a part of the weights, written to one file instead of the transformer's own.

    Raises:
        OSError: the files cannot be written.
    """
    model: Any = merged(tower)
    if not torch.cuda.is_available():  # saving loads an installed DeepSpeed, which warns without
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        with quiet():
            size = SHARD_BYTES if state is None else sys.maxsize
            model.save_pretrained(str(place), state_dict=state, max_shard_size=size)
    except SafetensorError as error:  # has the system's error as text alone
        reason = errno.ENOSPC if f"os error {errno.ENOSPC}" in str(error) else errno.EIO
        raise OSError(reason, str(error), str(place)) from error
