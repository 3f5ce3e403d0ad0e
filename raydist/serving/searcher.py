"""Search over index folders: retrievers, fusion, texts, and the score of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raydist.protocols import Selective
from raydist.records import Document, Query, Run


class Texts(Protocol):
    """A document store."""

    def get(self, doc_ids: Sequence[str], /) -> Sequence[Document | None]:
        """Returns a document for each id, None where there is none."""
        ...


@dataclass(slots=True)
class Hit:
    """One found document with the score of each stage that saw it."""

    doc_id: str
    scores: dict[str, float]
    document: Document | None = None


class Searcher:
    """Searches one index or several.

    Args:
        retrievers: by the name that results show.
        stores: documents' texts; those that the first has not come from the next.
        fuse: turns several runs into one; needed for several retrievers.
    """

    def __init__(
        self,
        retrievers: Mapping[str, Selective],
        stores: Sequence[Texts] = (),
        fuse: Callable[[Sequence[Run], int], Run] | None = None,
    ) -> None:
        assert retrievers and (fuse is not None or len(retrievers) == 1)
        self.retrievers = dict(retrievers)
        self.stores = stores
        self.fuse = fuse

    def search(
        self, query: str, depth: int, ids: Sequence[str] | None = None
    ) -> tuple[list[Hit], dict[str, float]]:
        """Returns at most `depth` hits, best first, and the milliseconds of each stage.

        Args:
            query: what is asked.
            depth: how many documents each retriever gives.
            ids: only these may be found: the search is among them, not filtered afterwards.
        """
        asked = [Query("q", query)]
        timings: dict[str, float] = {}
        runs: list[Run] = []
        stages: list[tuple[str, Run]] = []
        for name, retriever in self.retrievers.items():
            begun = time.perf_counter()
            among = retriever if ids is None else retriever.only(ids)
            found = among.search(asked, depth)
            timings[name] = _ms(begun)
            runs.append(found)
            stages.append((name, found))
        last = runs[0]
        if self.fuse is not None and len(runs) > 1:
            begun = time.perf_counter()
            last = self.fuse(runs, depth)
            timings["fusion"] = _ms(begun)
            stages.append(("fusion", last))
        scores: dict[str, dict[str, float]] = {}
        for name, run in stages:
            for _, doc_ids, values in run:
                for doc_id, value in zip(doc_ids, values.tolist()):
                    scores.setdefault(doc_id, {})[name] = value
        order = [doc_id for _, doc_ids, _ in last for doc_id in doc_ids]
        begun = time.perf_counter()
        texts = self._texts(order)
        timings["texts"] = _ms(begun)
        return [Hit(d, scores[d], texts.get(d)) for d in order], timings

    def _texts(self, doc_ids: Sequence[str]) -> dict[str, Document]:
        """Returns the documents that a store has."""
        found: dict[str, Document] = {}
        for store in self.stores:
            missing = [doc_id for doc_id in doc_ids if doc_id not in found]
            found |= {d: text for d, text in zip(missing, store.get(missing)) if text is not None}
        return found

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Does `search` for `query`, `depth` and `ids` of a request; returns what may travel.

        `contents` is None where no store has the document.
        """
        hits, timings = self.search(request["query"], request["depth"], request.get("ids"))
        rows = [
            {
                "id": hit.doc_id,
                "scores": hit.scores,
                "title": hit.document.title if hit.document else None,
                "text": hit.document.text if hit.document else None,
                "contents": hit.document.contents if hit.document else None,
            }
            for hit in hits
        ]
        return {"hits": rows, "timings_ms": timings}


def _ms(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)
