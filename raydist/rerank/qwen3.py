"""Qwen3Reranker: a causal language model that answers "yes" or "no".

The score is P(yes) = softmax over the logits of "no" and "yes" at the last position, which is
sigmoid(h . (W_yes - W_no)): the vocabulary's other 150,000 logits are never computed. Keys and
values of a query's shared prefix are computed once and kept in a small cache (`prefix.py`).
Released models: Qwen/Qwen3-Reranker-0.6B, -4B and -8B; or any local folder.

Shapes: n rows, T tokens, D hidden dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from raydist.errors import ArtifactError, ConfigError
from raydist.models.backbone import (
    DTYPES,
    load_config,
    load_tokenizer,
    max_positions,
    quiet,
    resolve_folder,
)
from raydist.rerank.device import batch_tokens_for, pick_dtype, prepare_device
from raydist.rerank.engine import Engine
from raydist.rerank.packed_decoder import can_pack, last_hidden
from raydist.rerank.prefix import PrefixCache
from raydist.rerank.prompt import Prompt
from raydist.rerank.released import PREFIX, RELEASED, SUFFIX, TASK
from raydist.rerank.rows import Encoded, Options, Row


def check_name(name: str | Path) -> str:
    """Returns a released name or a local folder's path; raises ConfigError for another name."""
    if str(name) in RELEASED or Path(name).is_dir():
        return str(name)
    raise ConfigError(
        f"reranker.model={name}: neither a local folder nor one of {', '.join(RELEASED)}"
    )


class Qwen3Scorer:
    """A Qwen3 reranker behind the scorer engine.

    Args:
        model: the causal language model.
        tokenizer: its fast tokenizer.
        max_length: the most tokens of a prompt, prefix and suffix included.
        task: the instruction where a request has none.
        prefix: the prompt's beginning.
        suffix: the prompt's end.
        share_prefix: whether keys and values of what comes before the document are shared.
        prefixes: how many prefixes' keys and values are kept.
        packed: run without padding, on a CPU.
        name: how answers name the model.
    """

    sigmoid = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        max_length: int = 8192,
        task: str = TASK,
        prefix: str = PREFIX,
        suffix: str = SUFFIX,
        share_prefix: bool = True,
        prefixes: int = 16,
        packed: bool = False,
        name: str = "",
    ) -> None:
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        yes, no = _single(backend, "yes"), _single(backend, "no")
        self.name = name
        self.prompt = Prompt(
            backend,
            max_length=max_length,
            task=task,
            prefix=prefix,
            suffix=suffix,
            share=share_prefix,
        )
        self.model: Any = model
        weight = model.get_output_embeddings().weight
        # The difference of two rows, in float32: what the softmax over (no, yes) needs.
        self._direction_D = weight[yes].detach().float() - weight[no].detach().float()
        self._pad = tokenizer.pad_token_id or 0
        self.packed = packed and model.device.type == "cpu" and can_pack(model.base_model)
        self.prefixes = PrefixCache(model.base_model, size=prefixes)

    def encode(self, query: str, documents: Sequence[str], options: Options) -> Encoded:
        """Returns the rows of a query's documents."""
        return self.prompt.encode(query, documents, options)

    def forward(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns logit(yes) - logit(no) of each row, float32 [n].

        Rows are padded on the right: a causal model's real tokens never see what follows them, so
        no mask is needed, and each row's last real position is read.
        """
        base = self.model.base_model
        if self.packed:
            with torch.inference_mode():
                last_nD = last_hidden(base, self.prefixes, rows)
                return (last_nD.float() @ self._direction_D).numpy()  # type: ignore[no-any-return]
        device = self.model.device
        lengths = torch.tensor([len(row) for row in rows])
        ids_nT = torch.full((len(rows), int(lengths.max())), self._pad)
        for place, row in enumerate(rows):
            ids_nT[place, : len(row)] = torch.tensor(row.tokens)
        with torch.inference_mode():
            shared = self.prefixes.inputs([row.prefix for row in rows], ids_nT.shape[1])
            hidden_nTD = base(input_ids=ids_nT.to(device), **shared).last_hidden_state
            last_nD = hidden_nTD[torch.arange(len(rows)), lengths - 1]
            logits_n = last_nD.float() @ self._direction_D
            return logits_n.cpu().numpy()  # type: ignore[no-any-return]


class Qwen3Reranker:
    """Reranks with a Qwen3 reranker; satisfies the `Reranker` protocol.

    Args:
        model: a released name or a local folder.
        max_length: the most tokens of a prompt, prefix and suffix included.
        task: what the model is told to look for.
        prefix: the prompt's beginning.
        suffix: the prompt's end.
        share_prefix: compute what comes before the document once per query.
        device: "cpu", "cuda:0", ...; empty = what is there.
        dtype: float32, bfloat16 or float16; empty = what suits the device.
        batch_tokens: the engine's budget; 0 = what suits the device.
        packed: run without padding where architecture and device allow it.
        threads: how many threads tokenise.
        options: truncation and caps of every request.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        max_length: int = 8192,
        task: str = TASK,
        prefix: str = PREFIX,
        suffix: str = SUFFIX,
        share_prefix: bool = True,
        device: str = "",
        dtype: str = "",
        batch_tokens: int = 0,
        packed: bool = True,
        threads: int = 2,
        options: Options = Options(),  # noqa: B008  frozen
    ) -> None:
        where = prepare_device(device)
        folder = resolve_folder(check_name(model))
        config = load_config(folder)
        if not any(a.endswith("ForCausalLM") for a in config.architectures or []):
            raise ArtifactError(
                f"reranker.model={model}: {config.architectures} is not a causal language model; "
                "use reranker.kind=cross_encoder for a model with a scoring head"
            )
        tokenizer = load_tokenizer(folder)
        most = max_positions(config, tokenizer)
        if not 0 < max_length <= most:
            raise ConfigError(f"reranker.max_length={max_length}: expected 1 to {most}")
        with quiet():
            network = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=DTYPES[pick_dtype(dtype, where)],
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        self.options = options
        self.scorer = Qwen3Scorer(
            network.to(where).eval(),
            tokenizer,
            max_length=max_length,
            task=task,
            prefix=prefix,
            suffix=suffix,
            share_prefix=share_prefix,
            packed=packed,
            name=str(model),
        )
        budget = batch_tokens or batch_tokens_for(where, packed=self.scorer.packed)
        self.engine = Engine(self.scorer, batch_tokens=budget, threads=threads)

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Returns P(yes) per document; lists may be ragged or empty."""
        return self.engine.score(batch, self.options)


def _single(tokenizer: Tokenizer, word: str) -> int:
    ids = tokenizer.encode(word, add_special_tokens=False).ids
    if len(ids) != 1:
        raise ArtifactError(
            f"reranker.model: its tokenizer cuts {word!r} into {len(ids)} tokens; a Qwen3 reranker "
            "answers with one token"
        )
    return int(ids[0])
