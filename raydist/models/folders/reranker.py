"""A reranker's folder: what it freezes, and what may be set beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raydist.errors import ArtifactError, ConfigError
from raydist.models.architecture import has_head, max_positions, width
from raydist.models.backbone import base_folder, model_config
from raydist.models.folders.contract import Contract, read_contract, reconcile
from raydist.models.folders.sentence_transformers import CONFIG, modules_of, read_json
from raydist.models.spec import CrossEncoderSettings
from raydist.models.texts.tokenizer import load_tokenizer
from raydist.models.texts.tokens import PairTokenizer

Activation = Literal["identity", "sigmoid"]


@dataclass(frozen=True)
class RerankerFolder:
    """What the files of a reranker's folder say, its weights aside.

    Attributes:
        contract: the folder's, with what is set beside it.
        config: of the transformer.
        tokenizer: of the transformer.
        chat: whether the folder reads pairs through its tokenizer's chat template.
        any_side: whether nothing says on which side short texts are padded.
    """

    contract: Contract
    config: Any
    tokenizer: Any
    chat: bool
    any_side: bool

    def pair_tokenizer(self) -> PairTokenizer:
        """Returns the tokenizer of pairs: picklable, without weights."""
        return pair_tokenizer(self.tokenizer, self.contract)


def pair_tokenizer(tokenizer: Any, contract: Contract) -> PairTokenizer:
    """Returns what prepares pairs as a contract says."""
    return PairTokenizer(
        tokenizer,
        max_length=contract.document_max_length,
        query_max_length=contract.query_max_length,
        instruction=contract.query_instruction,
    )


def read_reranker(
    folder: Path,
    spec: CrossEncoderSettings,
    *,
    activation: Activation | None = None,
    fresh_head: bool = False,
) -> RerankerFolder:
    """Returns what a reranker's folder says, without its weights.

    Args:
        folder: of a model.
        spec: what is set beside the folder, or instead of it.
        activation: what makes scores of the logits, where that is set.
        fresh_head: a missing head will be drawn at random.
    """
    config = model_config(folder, trust_remote_code=spec.trust_remote_code)
    width(config)
    _check_modules(folder, config, fresh_head)
    own = (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(
        folder if own else base_folder(folder), config, trust_remote_code=spec.trust_remote_code
    )
    frozen = read_contract(folder)
    chat = frozen is None and _reads_chat(folder, config, tokenizer)
    plain = frozen is None or frozen.kind != "crossencoder"
    if frozen is None or plain:
        frozen = Contract(
            kind="crossencoder",
            padding_side=tokenizer.padding_side,
            query_instruction=_prompt(folder, config),
            query_max_length=0,
            document_max_length=min(max_positions(config, tokenizer), 8192),
            activation=_activation(folder, config),
        )
    requested = {
        "document_max_length": spec.max_length,
        "query_max_length": spec.query_max_length,
        "padding_side": spec.padding_side,
        "activation": activation or spec.activation,
    }
    may_differ = frozenset(requested) if spec.replace_contract or plain else frozenset[str]()
    contract = reconcile(frozen, requested, folder, may_differ=may_differ)
    return RerankerFolder(contract, config, tokenizer, chat, plain and spec.padding_side is None)


def check_trainable(chat: bool, folder: str | Path) -> None:
    """Raises ConfigError where a folder reads pairs through a chat template."""
    if chat:
        raise ConfigError(
            f"model {folder}: reads pairs through a chat template; such a folder is "
            "reranked with and served, not trained"
        )


def _reads_chat(folder: Path, config: Any, tokenizer: Any) -> bool:
    """Returns whether sentence-transformers reads pairs through the tokenizer's chat template."""
    modalities = read_json(folder / "sentence_bert_config.json").get("modality_config")
    declared = modalities is None or "message" in modalities
    return has_head(config) and bool(tokenizer.chat_template) and declared


def _check_modules(folder: Path, config: Any, fresh_head: bool) -> None:
    """Raises ArtifactError where sentence-transformers scores with more than the head."""
    scores = has_head(config) or read_json(folder / CONFIG).get("model_type") == "CrossEncoder"
    if (fresh_head and not has_head(config)) or not scores:
        return  # only the transformer is of use
    others = [kind for kind, _ in modules_of(folder)[1:]]
    if others:
        raise ArtifactError(
            f"{folder}/modules.json: a module {others[0]} after the head is not supported"
        )


def _prompt(folder: Path, config: Any) -> str:
    """Returns what sentence-transformers puts before a query: a cross-encoder's default prompt."""
    saved = read_json(folder / CONFIG)
    if not has_head(config) or saved.get("model_type", "CrossEncoder") != "CrossEncoder":
        return ""
    return str((saved.get("prompts") or {}).get(saved.get("default_prompt_name")) or "")


def _activation(folder: Path, config: Any) -> Activation:
    """Returns the folder's activation; a head that is still to be trained gives plain logits."""
    return saved_activation(folder, config) if has_head(config) else "identity"


def saved_activation(folder: Path, config: Any) -> Activation:
    """Returns the folder's activation, or sentence-transformers' default: sigmoid for one output.

    Raises:
        ArtifactError: it is another.
    """
    settings = getattr(config, "sentence_transformers", None) or {}
    if "activation_fn" not in settings:
        settings = read_json(folder / CONFIG)
    name = settings.get("activation_fn") or getattr(
        config, "sbert_ce_default_activation_function", "Sigmoid"
    )
    match str(name).rsplit(".", 1)[-1]:
        case "Identity":
            return "identity"
        case "Sigmoid":
            return "sigmoid"
        case other:
            raise ArtifactError(f"model {folder}: activation {other} is not supported")
