"""A manifest is read as it was written, or what is wrong with it is said."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.errors import ArtifactError
from raydist.manifest import read_manifest, write_manifest

THING = {"format": 1, "kind": "thing"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "corrupted"),
        ("[]", "corrupted"),
        (json.dumps({"format": 99, "kind": "thing"}), "newer"),
        (json.dumps({"format": 1, "kind": "thing"}), "checksum"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_an_error(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path, ["thing"])


def test_a_manifest_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, THING)
    with pytest.raises(ArtifactError, match="is a thing, expected other or more"):
        read_manifest(tmp_path, ["other", "more"])


@given(st.data())
def test_a_damaged_manifest_is_an_error_or_says_what_it_said(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.json"
        write_manifest(path.parent, {**THING, "documents": 31, "terms": ["a", "b"]})
        whole, manifest = path.read_bytes(), read_manifest(path.parent)
        if data.draw(st.booleans()):
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        else:
            bit = data.draw(st.integers(0, 8 * len(whole) - 1))
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(damaged))
        try:
            read = read_manifest(path.parent)
        except ArtifactError as error:
            assert str(path) in str(error)
        else:
            assert read == manifest


def test_what_is_no_output_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(ArtifactError, match=r"no manifest.json"):
        read_manifest(tmp_path)
