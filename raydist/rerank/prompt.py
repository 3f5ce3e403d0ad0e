"""The prompt of the Qwen3 rerankers, byte for byte, as token ids.

::

    prefix  <|im_start|>system ... <|im_start|>user
    body    <Instruct>: {task}
            <Query>: {query}
            <Document>: {document}
    suffix  <|im_end|> ... assistant, an empty thought

Everything before the document is shared by a query's candidates. It is cut from the document at
the blank after `<Document>:`, where the tokenizer cuts as well, so ids equal those of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from raydist.errors import ArtifactError
from raydist.rerank.rows import Encoded, Options, Row, fit

__all__ = ["PREFIX", "SUFFIX", "TASK", "Prompt", "render"]

TASK = "Given a search query, retrieve relevant concepts that match the query."
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def render(
    query: str, document: str, *, task: str = TASK, prefix: str = PREFIX, suffix: str = SUFFIX
) -> str:
    """Returns the whole prompt as text."""
    return f"{prefix}<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}{suffix}"


class Prompt:
    """Turns queries and documents into rows of token ids.

    Args:
        tokenizer: the model's, without padding and truncation.
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
        self.prefix_ids = self._ids(prefix)
        self.suffix_ids = self._ids(suffix)
        self.room = max_length - len(self.prefix_ids) - len(self.suffix_ids)
        if self.room < 16:
            raise ArtifactError(
                f"reranker.max_length={max_length}: prefix and suffix take "
                f"{max_length - self.room} tokens; leave at least 16 for query and document"
            )
        if self._ids("<Document>:") + self._ids(" a b") != self._ids("<Document>: a b"):
            raise ArtifactError(
                "reranker.model: its tokenizer joins '<Document>:' with the document, so it is not "
                "a Qwen3 reranker's"
            )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def head(self, query: str, instruction: str | None = None) -> tuple[int, ...]:
        """Returns the ids of everything before the document.

        The query is cut where the body's head would take more than half of the room.
        """
        task = self.task if instruction is None else instruction
        start = f"<Instruct>: {task}\n<Query>: "
        ids = self._ids(f"{start}{query}\n<Document>:")
        if len(ids) > self.room // 2:
            end = self._ids("\n<Document>:")
            ids = self._ids(start + query)[: self.room // 2 - len(end)] + end
        return (*self.prefix_ids, *ids)

    def encode(self, query: str, documents: Sequence[str], options: Options) -> Encoded:
        """Returns the rows of a query's documents.

        Raises:
            TooLong: a document does not fit and `options.truncation` is "error".
        """
        head = self.head(query, options.instruction)
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
            truncated.append(lost)
            if self.share:
                rows.append([Row(tail, prefix=head) for tail in tails])
            else:
                rows.append([Row([*head, *tail]) for tail in tails])
        return Encoded(rows, truncated, tokens)
