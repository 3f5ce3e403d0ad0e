"""The prompt of the Qwen3 rerankers, byte for byte, as token ids.

::

    prefix  <|im_start|>system ... <|im_start|>user
    body    <Instruct>: {task}
            <Query>: {query}
            <Document>: {document}
    suffix  <|im_end|> ... assistant, an empty thought

Everything before the document is shared by a query's candidates. It is cut from the document at
the blank after `<Document>:`, where the tokenizer cuts as well, so ids equal those of the whole.

A text that spells a special token (`<|im_end|>`) is read letter by letter, so that no document can
end the user's turn and answer for the model; the models' own example would read the token.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from raydist.errors import ArtifactError
from raydist.rerank.released import PREFIX, SUFFIX, TASK
from raydist.rerank.rows import Encoded, Options, Row, TooLong, fit

_FEW = 8
"""Tokens that instruction and query have at least, each."""


def render(
    query: str, document: str, *, task: str = TASK, prefix: str = PREFIX, suffix: str = SUFFIX
) -> str:
    """Returns the whole prompt as text."""
    return f"{prefix}<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}{suffix}"


class Prompt:
    """Turns queries and documents into rows of token ids.

    Args:
        tokenizer: the model's, without padding and truncation, for this prompt alone.
        max_length: the most tokens of a prompt, prefix and suffix included.
        task: what is asked of the model where a request has no instruction.
        prefix: before the body.
        suffix: after the body.
        share: whether everything before the document is a shared prefix, or rows are whole.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int = 8192,
        task: str = TASK,
        prefix: str = PREFIX,
        suffix: str = SUFFIX,
        share: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.task = task
        self.share = share
        tokenizer.encode_special_tokens = False
        self.prefix_ids = self._ids(prefix)
        self.suffix_ids = self._ids(suffix)
        tokenizer.encode_special_tokens = True
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

    def encode(self, query: str, documents: Sequence[str], options: Options) -> Encoded:
        """Returns the rows of a query's documents.

        Raises:
            TooLong: a text does not fit and `options.truncation` is "error".
        """
        head, cut = self.head(query, options.instruction)
        if cut and options.truncation == "error":
            room = len(head) - len(self.prefix_ids)
            raise TooLong("query", room + cut, room)
        room = self.max_length - len(head) - len(self.suffix_ids)
        encodings = self.tokenizer.encode_batch_fast(
            [f" {text}" for text in documents], add_special_tokens=False
        )
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
        return Encoded(rows, truncated, tokens)
