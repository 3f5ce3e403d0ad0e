"""The route /v1/search over retrievers and a store of texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from raydist.records import Query, Run
from raydist.serving.errors import ServiceError
from raydist.serving.http import make_app
from raydist.serving.search import Searcher
from raydist.text.analyzer import Analyzer
from tests.serving.local import TEXTS, Store, Words, assert_envelope, client, local_client, service


def test_search_shows_every_stages_score_and_time() -> None:
    serving = client(searcher=Searcher({"words": Words(TEXTS)}, [Store(TEXTS)]))
    answer = serving.post("/v1/search", json={"query": "rain snow", "k": 2}).json()
    assert len(answer["results"]) == 2
    for rank, result in enumerate(answer["results"], 1):
        assert result["rank"] == rank
        assert set(result["scores"]) == {"words", "rerank"}
        assert result["score"] == result["scores"]["rerank"]
        assert result["text"] == TEXTS[result["id"]] and result["title"] == result["id"].upper()
    assert set(answer["timings_ms"]) == {"words", "texts", "rerank"}
    body = {"query": "rain snow", "rerank": False, "return_documents": False}
    plain = serving.post("/v1/search", json=body).json()
    assert [r["id"] for r in plain["results"]] == ["a", "b", "c"]
    assert "text" not in plain["results"][0]


def test_search_fuses_and_filters() -> None:
    def fuse(runs: Sequence[Run], k: int) -> Run:
        scores: dict[str, float] = {}
        for run in runs:
            for _, docs, values in run:
                for doc, value in zip(docs, values.tolist()):
                    scores[doc] = scores.get(doc, 0.0) + value
        best = sorted(scores, key=lambda d: -scores[d])[:k]
        return Run.from_lists([("q", best, [scores[d] for d in best])])

    searcher = Searcher({"x": Words(TEXTS), "y": Words(TEXTS)}, [Store(TEXTS)], fuse)
    serving = client(searcher=searcher)
    body = {"query": "rain snow", "rerank": False}
    answer = serving.post("/v1/search", json=body).json()["results"]
    assert answer[0]["scores"] == {"x": 2.0, "y": 2.0, "fusion": 4.0}
    answer = serving.post("/v1/search", json=body | {"ids": ["c", "b"]}).json()["results"]
    assert {r["id"] for r in answer} == {"b", "c"}
    assert serving.post("/v1/search", json=body | {"ids": []}).json()["results"] == []
    # The filter comes before the cut at k: the only one wanted is not among the first.
    last = body | {"ids": ["b", "nowhere"], "k": 1, "depth": 1}
    answer = serving.post("/v1/search", json=last).json()["results"]
    assert [r["id"] for r in answer] == ["b"] and answer[0]["scores"]["x"] == 1.0


def test_it_is_not_ready_where_a_retriever_fails() -> None:
    class Broken(Words):
        def search(self, queries: Sequence[Query], k: int) -> Run:
            raise ServiceError(503, "the disk is gone", "not_ready")

    searcher = Searcher({"words": Broken(TEXTS)}, [Store(TEXTS)])
    assert_envelope(client(searcher=searcher).get("/readyz"), 503)


def test_only_hits_with_texts_are_reranked_and_every_store_is_read() -> None:
    more = TEXTS | {"e": "rain rain rain rain"}
    stores = [Store({"a": TEXTS["a"]}), Store({"c": TEXTS["c"]})]
    serving = client(searcher=Searcher({"words": Words(more)}, stores))
    answer = serving.post("/v1/search", json={"query": "rain"}).json()
    results = answer["results"]
    assert [r["id"] for r in results[2:]] == ["e"]  # it has no text, so it stays behind the others
    assert [list(r["scores"]) for r in results] == [["words", "rerank"]] * 2 + [["words"]]
    assert {r["id"]: r.get("text") for r in results} == {
        "a": TEXTS["a"],
        "c": TEXTS["c"],
        "e": None,
    }
    assert answer["warnings"] == ["1 of 3 hits were not reranked: no served index has their texts"]
    without = client(searcher=Searcher({"words": Words(more)})).post(
        "/v1/search", json={"query": "rain"}
    )
    assert [list(r["scores"]) for r in without.json()["results"]] == [["words"]] * 3
    assert "rerank" not in without.json()["timings_ms"]


def test_the_limits_of_requests_cut_what_is_reranked_instead_of_refusing_it() -> None:
    searcher = Searcher({"words": Words(TEXTS)}, [Store(TEXTS)])
    body = {"query": "rain snow"}
    answer = client(searcher=searcher, max_documents=2).post("/v1/search", json=body).json()
    assert ["rerank" in r["scores"] for r in answer["results"]] == [True, True, False]
    assert "limits.max_documents" in answer["warnings"][0]
    short = client(searcher=searcher, max_text_chars=4).post("/v1/search", json=body).json()
    assert all("rerank" in r["scores"] for r in short["results"]) and short["warnings"] == []
    assert [r["text"] for r in short["results"]] == [TEXTS[r["id"]] for r in short["results"]]
    few = client(searcher=searcher, max_tokens=30).post("/v1/search", json=body).json()
    assert ["rerank" in r["scores"] for r in few["results"]] == [True, True, False]


def test_snippets_mark_the_querys_words_by_their_stems() -> None:
    texts = {"a": "Bread. <b>Häuser</b> 😀 stehen.", "b": "Ein Haus brennt im Haus.", "c": "x"}
    german = Analyzer("german", "snowball")
    searcher = Searcher({"words": Words(texts)}, [Store(texts)], analyzers=[german])
    body = {"query": "H Haus", "rerank": False}
    answer = (
        client(searcher=searcher)
        .post("/v1/search", json=body | {"snippets": {"number": 1, "length": 40}})
        .json()
    )
    shown = {r["id"]: r["snippets"] for r in answer["results"]}
    for doc_id, words in (("a", ["Häuser"]), ("b", ["Haus", "Haus"])):
        (each,) = shown[doc_id]
        assert texts[doc_id][each["start"] :].startswith(each["text"])
        assert [each["text"][a:b] for a, b in each["marks"]] == words
    assert "snippets" in answer["timings_ms"]
    plain = client(searcher=searcher).post("/v1/search", json=body).json()
    assert "snippets" not in plain["results"][0] and "snippets" not in plain["timings_ms"]
    wrong = body | {"snippets": {"number": 0}}
    assert_envelope(client(searcher=searcher).post("/v1/search", json=wrong), 422)


class Slow(Words):
    """Retrieval and reranking that take their time."""

    def search(self, queries: Sequence[Query], k: int) -> Run:
        time.sleep(0.3)
        return super().search(queries, k)

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        time.sleep(0.3)
        return [[0.0] * len(texts) for _, texts in batch]


def test_all_stages_of_a_search_share_one_deadline() -> None:
    searcher = Searcher({"slow": Slow(TEXTS)}, [Store(TEXTS)])
    for deadline_s, status in ((0.5, 504), (30.0, 200)):
        serving = client({"slow": Slow(TEXTS)}, searcher=searcher, deadline_s=deadline_s)
        assert serving.post("/v1/search", json={"query": "rain"}).status_code == status


def test_a_search_is_admitted_once_for_all_its_stages() -> None:
    """So none is refused after its retrieval was paid for."""
    searcher = Searcher({"words": Words(TEXTS)}, [Store(TEXTS)])
    serving = service(searcher=searcher)
    app = local_client(make_app(serving))
    entered: list[tuple[int, str]] = []
    inner = serving.admission.enter

    def enter(tokens: int, client: str = "", model: str = "") -> AbstractContextManager[None]:
        entered.append((tokens, model))
        return inner(tokens, client, model)

    serving.admission.enter = enter  # type: ignore[method-assign]
    for body in ({"query": "rain"}, {"query": "rain", "ids": ["a"]}):
        assert app.post("/v1/search", json=body).status_code == 200
    assert app.post("/v1/search", json={"query": "rain", "rerank": False}).status_code == 200
    (many, first), (one, second), (plain, third) = entered
    assert (first, second, third) == ("bm25", "bm25", "index")
    assert many > 50 * one > 50 * plain / 100
