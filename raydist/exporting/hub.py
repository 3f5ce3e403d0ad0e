"""Writes a checkpoint as a Hugging Face folder with its card, and pushes it to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import HFValidationError, validate_repo_id

from raydist import log
from raydist.errors import ArtifactError, ConfigError, JobError
from raydist.exporting.model_card import model_card
from raydist.exporting.provenance import Provenance, find_provenance
from raydist.models.adapters import copy_adapters
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.spec import FolderLayout

_PROBE = ("what is retrieval?", "Retrieval finds what answers a question.", "")
_NOT_PUSHED = ["manifest.json", ".*"]


def export_model(
    checkpoint: str | Path,
    folder: Path,
    *,
    name: str = "",
    doc: str = "",
    bibtex: str = "",
    about: Provenance | None = None,
    adapter: bool = False,
    layout: FolderLayout = "sentence-transformers",
    **settings: Any,
) -> Provenance:
    """Writes weights, tokenizer, modules and README.md; returns where the model comes from.

    Weights are safetensors. The folder is read again, and its answer to a few texts must be that
    of the checkpoint.

    Args:
        checkpoint: a training run, one of its checkpoints, or any model folder.
        folder: created if missing.
        name: the model's name in its card; the folder's if empty.
        doc: a description of the model, Markdown.
        bibtex: how to cite it.
        about: where it comes from, if the caller knows.
        adapter: write the adapters of a LoRA run alone, beside the name of their base.
        layout: which library is to load the folder.
        settings: how the model is loaded: `attention`, `trust_remote_code`.

    Raises:
        ConfigError: there are no adapters, or PyLate cannot load such a model.
        ArtifactError: the written model answers differently from the checkpoint.
    """
    about = about or find_provenance(checkpoint)
    if layout == "pylate" and about.kind != "multivector":
        raise ConfigError(f"layout=pylate: PyLate has no {about.kind}, multi-vector models alone")
    model = _load(about.folder, about.kind, settings)
    provenance: dict[str, Any] = {"settings": dict(about.settings)} if about.settings else {}
    if isinstance(model, BiEncoder):
        provenance["layout"] = layout
    if adapter:
        model.save(folder, weights=copy_adapters(about.folder), **provenance)
    else:
        model.save(folder, **provenance)
    written = _load(folder, about.kind, settings)
    before, after = _answer(model), _answer(written)
    if not np.allclose(before, after, atol=1e-5):
        raise ArtifactError(
            f"{folder}: the written model differs from {about.folder} by "
            f"{np.abs(before - after).max():.2e}"
        )
    card = model_card(
        about,
        model.contract,
        name=name or folder.name,
        dimension=model.dimension if isinstance(model, BiEncoder) else 0,
        doc=doc,
        bibtex=bibtex,
        base_model=_base_model(about),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    kept = model.contract.query_terms, model.contract.document_terms
    if kept[0] != kept[1]:
        log.warn(
            f"{folder}: keeps {kept[0] or 'all'} terms of a query and {kept[1] or 'all'} of a "
            "document (query_terms, document_terms); sentence-transformers, which has one number "
            "for both, keeps all"
        )
    cap = model.contract.query_max_length
    if isinstance(model, CrossEncoderModel) and cap:
        log.warn(
            f"{folder}: queries of more than {cap} tokens (query_max_length) score otherwise in "
            "sentence-transformers, which knows no such cap; the card says so"
        )
    return about


def _load(folder: Path, kind: str, settings: dict[str, Any]) -> BiEncoder | CrossEncoderModel:
    if kind != "crossencoder":
        return BiEncoder.load(folder, device="cpu", **settings)
    return CrossEncoderModel.load(folder, device="cpu", **settings)


@torch.inference_mode()
def _answer(model: BiEncoder | CrossEncoderModel) -> np.ndarray:
    if isinstance(model, BiEncoder):
        return np.vstack([*model.encode_queries(_PROBE), *model.encode_documents(_PROBE)])
    pairs = model.tokenize([_PROBE[0]] * len(_PROBE), _PROBE)
    return np.asarray(model(model.pad(pairs)).numpy())


def _base_model(about: Provenance) -> str:
    """Returns the hub name of the start, empty for a local folder or a model from nothing."""
    named = (about.config.get("model") or {}).get("path") or ""
    is_name = named and not Path(named).exists() and named.count("/") <= 1
    return named if is_name and not named.startswith((".", "/", "~")) else ""


def check_push(name: str) -> None:
    """Raises ConfigError where a push cannot succeed: offline, or no repository name."""
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("push=true: HF_HUB_OFFLINE is set, so nothing is sent; unset it to push")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"name={name!r}: expected owner/name to push ({error})") from None
    if "/" not in name:
        raise ConfigError(f"name={name!r}: expected owner/name to push")


def push_folder(folder: Path, name: str, *, private: bool = True) -> str:
    """Uploads an exported folder and returns its address.

    The token is huggingface_hub's own (`HF_TOKEN` or a stored login).

    Raises:
        ConfigError: offline, or not a repository name.
        JobError: the hub refuses.
    """
    check_push(name)
    try:
        api = HfApi()
        url = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=str(folder),
            ignore_patterns=_NOT_PUSHED,
            commit_message="Export by raydist",
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise JobError(
            f"push to {name}: {reason}; {folder} is complete, push again with the same command"
        ) from None
    return str(url)
