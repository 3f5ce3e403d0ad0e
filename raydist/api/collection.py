"""Test collections: a corpus, queries and judgements by one name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raydist.api.command import spoken_errors

if TYPE_CHECKING:
    from raydist.api.folders import Place
    from raydist.records import Qrels


@dataclass(frozen=True, slots=True, repr=False)
class Collection:
    """A corpus, its judged queries, and the judgements, as the verbs take them.

    >>> cats = Collection("cats", {"d1": "a cat", "d2": "a dog"}, {"q1": "cats"}, {"q1": {"d1": 1}})
    >>> cats
    Collection('cats': 1 query, 1 judgement)
    >>> corpus, queries, qrels = cats

    Attributes:
        name: of the collection, for messages.
        corpus: what `index` and `embed` take: paths, or an object.
        queries: `{id: text}`, those that are judged.
        qrels: `{query: {document: grade}}`.
    """

    name: str
    corpus: Any
    queries: Mapping[str, str]
    qrels: Qrels

    def __iter__(self) -> Iterator[Any]:
        return iter((self.corpus, self.queries, self.qrels))

    def __repr__(self) -> str:
        from raydist import log

        grades = sum(map(len, self.qrels.values()))
        counts = [log.count(len(self.queries), "query"), log.count(grades, "judgement")]
        return f"Collection({self.name!r}: {', '.join(counts)})"


@spoken_errors("raydist.collection")
def collection(place: Place, split: str = "test") -> Collection:
    """Opens a test collection: BEIR's folders, those of the Hugging Face hub, ir_datasets.

    >>> import json, pathlib, raydist as rd
    >>> folder = pathlib.Path("cats")
    >>> folder.mkdir()
    >>> _ = (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "text": "a cat"}))
    >>> _ = (folder / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "cats"}))
    >>> _ = (folder / "qrels.txt").write_text("q1 0 d1 1")
    >>> cats = rd.collection("cats")
    >>> index = rd.index(cats.corpus, "idx")
    >>> rd.compare({"bm25": index}, cats.queries, cats.qrels, ["RR"], tracking="none")["bm25", "RR"]
    1.0

    Args:
        place: a folder, or its URI (`hf://datasets/…`), with `corpus.jsonl`, `queries.jsonl` and
            `qrels/SPLIT.tsv` or `qrels.txt`, in any format that is read; `irds:ID`;
            `docstrings:PACKAGE`.
        split: whose judgements; ids of ir_datasets have their own.

    Raises:
        DataError: a part is missing, or cannot be read.
    """
    from raydist.data.collection import find_collection

    parts = find_collection(place, split)
    queries, qrels = parts.judged()
    texts = {query.query_id: query.text for query in queries}
    paths = parts.corpus.path
    return Collection(parts.name, paths[0] if len(paths) == 1 else list(paths), texts, qrels)
