"""The pretrained part of a model: located, loaded, prepared and saved.

Weights come from safetensors only, and never code from a checkpoint (`trust_remote_code` is off
and cannot be switched on).
"""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from raydist.errors import ArtifactError, ConfigError, DataError
from raydist.models.packaged import packaged
from raydist.models.spec import Lora, ModelSettings

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
FINISHED = "checkpoint-final"
UNLIMITED = 1 << 20
_FILES = ["*.json", "*.txt", "*.safetensors", "*.model", "*.jinja"]
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "hidden_dropout",
    "dropout",
    "embedding_dropout",
    "mlp_dropout",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "seq_classif_dropout",
    "classifier_dropout",
    "pooler_dropout",
    "activation_dropout",
)


def default_dtype() -> str:
    """Returns bfloat16 where an accelerator has it, else float32."""
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def resolve_folder(path_or_name: str | Path) -> Path:
    """Returns the local folder of a model: a folder, a training run, a URI, or a hub name.

    `package:NAME/FOLDER` is a folder inside an installed Python package.

    A hub name is looked up in the local cache and, unless HF_HUB_OFFLINE=1, downloaded if missing.

    Raises:
        DataError: there is no such model.
    """
    name, path = str(path_or_name), packaged(str(path_or_name))
    if "://" in name:
        from raydist import storage

        path = storage.local(name)
    if path.is_dir():
        if (path / FINISHED).is_dir():
            path = path / FINISHED
        if (path / "modules.json").is_file() or _is_model(path / "config.json"):
            return path
        if (path / "metrics.jsonl").is_file():
            raise DataError(f"model {path}: a training run without {FINISHED}: it has not finished")
        raise DataError(f"model {path}: this folder has no config.json of a model")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise DataError(f"model {name}: no such folder")
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"model {name}: neither a folder nor a model that can be fetched ({reason})"
        ) from None


def _is_model(config: Path) -> bool:
    """Returns whether a file is a model's configuration (a run's has the same name)."""
    try:
        return "model_type" in json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' bars and load reports off the terminal; errors still raise."""
    level = transformers.logging.get_verbosity()
    bar = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bar:
            transformers.logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """Returns the folder's tokenizer, with a padding token (a decoder's end token if need be)."""
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_config(folder: Path) -> Any:
    """Returns the folder's Hugging Face configuration."""
    return AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def has_head(config: Any) -> bool:
    """Returns whether the weights of a configuration include a classification head."""
    return any(n.endswith("ForSequenceClassification") for n in (config.architectures or []))


def position_limit(config: Any) -> int:
    """Returns the most tokens that a model's position table takes."""
    positions = int(getattr(config, "max_position_embeddings", 0) or UNLIMITED)
    if config.model_type in _OFFSET_POSITIONS:
        positions -= int(config.pad_token_id or 0) + 1
    return positions


def max_positions(config: Any, tokenizer: Any) -> int:
    """Returns the most tokens a model takes: by its position table and its tokenizer."""
    return min(position_limit(config), int(min(tokenizer.model_max_length, UNLIMITED)))


# These number positions from the padding id on, so their table takes fewer tokens than its length.
_OFFSET_POSITIONS = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "mpnet",
        "longformer",
        "data2vec-text",
    }
)


def load_backbone(
    folder: Path,
    spec: ModelSettings,
    *,
    head: bool = False,
    fresh_head: bool = False,
    pad_token_id: int | None = None,
    seed: int = 0,
) -> Any:
    """Returns the folder's transformer, in evaluation mode.

    Args:
        folder: a Hugging Face folder with safetensors weights.
        spec: how they are loaded.
        head: whether a one-output classification head belongs on top.
        fresh_head: whether a missing head may be drawn at random, from `seed`.
        pad_token_id: set where the model's configuration has none.
        seed: of the fresh head and the LoRA matrices.
    """
    if spec.dtype not in DTYPES:
        raise ConfigError(f"model.dtype: {spec.dtype!r}: expected one of {', '.join(DTYPES)}")
    if not any(folder.glob("*.safetensors")):
        raise ArtifactError(
            f"model {folder}: no *.safetensors; weights in other formats are not read, "
            "convert them with transformers' save_pretrained"
        )
    config = load_config(folder)
    if config.is_encoder_decoder:
        raise ConfigError(
            f"model {folder}: {config.model_type} is an encoder-decoder; expected an encoder or a "
            "decoder"
        )
    if spec.dropout is not None:
        for name in _DROPOUTS:
            if isinstance(getattr(config, name, None), float | int):
                setattr(config, name, float(spec.dropout))
    if getattr(config, "pad_token_id", None) is None and pad_token_id is not None:
        config.pad_token_id = pad_token_id
    config.use_cache = False
    if head:
        _check_head(config, folder, fresh_head)
        config.num_labels = 1
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        model = _from_pretrained(folder, config, head, spec)
        if spec.lora is not None:
            model = _with_lora(model, spec.lora, head)
    if not head and isinstance(getattr(model, "pooler", None), nn.Module):
        # Carried along for those who start from the checkpoint, but no gradient reaches it.
        model.pooler.requires_grad_(False)
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if spec.lora is not None:
            model.enable_input_require_grads()
    return model.eval()


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


def _from_pretrained(folder: Path, config: Any, head: bool, spec: ModelSettings) -> Any:
    auto = AutoModelForSequenceClassification if head else AutoModel
    try:
        return auto.from_pretrained(
            str(folder),
            config=config,
            dtype=DTYPES[spec.dtype],
            attn_implementation=spec.attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (ImportError, ValueError) as error:
        if "attention" not in str(error) and "attn" not in str(error):
            raise
        raise ConfigError(
            f"model.attention={spec.attention}: {config.model_type} does not take it here "
            f"({str(error).splitlines()[0]}); try model.attention=eager"
        ) from None


def _with_lora(model: Any, lora: Lora, head: bool) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    settings: dict[str, Any] = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    if lora.targets:
        settings["target_modules"] = list(lora.targets)
    else:
        settings["target_modules"] = "all-linear"
        settings["exclude_modules"] = r".*(pooler|classifier|score).*"
    task = TaskType.SEQ_CLS if head else TaskType.FEATURE_EXTRACTION
    try:
        return get_peft_model(model, LoraConfig(task_type=task, **settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.lora: {error}") from None


def merged(tower: nn.Module) -> nn.Module:
    """Returns a copy on the CPU with LoRA matrices in the weights; a tower without any as it is.

    The tower itself is left alone: an engine may hold views of its parameters.
    """
    if not hasattr(tower, "merge_and_unload"):
        return tower
    copies: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("cpu", copy=True), requires_grad=False)
        for p in tower.parameters()
    }
    copies |= {id(b): b.detach().to("cpu", copy=True) for b in tower.buffers()}
    model: Any = copy.deepcopy(tower, copies)
    merged_model: nn.Module = model.merge_and_unload()
    return merged_model


def save_transformer(tower: nn.Module, place: Path) -> None:
    """Writes a transformer's config and safetensors; LoRA matrices go in merged.

    Raises:
        OSError: the files cannot be written.
    """
    model: Any = merged(tower)
    if not torch.cuda.is_available():  # saving loads an installed DeepSpeed, which warns without
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        with quiet():
            model.save_pretrained(str(place))
    except SafetensorError as error:  # has the system's error as text alone
        reason = errno.ENOSPC if f"os error {errno.ENOSPC}" in str(error) else errno.EIO
        raise OSError(reason, str(error), str(place)) from error


def save_tokenizer(tokenizer: Any, place: Path, max_length: int) -> None:
    """Writes a tokenizer whose limit is `max_length`."""
    before = tokenizer.model_max_length
    tokenizer.model_max_length = max_length
    try:
        tokenizer.save_pretrained(str(place))
    finally:
        tokenizer.model_max_length = before
