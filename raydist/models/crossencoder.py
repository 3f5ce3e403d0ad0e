"""The cross-encoder: a transformer that reads query and document together and gives one score.

Shapes: B pairs, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raydist.errors import ConfigError
from raydist.models.adapters import merged, save_adapters
from raydist.models.architecture import (
    has_position_table,
    is_causal,
    position_limit,
    sees_all_alike,
)
from raydist.models.backbone import (
    PROBE,
    attention_of,
    check_outputs,
    check_vocabulary,
    compiled,
    load_backbone,
    resolve_folder,
    save_transformer,
)
from raydist.models.folders.contract import Contract, frozen_attention
from raydist.models.folders.reranker import check_trainable, pair_tokenizer, read_reranker
from raydist.models.folders.sentence_transformers import read_json, write_st_reranker
from raydist.models.packed_attention import VARLEN
from raydist.models.packing import wide_mask
from raydist.models.spec import CrossEncoderSettings
from raydist.models.texts.tokenizer import save_tokenizer
from raydist.models.texts.tokens import SEGMENTED, Pair, pad_pairs

_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
}


class CrossEncoderModel(nn.Module):
    """A sequence classifier with one output; `CrossEncoderModel.load` opens one.

    Attributes:
        contract: lengths, padding side and activation, frozen into the folder.
        transformer: the Hugging Face model with its head.
        tokenizer: the Hugging Face tokenizer.
        source: the folder it was loaded from.
        chat: whether the folder reads pairs through its tokenizer's chat template.
    """

    def __init__(
        self,
        transformer: nn.Module,
        tokenizer: Any,
        contract: Contract,
        *,
        autocast: torch.dtype | None = None,
        source: str = "",
        chat: bool = False,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.contract = contract
        self.autocast = autocast
        self.source = source
        self.chat = chat
        self._tokenize = pair_tokenizer(tokenizer, contract)
        config: Any = transformer.config
        self._wide_mask = sees_all_alike(transformer)
        # As transformers does: a tokenizer that declares no token types leaves them all 0.
        declared = "token_type_ids" in tokenizer.model_input_names
        several = int(getattr(config, "type_vocab_size", 0) or 0) > 1
        self._types = declared and (several or config.model_type in SEGMENTED)
        self._special_types = self._tokenize.special_types() if self._types else {}

    @classmethod
    def load(
        cls,
        model: CrossEncoderSettings | str | Path,
        *,
        activation: Literal["identity", "sigmoid"] | None = None,
        fresh_head: bool = False,
        seed: int = 0,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> CrossEncoderModel:
        """Returns the reranker of a raydist, sentence-transformers or plain Hugging Face folder.

        Args:
            model: its settings, or its folder, finished training run, or hub name.
            activation: what consumers apply to the logits for a score (`forward` gives logits).
            fresh_head: start from a random head where the folder has none (to train it).
            seed: of the fresh head and the LoRA matrices.
            device: where to put it; None = an accelerator if there is one.
            settings: fields of `CrossEncoderSettings` beside the path, such as `max_length=256`.

        Raises:
            ConfigError: a value contradicts the folder, or is out of bounds.
            ArtifactError: the folder has no head (and none may be made), or no safetensors.
            DataError: there is no such folder or name.
        """
        spec = CrossEncoderSettings.of(model, **settings)
        if spec.attention == VARLEN:
            raise ConfigError("attention=varlen: a reranker's head reads padded rows; leave it out")
        folder = resolve_folder(spec.path or "")
        read = read_reranker(folder, spec, activation=activation, fresh_head=fresh_head)
        tokenizer, contract = read.tokenizer, read.contract
        transformer = load_backbone(
            folder,
            spec,
            head=True,
            fresh_head=fresh_head,
            attention=frozen_attention(folder),
            pad_token_id=tokenizer.pad_token_id,
            seed=seed,
        )
        check_vocabulary(tokenizer, transformer, folder)
        if read.any_side and has_position_table(transformer):
            contract = replace(contract, padding_side="right")
        _check(contract, transformer)
        autocast = torch.bfloat16 if spec.half_autocast else None
        reranker = cls(
            transformer, tokenizer, contract, autocast=autocast, source=str(folder), chat=read.chat
        )
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        reranker = reranker.to(device).eval()
        pairs = reranker._tokenize(["a"] * len(PROBE), PROBE)

        def output(rows: Sequence[int]) -> Tensor:
            inputs = reranker.pad([pairs[row] for row in rows])
            return reranker.outputs({name: each.to(device) for name, each in inputs.items()})

        check_outputs(
            reranker, reranker.transformer, output, spec, read.config.model_type, score=True
        )
        if spec.compile:
            compiled([reranker.transformer])
        return reranker

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def tokenize(self, queries: Sequence[str], documents: Sequence[str]) -> list[Pair]:
        """Returns each pair's token ids with its segment boundary, truncated, unpadded.

        Raises:
            ConfigError: the folder reads pairs through a chat template (`ChatPrompt` does).
        """
        check_trainable(self.chat, self.source)
        return self._tokenize(queries, documents)

    def pad(self, pairs: Sequence[Pair], multiple: int = 1) -> dict[str, Tensor]:
        """Returns `input_ids`, `attention_mask` (and `token_type_ids`) [B, T] on the CPU."""
        return pad_pairs(
            pairs,
            filler=self.tokenizer.pad_token_id,
            side=self.contract.padding_side,
            types=self._types,
            special_types=self._special_types,
            multiple=multiple,
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the logits [B] in float32 (float64 for float64 weights).

        The attention mask may be left out where nothing is padded, which is faster.
        """
        device = inputs["input_ids"].device.type
        mask_BT = inputs.get("attention_mask")
        if mask_BT is not None and device != "cpu" and self._wide_mask:
            causal = is_causal(self.transformer.config)
            inputs = {**inputs, "attention_mask": wide_mask(mask_BT, causal)}
        with torch.autocast(device, self.autocast, enabled=self.autocast is not None):
            logits_B1: Tensor = self.transformer(**inputs).logits
        exact = torch.promote_types(logits_B1.dtype, torch.float32)
        return logits_B1.squeeze(-1).to(exact)

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the logits and, beside them, the means of the last hidden states [B, 1 + D].

        A head that is still to be trained hides what its transformer does.
        """
        hidden: list[Tensor] = []
        base: Any = getattr(self.transformer, "get_base_model", lambda: self.transformer)()
        hook = base.base_model.register_forward_hook(
            lambda _, __, out: hidden.append(out[0].detach())
        )
        try:
            logits_B: Tensor = self(inputs)
        finally:
            hook.remove()
        if not hidden:
            return logits_B[:, None]
        hidden_BTD, mask_BT = hidden[0].to(logits_B.dtype), inputs["attention_mask"]
        if hidden_BTD.shape[1] == mask_BT.shape[1]:
            hidden_BTD = hidden_BTD * (mask_BT / mask_BT.sum(1, keepdim=True))[..., None]
        return torch.cat([logits_B[:, None], hidden_BTD.sum(1)], 1)

    def merged(self) -> CrossEncoderModel:
        """Returns a copy on the CPU with LoRA matrices in the weights; itself without any."""
        whole = merged(self.transformer)
        if whole is self.transformer:
            return self
        return CrossEncoderModel(
            whole, self.tokenizer, self.contract, autocast=self.autocast, source=self.source
        ).eval()

    def save_adapters(self, folder: Path) -> None:
        """Writes the adapters beside the merged weights in a folder."""
        if hasattr(self.transformer, "merge_and_unload"):
            save_adapters(self.transformer, folder)

    def save(
        self,
        folder: str | Path,
        *,
        weights: Callable[[Any, Path], None] = save_transformer,
        **provenance: Any,
    ) -> None:
        """Writes a folder that raydist and sentence-transformers' CrossEncoder score alike with.

        Args:
            folder: created if missing.
            weights: writes a transformer into a folder.
            provenance: further JSON values for `raydist.json`.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights(self.transformer, folder)
        if config := read_json(folder / "config.json"):
            config["sentence_transformers"] = {
                "activation_fn": _ACTIVATIONS[self.contract.activation],
                "version": "5.0.0",
            }
            text = json.dumps(config, indent=2) + "\n"
            (folder / "config.json").write_text(text, encoding="utf-8")
        if prompt := self.contract.query_instruction:
            activation = _ACTIVATIONS[self.contract.activation]
            write_st_reranker(folder, prompt, activation)
        self.tokenizer.padding_side = self.contract.padding_side
        # sentence-transformers would read pairs through it.
        self.tokenizer.chat_template = None
        save_tokenizer(self.tokenizer, folder, self.contract.document_max_length)
        provenance |= attention_of(self.transformer)
        replace(self.contract, kind="crossencoder").write(folder, **provenance)


def _side(transformer: Any) -> Literal["left", "right"] | None:
    """Returns the side of padding that a head needs; None where it finds the last token itself."""
    children = dict(transformer.named_modules())
    if "score" in children:
        return "right" if has_position_table(transformer) else None
    last = "sequence_summary" in children and transformer.config.summary_type == "last"
    return "left" if last else "right"


def _check(contract: Contract, transformer: Any) -> None:
    positions = position_limit(transformer.config)
    needed = _side(transformer)
    if contract.padding_side != (needed or contract.padding_side):
        raise ConfigError(
            f"model.padding_side={contract.padding_side}: expected {needed} for "
            f"{transformer.config.model_type}, whose head reads "
            f"{'the first' if needed == 'right' else 'the last'} place"
        )
    if not 5 <= contract.document_max_length <= positions:
        raise ConfigError(
            f"model.max_length={contract.document_max_length}: expected 5 to {positions}"
        )
    if not 0 <= contract.query_max_length <= contract.document_max_length - 4:
        raise ConfigError(
            f"model.query_max_length={contract.query_max_length}: expected 0 (no cap) to "
            f"{contract.document_max_length - 4} (model.max_length less room for the document)"
        )
