"""Shards in actors: a run has the bytes of one process, and a lost actor is replaced."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from raydist.actors import Actors
from raydist.bow.spec import BowSearchSpec, Qld
from raydist.build import open_retriever, open_sharded
from raydist.cli import main
from raydist.records import Query

pytestmark = pytest.mark.ray

WORDS = ["canal", "heron", "boat", "fish", "lake", "reed"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for part in range(3):
        texts = (" ".join(WORDS[j] for j in range(6) if (7 * part + i) >> j & 1) for i in range(40))
        lines = [{"id": f"d{part}.{i}", "text": text} for i, text in enumerate(texts)]
        corpus = folder / f"corpus{part}.jsonl"
        corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    queries = "".join(f"{word}\t{word} boats\n" for word in WORDS)
    (folder / "queries.tsv").write_text(queries)
    corpus_files = ",".join(str(folder / f"corpus{part}.jsonl") for part in range(3))
    assert main(["index", f"corpus={corpus_files}", f"out={folder / 'IDX'}", "merge=false"]) == 0
    return folder


def test_the_file_of_a_run_is_that_of_one_process(
    ray_cluster: None, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", f"index={place / 'IDX'}", f"queries={place / 'queries.tsv'}", "k=25"]
    runs = [place / name for name in ("one.txt", "three.txt")]
    assert main([*words, f"out={runs[0]}", "ties=anserini"]) == 0
    capsys.readouterr()
    assert main([*words, f"out={runs[1]}", "ties=anserini", "shards=3"]) == 0
    assert runs[1].read_bytes() == runs[0].read_bytes() != b""
    assert "opening 3 shards of" in capsys.readouterr().err
    assert main([*words, f"out={runs[1]}", "shards=1", "filter=year > 3"]) == 2
    assert "filter = 'year > 3': the index has no columns" in capsys.readouterr().err


def test_a_shard_whose_process_dies_is_opened_again(
    ray_cluster: None, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups: list[Actors] = []

    def launch(makers: Any) -> Actors:
        groups.append(Actors(makers))
        return groups[-1]

    spec = BowSearchSpec(scoring=Qld())
    queries = [Query(word, word) for word in WORDS]
    expected = open_retriever(str(place / "IDX"), spec).search(queries, 30).table
    sharded = open_sharded(str(place / "IDX"), 2, launch, spec)
    try:
        assert sharded.search(queries, 30).table.equals(expected)
        process = groups[0]._processes[1]
        assert process is not None
        os.kill(process[1], signal.SIGKILL)
        assert sharded.search(queries, 30).table.equals(expected)
        assert "shard 2 was lost, and opened again on" in capsys.readouterr().err
    finally:
        groups[0].close()
