"""The room in a few lines: an output on an object store is written, searched and changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist import storage
from raydist.cli import main
from raydist.manifest import read_manifest
from raydist.stores.objects import ChangedError, Objects


def test_an_index_on_an_object_store_is_built_and_searched_by_its_uri(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_text(json.dumps({"id": "a", "text": "cats and dogs"}) + "\n")
    Path("queries.tsv").write_text("q\tcats\n")
    assert main(["index", "corpus=corpus.jsonl", f"out={bucket}/idx"]) == 0
    assert main(["search", f"index={bucket}/idx", "queries=queries.tsv", "out=run.txt"]) == 0
    assert Path("run.txt").read_text().split()[:3] == ["q", "Q0", "a"]
    copy = storage.local(f"{bucket}/idx")  # of this generation, kept on this machine
    assert read_manifest(copy)["documents"] == 1


def test_an_object_is_replaced_only_by_who_read_it(bucket: str) -> None:
    objects = Objects(f"{bucket}/folder")
    first = objects.replace("state.json", b"1", None)  # None: there is no such object
    objects.replace("state.json", b"2", first)
    with pytest.raises(ChangedError):
        objects.replace("state.json", b"3", first)
    data, _ = objects.read("state.json") or (b"", first)
    assert data == b"2" and list(objects.names()) == ["state.json"]
