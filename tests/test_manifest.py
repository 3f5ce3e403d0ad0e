from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist.errors import ArtifactError, ConfigError
from raydist.manifest import Output, read_manifest


def begin(folder: Path, **config: object) -> Output:
    return Output.open(folder, kind="thing", config=config, inputs={"corpus": "abc"})


def test_a_folder_is_complete_once_it_has_a_manifest(tmp_path: Path) -> None:
    out = begin(tmp_path / "a/b", k1=0.9)
    assert not out.complete and not out.resumed
    with pytest.raises(ArtifactError, match="interrupted"):
        read_manifest(out.folder)
    assert begin(tmp_path / "a/b", k1=0.9).resumed
    out.finish(documents=3)
    manifest = read_manifest(out.folder, ["thing"])
    assert manifest["documents"] == 3 and manifest["config"] == {"k1": 0.9}
    assert begin(tmp_path / "a/b", k1=0.9).complete


@pytest.mark.parametrize("finished", [False, True])
def test_another_configuration_is_refused_and_the_difference_shown(
    tmp_path: Path, finished: bool
) -> None:
    out = begin(tmp_path / "a", k1=0.9, deep={"b": 1})
    if finished:
        out.finish()
    with pytest.raises(ArtifactError, match=r"(?s)deep.b: 1 -> 2.*k1: 0.9 -> 1.2"):
        begin(tmp_path / "a", k1=1.2, deep={"b": 2})
    with pytest.raises(ArtifactError, match='content of corpus: "abc" -> "xyz"'):
        Output.open(
            tmp_path / "a",
            kind="thing",
            config={"k1": 0.9, "deep": {"b": 1}},
            inputs={"corpus": "xyz"},
        )


def test_foreign_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        begin(tmp_path / "file/below")
    with pytest.raises(ArtifactError, match="other files"):
        begin(tmp_path)


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
    begin(tmp_path / "a").finish()
    with pytest.raises(ArtifactError, match="is a thing, expected other or more"):
        read_manifest(tmp_path / "a", ["other", "more"])


@given(st.data())
def test_a_damaged_manifest_is_an_error_or_says_what_it_said(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begin(Path(folder) / "a", k1=0.9).finish(documents=31, terms=["a", "b"])
        path = Path(folder) / "a" / "manifest.json"
        whole, manifest = path.read_bytes(), read_manifest(path.parent)
        if data.draw(st.booleans()):
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        else:
            bit = data.draw(st.integers(0, 8 * len(whole) - 1))
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(damaged))
        try:
            found = read_manifest(path.parent)
        except ArtifactError as error:
            assert str(path) in str(error)
        else:
            assert found == manifest


@pytest.mark.parametrize("left", [b"", b"[1, 2", b"\xff{}", b"3"])
def test_a_damaged_record_of_an_interrupted_command_is_named(tmp_path: Path, left: bytes) -> None:
    begin(tmp_path / "a")
    (tmp_path / "a" / ".job.json").write_bytes(left)
    with pytest.raises(ArtifactError, match=r"a/\.job\.json is corrupted.*delete"):
        begin(tmp_path / "a")


@pytest.mark.parametrize("stops_at", [".job.json", "config.json"])
def test_an_output_whose_opening_was_cut_short_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_at: str
) -> None:
    told: dict[str, Any] = {"kind": "thing", "config": {}, "inputs": {}, "resolved": {"a": 1}}

    def killed(place: str, target: Path) -> None:
        if Path(target).name == stops_at:
            raise KeyboardInterrupt
        Path(place).rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Output.open(tmp_path / "a", **told)
    assert Output.open(tmp_path / "a", **told).resumed == (stops_at == "config.json")
    assert json.loads((tmp_path / "a/config.json").read_text()) == {"a": 1}


def test_what_is_no_output_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(ArtifactError, match=r"no manifest.json"):
        read_manifest(tmp_path)
