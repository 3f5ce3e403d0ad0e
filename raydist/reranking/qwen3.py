"""Qwen3Reranker: a causal language model that answers "yes" or "no".

The score is P(yes) = softmax over the logits of "no" and "yes" at the last position, which is
sigmoid(h . (W_yes - W_no)): the vocabulary's other 150,000 logits are never computed. Keys and
values of a query's shared prefix are computed once and cached (`prefix.py`).
Released models: Qwen/Qwen3-Reranker-0.6B, -4B and -8B; or any local folder. One that declares its
answers and a chat template as sentence-transformers does (LogitScore) is read as declared.

The prompt, byte for byte as the models were trained::

    prefix  <|im_start|>system ... <|im_start|>user
    body    <Instruct>: {task}
            <Query>: {query}
            <Document>: {document}
    suffix  <|im_end|> ... assistant, an empty thought

Everything before the document is shared by a query's candidates. It is cut from the document at
the blank after `<Document>:`, where the tokenizer cuts as well, so ids equal those of the whole.

A text that spells a special token (`<|im_end|>`) is read letter by letter, so that no document can
end the user's turn and answer for the model; the models' own example would read the token.

Shapes: n rows, T tokens, D hidden dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from raydist.errors import ArtifactError, ConfigError
from raydist.models.architecture import load_config, max_positions
from raydist.models.backbone import DTYPES, resolve_folder
from raydist.models.folders.weights import load_weights
from raydist.models.inference import most_tokens
from raydist.models.packed_attention import VARLEN
from raydist.models.quiet import quiet
from raydist.models.texts.clip import Clipper
from raydist.models.texts.tokenizer import load_tokenizer
from raydist.models.trial import TRIED
from raydist.reranking.answers import AnswerHead, Answers, declared_answers
from raydist.reranking.chat_prompt import ChatPrompt
from raydist.reranking.decoder import choose
from raydist.reranking.neural import NeuralReranker, load_settings
from raydist.reranking.prefix import PrefixCache, can_share
from raydist.reranking.rows import EncodedDocuments, Options, Row, TooLong, fit
from raydist.reranking.spec import PREFIX, Qwen3Spec

_FEW = 8
"""Tokens that instruction and query have at least, each."""


class Prompt:
    """Turns queries and documents into rows of token ids.

    Args:
        tokenizer: the model's, without padding and truncation, for this prompt alone.
        spec: the prompt's parts and its length. Without `share_prefix` rows are whole prompts.
    """

    def __init__(self, tokenizer: Tokenizer, spec: Qwen3Spec) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length = spec.max_length
        self.task = spec.instruction
        self.share = spec.share_prefix
        if spec.prefix == PREFIX and tokenizer.token_to_id("<|im_start|>") is None:
            raise ArtifactError(
                f"reranker.model={spec.model}: its tokenizer has no <|im_start|>, so it is not a "
                "Qwen3 reranker's; set reranker.prefix= and reranker.suffix= to the prompt that it "
                "was trained with"
            )
        tokenizer.encode_special_tokens = False
        self.prefix_ids = self._ids(spec.prefix)
        self.suffix_ids = self._ids(spec.suffix)
        tokenizer.encode_special_tokens = True
        self._clip = Clipper(tokenizer)
        self.room = max_length - len(self.prefix_ids) - len(self.suffix_ids)
        self._bare = len(self._ids("<Instruct>: \n<Query>: \n<Document>:"))
        least = 2 * (self._bare + 2 * _FEW)
        if self.room < least:
            raise ArtifactError(
                f"reranker.max_length={max_length}: prefix and suffix take "
                f"{max_length - self.room} tokens; leave at least {least} for instruction, query "
                "and document"
            )
        if self._ids("<Document>:") + self._ids(" a b") != self._ids("<Document>: a b"):
            raise ArtifactError(
                "reranker.model: its tokenizer joins '<Document>:' with the document, so it is not "
                "a Qwen3 reranker's"
            )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _first(self, text: str, tokens: int) -> str:
        """Returns as much of a text as its first tokens hold."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return text if len(encoding) <= tokens else text[: encoding.offsets[tokens - 1][1]]

    def head(self, query: str, instruction: str | None = None) -> tuple[tuple[int, ...], int]:
        """Returns the ids of everything before the document, and how many tokens were cut off it.

        Instruction and query are cut where the body's head would take more than half of the room:
        first the instruction, down to half of that, or to what the query leaves of it.
        """
        task = self.task if instruction is None else instruction
        ids = whole = self._ids(f"<Instruct>: {task}\n<Query>: {query}\n<Document>:")
        half = self.room // 2
        if len(ids) > half:
            free = half - self._bare
            task = self._first(task, max(free // 2, free - len(self._ids(query))))
            end = self._ids("\n<Document>:")
            ids = self._ids(f"<Instruct>: {task}\n<Query>: {query}")[: half - len(end)] + end
        return (*self.prefix_ids, *ids), len(whole) - len(ids)

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        """Returns the rows of a query's documents.

        Raises:
            TooLong: a text does not fit and `options.truncation` is "error".
        """
        head, cut = self.head(query, options.instruction)
        if cut and options.truncation == "error":
            room = len(head) - len(self.prefix_ids)
            raise TooLong("query", room + cut, room)
        room = self.max_length - len(head) - len(self.suffix_ids)
        texts = [f" {text}" for text in documents]
        if read := options.tokens_read(room):
            texts = self._clip(texts, read)
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        rows: list[list[Row]] = []
        truncated: list[bool] = []
        tokens = 0
        for index, encoding in enumerate(encodings):
            pieces, lost = fit(encoding.ids, room, index, options)
            tails = [[*piece, *self.suffix_ids] for piece in pieces]
            tokens += sum(len(head) + len(tail) for tail in tails)
            truncated.append(lost or cut > 0)
            if self.share:
                rows.append([Row(tail, prefix=head) for tail in tails])
            else:
                rows.append([Row([*head, *tail]) for tail in tails])
        return EncodedDocuments(rows, truncated, tokens)


class Qwen3Scorer:
    """A Qwen3 reranker behind the scorer engine.

    Args:
        name: the model's name in messages.
        model: the causal language model; its output matrix is replaced.
        answers: the answers' tokens.
        prompt: texts to rows.
        attention: as `raydist.reranking.decoder.choose` takes it.
        packed: run without padding where architecture and device allow it.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        answers: Answers,
        prompt: Prompt | ChatPrompt,
        *,
        attention: str = "sdpa",
        packed: bool = True,
    ) -> None:
        self.name = name
        self.sigmoid = answers.sigmoid
        self.prompt = prompt
        self.max_length = prompt.max_length
        self.model: Any = model
        self._two = answers.irrelevant is not None
        head = AnswerHead(model.get_output_embeddings(), answers).to(model.device).eval()
        model.set_output_embeddings(head)
        rows = [row for query in TRIED for row in self._rows(query)]
        self.decoder = choose(model, head, attention, rows, packed=packed)
        self.packed = self.decoder.packed
        self.prefixes = PrefixCache(
            self.decoder.prefix_layers,
            pass_tokens=most_tokens(model.device, packed=self.packed),
        )

    def _rows(self, query: str) -> list[Row]:
        encoded = self.prompt.encode(query, TRIED, Options())
        return [row for rows in encoded.rows for row in rows]

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        """Returns the rows of a query's documents."""
        return self.prompt.encode(query, documents, options)

    def collate(self, rows: Sequence[Row]) -> Any:
        """Returns rows as the model takes them, on its device."""
        return self.decoder.collate(rows)

    @torch.inference_mode()
    def compute(self, batch: Any) -> np.ndarray:
        """Returns logit(yes) - logit(no) of collated rows, float32 [n]."""
        logits_nA = self.decoder.logits(batch, self.prefixes)
        margin_n = logits_nA[:, 0] - logits_nA[:, 1] if self._two else logits_nA[:, 0]
        return margin_n.cpu().numpy()

    def forward(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns logit(yes) - logit(no) of each row, float32 [n]."""
        return self.compute(self.collate(rows))


class Qwen3Reranker(NeuralReranker[Qwen3Scorer]):
    """Reranks with a Qwen3 reranker.

    Args:
        spec: the model, its prompt, and how it runs.
        packed: run without padding where architecture and device allow it.
        raw: scores are logits, without the sigmoid.
    """

    def __init__(self, spec: Qwen3Spec, *, packed: bool = True, raw: bool = False) -> None:
        settings = load_settings(spec)
        folder = resolve_folder(spec.model)
        config = load_config(folder, trust_remote_code=spec.trust_remote_code)
        if not any(a.endswith("ForCausalLM") for a in config.architectures or []):
            raise ArtifactError(
                f"reranker.model={spec.model}: {config.architectures} is not a causal language "
                "model; use reranker.kind=cross_encoder for a model with a scoring head"
            )
        declared = None if spec.template else declared_answers(folder, config)
        tokenizer = load_tokenizer(folder, config, trust_remote_code=spec.trust_remote_code)
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        most = max_positions(config, tokenizer)
        share = spec.share_prefix and can_share(config)
        prompt: Prompt | ChatPrompt
        if declared:
            length = min(spec.max_length, most)
            prompt = ChatPrompt(folder, tokenizer, backend, length, share)
        elif not 0 < spec.max_length <= most:
            raise ConfigError(f"reranker.max_length={spec.max_length}: expected 1 to {most}")
        else:
            prompt = Prompt(backend, replace(spec, share_prefix=share))
        answers = declared or Answers(_single_id(backend, "yes"), _single_id(backend, "no"))
        with quiet():
            network, _ = load_weights(
                AutoModelForCausalLM,
                folder,
                fresh_head=False,
                head=True,
                config=config,
                dtype=DTYPES[settings["dtype"]],
                attn_implementation=None if spec.attention in ("sdpa", VARLEN) else spec.attention,
                use_safetensors=True,
                trust_remote_code=spec.trust_remote_code,
                local_files_only=True,
            )
        network = network.to(settings["device"]).eval()
        scorer = Qwen3Scorer(
            spec.model, network, answers, prompt, attention=spec.attention, packed=packed
        )
        super().__init__(spec, scorer, network, raw=raw)

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Returns P(yes) per document; lists may be ragged or empty."""
        # Prefixes of earlier calls were computed in other company, which their last bits show.
        self.scorer.prefixes.clear()
        return super().score(batch)


def _single_id(tokenizer: Tokenizer, word: str) -> int:
    ids = tokenizer.encode(word, add_special_tokens=False).ids
    if len(ids) != 1:
        raise ArtifactError(
            f"reranker.model: its tokenizer cuts {word!r} into {len(ids)} tokens; a Qwen3 reranker "
            "answers with one token"
        )
    return int(ids[0])
