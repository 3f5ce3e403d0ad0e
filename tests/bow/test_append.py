"""Appending: an index that grew answers as one that was built at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raydist.artefact import Output
from raydist.bow.build.append import append_to_index
from raydist.bow.build.create import build_index
from raydist.bow.build.generation import LAYOUT
from raydist.bow.index import BowIndex
from raydist.bow.spec import IndexSpec
from raydist.errors import ArtifactError, ConfigError, DataError
from raydist.manifest import read_manifest
from raydist.text.analyzer import Analyzer
from raydist.text.spec import AnalyzerSpec
from tests.bow.documents import expected, postings_of, read, splits_of

ROWS = [(f"d{i}", "", " ".join(f"w{i % m}" for m in (2, 3, 5, 7, 11))) for i in range(40)]
DEFAULT = IndexSpec()


def index(rows, folder, spec=DEFAULT):
    config = {"compress": spec.compress, "block_size": spec.block_size}
    output = Output.open(folder, kind="bow-index", config=config, inputs={"corpus": "x"})
    output.finish(**build_index(splits_of(rows), read, folder, spec))
    LAYOUT.clean(folder)


def append(rows, folder, spec=DEFAULT, key="more"):
    return append_to_index(splits_of(rows), read, folder, spec, inputs={"c": key})


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("merge", [True, False])
def test_an_appended_index_equals_a_rebuilt_one(tmp_path, store, merge):
    spec = IndexSpec(store=store, merge=merge)
    index(ROWS[:13], tmp_path, spec)
    append(ROWS[13:20], tmp_path, spec, "second")
    facts = append(ROWS[20:], tmp_path, spec, "third")
    opened = BowIndex.open(tmp_path, verify=True)
    manifest = read_manifest(tmp_path)
    segments = [tmp_path / each for each in manifest["segments"]]
    assert postings_of(segments) == expected(ROWS, Analyzer())
    assert len(opened) == opened.nonempty == manifest["documents"] == len(ROWS)
    assert opened.tokens == manifest["tokens"] == facts["tokens"] == 5 * len(ROWS)
    assert opened.doc_ids.to_pylist() == [row[0] for row in ROWS]
    if store:
        texts = [document.text for document in opened.store.get([row[0] for row in ROWS])]
        assert texts == [row[2] for row in ROWS]
    assert not list(tmp_path.glob(".*"))
    assert len(list(tmp_path.glob("store*"))) == 3 * store
    assert len(list(tmp_path.glob("joined*"))) == store


def test_appending_the_same_again_changes_nothing(tmp_path):
    index(ROWS[:5], tmp_path)
    append(ROWS[5:9], tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    assert append(ROWS[5:9], tmp_path) is None
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("store", [True, False])
def test_an_id_that_the_index_has_already_is_refused_and_the_index_stays(tmp_path, store):
    spec = IndexSpec(store=store)
    index(ROWS[:5], tmp_path, spec)
    with pytest.raises(DataError, match="document 7 has the id 'd3' of document 4"):
        append([ROWS[9], ROWS[3]], tmp_path, spec)
    assert len(BowIndex.open(tmp_path)) == 5
    append([ROWS[9], ROWS[3]], tmp_path, replace(spec, duplicates="warn"))
    assert len(BowIndex.open(tmp_path)) == 6


def test_another_analyzer_or_block_size_is_refused_with_both_named(tmp_path):
    index(ROWS[:5], tmp_path)
    other = IndexSpec(analyzer=AnalyzerSpec(stemmer="none"), block_size=64)
    with pytest.raises(ConfigError, match=r"analyzer.stemmer: \"porter\" -> \"none\"") as caught:
        append(ROWS[5:], tmp_path, other)
    assert "block_size: 128 -> 64" in str(caught.value)


def test_there_must_be_a_complete_index(tmp_path):
    with pytest.raises(ArtifactError, match="no such folder"):
        append(ROWS, tmp_path / "nothing")


def test_an_interrupted_append_leaves_the_old_index_and_can_be_repeated(tmp_path, monkeypatch):
    index(ROWS[:5], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("raydist.bow.build.append.os.rename", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            append(ROWS[5:9], tmp_path)
    opened = BowIndex.open(tmp_path)
    assert len(opened) == 5 and opened.store.get(["d4"])[0].text == ROWS[4][2]
    append(ROWS[5:9], tmp_path)
    segments = [tmp_path / each for each in read_manifest(tmp_path)["segments"]]
    assert postings_of(segments) == expected(ROWS[:9], Analyzer())
    assert np.array_equal(BowIndex.open(tmp_path).bases, [0, 5])
