"""The prompt of a reranker whose folder brings a chat template with the roles query and document.

The template is rendered once, around marks; texts are put in the places of the marks. Between its
special tokens each stretch is tokenised as one text, as the tokenizer itself does it, so that ids
equal those of the whole; special tokens that a text spells out are read letter by letter.

What comes before the document is shared by a query's candidates, as far as the ids agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer

from raydist.errors import ArtifactError, ConfigError
from raydist.models.folders.sentence_transformers import CONFIG, read_json
from raydist.models.texts.clip import Clipper
from raydist.reranking.rows import EncodedDocuments, Options, Row, TooLong, fit

_LEAST = 32
"""Tokens that query and document have at least, together."""
_QUERY, _DOCUMENT, _TASK = "\ue000query\ue001", "\ue000document\ue001", "\ue000task\ue001"
_PROBES = (("heron", "A bird"), ("two words", "0"), ("q", "1 2 3 4\nend."), (" a ", "\nb "))
_TOWER = "sentence_bert_config.json"


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """A template around marks: special tokens' ids, and the stretches of text between them."""

    before: list[int | str]
    stretch: str
    """Holds the document's mark."""
    after: list[int | str]


class ChatPrompt:
    """Turns queries and documents into rows of token ids.

    Args:
        folder: the model's, for messages and for what sentence-transformers saved beside it.
        tokenizer: the model's, with its chat template.
        backend: its backend without padding and truncation, for this prompt alone.
        max_length: most tokens of a row.
        share: whether rows share what comes before the document.

    Raises:
        ArtifactError: the template shows no pair, or the folder asks for what is not supported.
    """

    def __init__(
        self, folder: Path, tokenizer: Any, backend: Tokenizer, max_length: int, share: bool
    ) -> None:
        tower = read_json(folder / _TOWER)
        own = int(tower.get("max_seq_length") or max_length)
        self.max_length = min(max_length, own)
        self.share = share
        self._backend = backend
        backend.encode_special_tokens = True
        self._clip = Clipper(backend)
        self._folder = folder
        self._tokenizer = tokenizer
        self._settings = _template_settings(folder, tower)
        saved = read_json(folder / CONFIG)
        self.task = str((saved.get("prompts") or {}).get(saved.get("default_prompt_name")) or "")
        # Either contents are texts, or lists of parts that are.
        self._structured = False
        self._structured = _QUERY not in self._render(False, _QUERY, _DOCUMENT)
        special = [t.content for t in backend.get_added_tokens_decoder().values() if t.special]
        ids = ((each, backend.token_to_id(each)) for each in special)
        self._special = {each: token for each, token in ids if token is not None}
        self._skeletons = {False: self._skeleton(False)}
        if _TASK in self._render(True, _QUERY, _DOCUMENT, _TASK):
            self._skeletons[True] = self._skeleton(True)
        elif self.task:
            raise ArtifactError(f"{folder}: its chat template does not show its own prompt")

    def _render(self, system: bool, query: str, document: str, task: str = "") -> str:
        roles = [("system", task)] * system + [("query", query), ("document", document)]
        messages = [
            {
                "role": role,
                "content": [{"type": "text", "text": text}] if self._structured else text,
            }
            for role, text in roles
        ]
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, tokenize=False, **self._settings
            )
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise ArtifactError(
                f"{self._folder}: its chat template takes no query and document ({error})"
            ) from None
        return str(rendered)

    def _skeleton(self, system: bool) -> _Skeleton:
        """Returns the template cut at its special tokens.

        Raises:
            ArtifactError: texts do not appear as they are, once, the document last.
        """
        whole = self._render(system, _QUERY, _DOCUMENT, _TASK)
        marks = re.findall("\ue000.*?\ue001", whole)
        if (
            sorted(marks) != sorted([_QUERY, _DOCUMENT] + [_TASK] * system)
            or marks[-1] != _DOCUMENT
        ):
            raise ArtifactError(
                f"{self._folder}: its chat template must show query and document once, the "
                "document last"
            )
        cut = re.split(f"({'|'.join(map(re.escape, self._special))})", whole)
        pieces: list[int | str] = [self._special.get(piece, piece) for piece in cut if piece]
        where = next(i for i, each in enumerate(pieces) if _DOCUMENT in str(each))
        skeleton = _Skeleton(pieces[:where], str(pieces[where]), pieces[where + 1 :])
        # Many templates strip the texts.
        self._strip = False
        self._strip = not self._agrees(skeleton, system)
        if self._strip and not self._agrees(skeleton, system):
            raise ArtifactError(
                f"{self._folder}: its chat template changes the texts, or its tokenizer reads them "
                "otherwise beside special tokens; that is not supported"
            )
        return skeleton

    def _agrees(self, skeleton: _Skeleton, system: bool) -> bool:
        """Returns whether ids put together equal those of rendered prompts."""
        pieces = [*skeleton.before, skeleton.stretch, *skeleton.after]
        for query, document in _PROBES:
            self._backend.encode_special_tokens = False
            expected = self._ids(self._render(system, query, document, "Find."))
            self._backend.encode_special_tokens = True
            texts = {_TASK: "Find.", _QUERY: self._text(query), _DOCUMENT: self._text(document)}
            if self._joined(pieces, texts) != expected:
                return False
        return True

    def _text(self, text: str) -> str:
        return text.strip() if self._strip else text

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def _joined(self, pieces: Sequence[int | str], texts: Mapping[str, str]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            ids += [piece] if isinstance(piece, int) else self._ids(_filled(piece, texts))
        return ids

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        """Returns the rows of a query's documents.

        Raises:
            TooLong: a text does not fit and `options.truncation` is "error".
            ConfigError: an instruction for a template that shows none, or one that leaves no room.
        """
        task = self._text(self.task if options.instruction is None else options.instruction)
        if task and True not in self._skeletons:
            raise ConfigError(f"instruction={task!r}: {self._folder}'s chat template shows none")
        skeleton = self._skeletons[bool(task)]
        bare = [*skeleton.before, skeleton.stretch, *skeleton.after]
        taken = len(self._joined(bare, {_TASK: task, _QUERY: "", _DOCUMENT: ""}))
        if self.max_length - taken < _LEAST:
            raise ConfigError(
                f"reranker.max_length={self.max_length}: instruction and template take {taken} "
                f"tokens; leave at least {_LEAST} for query and document"
            )
        query, lost = self._cut(self._text(query), (self.max_length - taken) // 2, options)
        texts = {_TASK: task, _QUERY: query}
        before = self._joined(skeleton.before, texts)
        left, right = (_filled(part, texts) for part in skeleton.stretch.split(_DOCUMENT))
        after = self._joined(skeleton.after, {})
        one, two = (self._ids(left + document + right) for document in ("0", "a b\nc 1 2 3 4"))
        head = one[: _same(one, two)]
        tail = one[len(one) - _same(one[::-1], two[::-1]) :]
        stretches = [left + self._text(document) for document in documents]
        if read := options.tokens_read(self.max_length):
            stretches = self._clip(stretches, len(one) + read)
        encodings = self._backend.encode_batch_fast(
            [stretch + right for stretch in stretches], add_special_tokens=False
        )
        rows: list[list[Row]] = []
        truncated: list[bool] = []
        for index, encoding in enumerate(encodings):
            ids = encoding.ids
            begin, end = _same(ids, head), len(ids) - _same(ids[::-1], tail[::-1])
            first, last = [*before, *ids[:begin]], [*ids[end:], *after]
            room = self.max_length - len(first) - len(last)
            pieces, short = fit(ids[begin:end], room, index, options)
            # A document whose first letters join what stands before it shares nothing.
            prefix = tuple(first) if self.share and begin == len(head) else ()
            bodies = [[*piece, *last] for piece in pieces]
            rows.append([Row(b, prefix=prefix) if prefix else Row([*first, *b]) for b in bodies])
            truncated.append(short or lost)
        tokens = sum(len(row) + len(row.prefix) for each in rows for row in each)
        return EncodedDocuments(rows, truncated, tokens)

    def _cut(self, query: str, most: int, options: Options) -> tuple[str, bool]:
        """Returns the query cut to its first tokens, and whether it was longer."""
        encoding = self._backend.encode(query, add_special_tokens=False)
        if len(encoding) <= most:
            return query, False
        if options.truncation == "error":
            raise TooLong("query", len(encoding), most)
        return query[: encoding.offsets[most - 1][1]], True


def _filled(piece: str, texts: Mapping[str, str]) -> str:
    """Returns a stretch with its marks replaced; marks that a text spells stay as they are."""
    return re.sub("\ue000(?:query|document|task)\ue001", lambda mark: texts[mark[0]], piece)


def _same(one: Sequence[int], two: Sequence[int]) -> int:
    """Returns how many ids the beginnings have in common."""
    return sum(1 for _ in takewhile(bool, map(int.__eq__, one, two)))


def _template_settings(folder: Path, tower: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the template is rendered with beside the messages.

    Raises:
        ArtifactError: a setting of sentence-transformers that would be ignored.
    """
    modalities = tower.get("modality_config") or {}
    if modalities and "message" not in modalities:
        raise ArtifactError(
            f"{folder / _TOWER}: reads pairs without a chat template; not supported"
        )
    processing = dict(tower.get("processing_kwargs") or {})
    settings = dict(processing.pop("chat_template", None) or {})
    settings.pop("restore_suffix", None)  # the suffix is never cut
    if left := [*processing, *({"padding", "truncation", "max_length"} & set(settings))]:
        raise ArtifactError(f"{folder / _TOWER}: processing_kwargs {left[0]} is not supported")
    return settings
