"""A service whose indexes are shared answers as one that opens them whole, bit for bit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raydist.build import open_searcher
from raydist.cli import main
from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.data.readers import read_run
from raydist.errors import ConfigError
from raydist.serving.backend import SearchCall, SnippetCall
from raydist.serving.errors import ServiceError
from raydist.serving.replicas import Index
from raydist.serving.sharded.searcher import ShardedSearcher
from tests.serving.local import assert_envelope, client
from tests.serving.sharded.local import Counted, local_replicas, local_searcher

WORDS = ["canal", "heron", "boat", "fish", "lake", "reed"]
QUERIES = ["heron", "boats on the lake", "reed fish canal heron boat", "nowhere", ""]


def texts(part: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"d{part}.{i}",
            "title": WORDS[i % 6] if i % 2 else "",
            "text": " ".join(WORDS[j] for j in range(6) if (7 * part + i) >> j & 1) + f" {i % 5}",
            "year": 2000 + (i + part) % 9,
        }
        for i in range(40)
    ]


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def build(folder: Path, model: Path | None = None) -> list[str]:
    """Returns the folders of an index of several segments, and of vectors if there is a model."""
    corpus = ",".join(write(folder / f"c{part}.jsonl", texts(part)) for part in range(3))
    words = [f"corpus={corpus}", "corpus.columns=year", "merge=false"]
    assert main(["index", *words, f"out={folder / 'IDX'}"]) == 0
    if model is None:
        return [str(folder / "IDX")]
    assert main(["embed", f"model={model}", f"corpus={corpus}", f"out={folder / 'VEC'}"]) == 0
    return [str(folder / "IDX"), str(folder / "VEC")]


def configured(*folders: str, words: list[str] | None = None) -> ServeConfig:
    return load(ServeConfig, (), [f"index={','.join(folders)}", "shards=2", *(words or [])])


@pytest.fixture(scope="module")
def folders(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return build(tmp_path_factory.mktemp("whole"), tiny_bert)


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Path]:
    build(tmp_path)
    yield tmp_path


def hits(searcher: Any, **call: Any) -> Any:
    return searcher.search(SearchCall(**{"query": "heron fish lake", "depth": 50} | call)).hits


@pytest.mark.parametrize("words", [[], ["scoring=qld"], ["scoring.lengths=exact"]])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_hits_are_those_of_indexes_opened_whole(
    folders: list[str], shards: int, words: list[str]
) -> None:
    config = configured(*folders, words=words)
    whole, sharded = open_searcher(config), local_searcher(config, local_replicas(shards))
    for query in QUERIES:
        for depth in (1, 10, 1000):
            expected = hits(whole, query=query, depth=depth)
            assert hits(sharded, query=query, depth=depth) == expected
            assert expected and (expected[0].document or query in ("nowhere", ""))
    ids = ["d0.3", "d1.7", "d2.39", "unknown"]
    assert hits(sharded, ids=ids) == hits(whole, ids=ids) != []


def test_a_filter_is_checked_before_and_reaches_all_shards(folders: list[str]) -> None:
    config = configured(folders[0])
    whole, sharded = open_searcher(config), local_searcher(config, local_replicas(2))
    for _ in range(2):
        passed = hits(sharded, filter="year > 2005")
        assert passed == hits(whole, filter="year > 2005") != []
    assert hits(sharded, filter="year > 2005", ids=["d0.6"]) == hits(
        whole, filter="year > 2005", ids=["d0.6"]
    )
    with pytest.raises(ServiceError, match="yeer") as refused:
        hits(sharded, filter="yeer > 2005")
    assert refused.value.status == 422


@pytest.fixture(scope="module")
def passages(folders: list[str], tiny_bert: Path) -> str:
    """Vectors of passages, of which documents have one to four."""
    out = Path(folders[0]).with_name("VP")
    whole = [row for part in range(3) for row in texts(part)]
    rows = [row | {"text": " ".join([row["text"]] * (i % 4 + 1))} for i, row in enumerate(whole)]
    words = [f"model={tiny_bert}", f"corpus={write(out.with_name('long.jsonl'), rows)}"]
    words += ["chunk.tokens=24", "chunk.overlap=8", "corpus.columns=year"]
    assert main(["embed", *words, f"out={out}"]) == 0
    return str(out)


@pytest.mark.parametrize("best", [1, 3])
@pytest.mark.parametrize("more", [True, False])
def test_documents_are_ranked_by_their_passages(
    folders: list[str], passages: str, tmp_path: Path, best: int, more: bool
) -> None:
    config = configured(passages, *(folders[:1] if more else []))
    (tmp_path / "q.tsv").write_text(f"q\t{QUERIES[1]}\n")
    words = [f"index={','.join(config.index)}", f"queries={tmp_path / 'q.tsv'}", "k=20"]
    words += ["fusion=rrf"] * more + ["by=document", f"by.passages={best}", "filter=year > 2002"]
    assert main(["search", *words, f"out={tmp_path / 'run.txt'}"]) == 0
    ((_, expected, _),) = read_run(tmp_path / "run.txt")
    body = {"query": QUERIES[1], "k": 20, "depth": 20, "filter": "year > 2002", "rerank": False}
    body["by"] = {"passages": best} if best > 1 else "document"
    for searcher in (open_searcher(config), local_searcher(config, local_replicas(2))):
        serving = client(searcher=searcher)
        answer = serving.post("/v1/search", json=body).json()
        assert [each["id"] for each in answer["results"]] == expected
        assert len(expected) == 20 and not any("#" in each for each in expected)
        answer = serving.post("/v1/search", json=body | {"ids": ["d1.7"]}).json()
        assert [each["id"] for each in answer["results"]] == ["d1.7"]
        assert_envelope(serving.post("/v1/search", json=body | {"by": "chapter"}), 422)


def test_threads_that_search_at_once_do_not_mix_their_statistics(folders: list[str]) -> None:
    config = configured(folders[0], words=["scoring=qld"])
    whole, sharded = open_searcher(config), local_searcher(config, local_replicas(2))
    expected = {query: hits(whole, query=query) for query in QUERIES}
    wrong: list[str] = []

    def ask(query: str) -> None:
        for _ in range(20):
            if hits(sharded, query=query) != expected[query]:
                wrong.append(query)

    threads = [threading.Thread(target=ask, args=(query,)) for query in QUERIES * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_search_fusion_texts_reranking_and_snippets_over_http(folders: list[str]) -> None:
    config = configured(*folders)
    body = {"query": "herons in the reed", "k": 20, "snippets": True}
    answers = []
    for searcher in (open_searcher(config), local_searcher(config, local_replicas(3))):
        answer = client(searcher=searcher).post("/v1/search", json=body).json()
        assert set(answer.pop("timings_ms")) >= {"IDX", "VEC", "fusion", "texts", "rerank"}
        assert "searched" not in answer and answer.pop("id")
        answers.append(answer)
    assert answers[0] == answers[1]
    first = answers[1]["results"][0]
    assert set(first["scores"]) == {"IDX", "VEC", "fusion", "rerank"}
    assert first["text"] and first["snippets"][0]["marks"]


def test_a_lost_shard_is_a_503_or_a_part_that_says_so(folders: list[str]) -> None:
    replicas, metrics = local_replicas(3), Counted()
    sharded = local_searcher(configured(*folders), replicas, metrics)
    assert metrics.documents == {0: 40, 1: 40, 2: 40 + 120}  # the vectors are one block
    serving = client(searcher=sharded)
    body = {"query": "heron", "k": 100, "rerank": False}
    whole = serving.post("/v1/search", json=body).json()["results"]
    replicas[1][0].dies_at = "rank"
    refused = serving.post("/v1/search", json=body)
    assert assert_envelope(refused, 503)["code"] == "not_ready"
    assert int(refused.headers["retry-after"]) >= 1
    assert "shard 2 of 3 was lost" in refused.text
    part = serving.post("/v1/search", json=body | {"partial": True}).json()
    assert part["searched"] == pytest.approx(1 - 40 / 240)
    assert part["warnings"] == ["83.3% of the documents were searched: a shard is lost"]
    ids = {each["id"] for each in part["results"] if "IDX" in each["scores"]}
    assert ids == {r["id"] for r in whole if "IDX" in r["scores"] and r["id"][1] != "1"} != set()
    replicas[1][0].dies_at = ""
    replicas[1][0].start()
    ends = time.monotonic() + 10
    while (again := serving.post("/v1/search", json=body)).status_code != 200:
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert again.json()["results"] == whole
    assert metrics.losses == {1: 1}
    all_of_it = serving.post("/v1/search", json=body | {"partial": True}).json()
    assert all_of_it["searched"] == 1.0 and all_of_it["warnings"] == []
    for own in replicas:
        own[0].kill()
    assert_envelope(serving.post("/v1/search", json=body | {"partial": True}), 503)


def test_another_replica_answers_for_one_that_is_lost_or_slow(folders: list[str]) -> None:
    replicas, metrics = local_replicas(2, 2), Counted()
    config = configured(folders[0])
    sharded = local_searcher(config, replicas, metrics)
    expected = hits(sharded)
    for _ in range(40):
        assert hits(sharded) == expected
    replicas[0][0].delay_s = replicas[0][1].delay_s = 0.0
    slow = replicas[0][1]
    slow.delay_s = 5.0
    start = time.monotonic()
    for _ in range(3):
        assert hits(sharded) == expected
    assert time.monotonic() - start < 4.0 and metrics.hedges[0] >= 3
    slow.delay_s = 0.0
    replicas[0][0].kill()
    for _ in range(3):
        assert hits(sharded) == expected
    assert metrics.losses[1] == 0


def test_time_that_has_passed_is_a_504_and_shards_know_it(folders: list[str]) -> None:
    replicas = local_replicas(2)
    sharded = local_searcher(configured(folders[0]), replicas)
    replicas[1][0].delay_s = 0.3
    with pytest.raises(ServiceError, match=r"0\.1 s") as late:
        hits(sharded, timeout_s=0.1)
    assert late.value.status == 504
    assert len(hits(sharded)) == len(hits(sharded, timeout_s=30.0))


@pytest.mark.parametrize("whole", [False, True])
def test_a_newer_generation_is_taken_over_at_once(changing: Path, whole: bool) -> None:
    config = configured(str(changing / "IDX"))
    sharded = Index(config) if whole else local_searcher(config, local_replicas(2))
    watcher = sharded.watcher
    stop, mixed, answers = threading.Event(), [], 0
    known = [hits(open_searcher(config))]

    def found() -> Any:
        return hits(sharded.searcher if isinstance(sharded, Index) else sharded)

    def ask() -> None:
        nonlocal answers
        while not stop.is_set():
            own = found()
            answers += 1
            if own not in known:
                mixed.append(own)

    def change(*words: str) -> None:
        assert main([*words, f"out={changing / 'IDX'}"]) == 0
        known.append(hits(open_searcher(config)))
        assert found() == known[-2]  # nothing is replaced before the next look
        assert watcher.look() and not watcher.look()
        assert found() == known[-1] != known[-2]

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    more = write(changing / "more.jsonl", [{"id": "n", "text": "heron fish", "year": 1}])
    try:
        change("index", f"corpus={more}", "corpus.columns=year", "--append", "auto_merge=false")
        (changing / "ids").write_text("d0.6\nd1.20\n")
        change("index", f"delete={changing / 'ids'}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert mixed == [] and answers > 0
    assert main(["merge", f"out={changing / 'IDX'}", "segments=2"]) == 0
    assert watcher.look() and found() == known[-1]


def test_a_shard_that_comes_back_to_a_newer_generation_takes_all_with_it(changing: Path) -> None:
    config = configured(str(changing / "IDX"))
    replicas = local_replicas(2)
    sharded = local_searcher(config, replicas)
    before = hits(sharded)
    (changing / "ids").write_text("d2.1\nd2.6\n")
    assert main(["index", f"delete={changing / 'ids'}", f"out={changing / 'IDX'}"]) == 0
    assert main(["merge", f"out={changing / 'IDX'}", "segments=2"]) == 0
    replicas[1][0].start()  # its process was another one for a moment
    assert hits(sharded) == hits(open_searcher(config)) != before


def test_snippets_are_those_of_the_indexs_analyzer(folders: list[str]) -> None:
    sharded: ShardedSearcher = local_searcher(configured(*folders), local_replicas(1))
    call = SnippetCall("herons", [("The heron stands.", 0)], 1, 50)
    ((passage,),) = sharded.snippets(call)
    assert passage.matches == ((4, 9),)


def test_what_cannot_be_shared_is_refused_before_anything_starts(
    folders: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["serve", f"index={folders[0]}", "shards=4", "--dry-run"]) == 2
    assert f"raydist merge {folders[0]} segments=4 cuts it" in capsys.readouterr().err
    corpus = write(tmp_path / "c.jsonl", texts(1))
    assert main(["index", f"corpus={corpus}", "fields=title,text", f"out={tmp_path / 'F'}"]) == 0
    assert main(["serve", f"index={tmp_path / 'F'}", "shards=1", "--dry-run"]) == 2
    assert "is an index of fields, whose segments differ" in capsys.readouterr().err
    assert main(["serve", f"index={tmp_path / 'F'}", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reranker=bm25", "shards=2"], "give index="),
        (["index=I", "deployments.shards.cpus=1"], r"deployments\.shards: expected one of index"),
        (["index=I", "shards=2", "deployments.shards.max=3"], "their number is fixed"),
    ],
)
def test_shards_are_of_an_index_and_their_number_is_fixed(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(ServeConfig, (), words)


def test_replicas_of_shards_are_counted_with_the_others() -> None:
    words = ["index=I", "shards=3", "replicas=2", "replicas.max=4", "replicas.gpus=1"]
    config = load(ServeConfig, (), [*words, "deployments.index.min=1", "deployments.index.max=0"])
    all_replicas = config.all_replicas()
    assert {name: each.min for name, each in all_replicas.items()} == {"index": 1, "shards": 6}
    assert all(each.max == 0 and each.gpus == 0 for each in all_replicas.values())
    assert config.replicas_of("shards").min == 2
