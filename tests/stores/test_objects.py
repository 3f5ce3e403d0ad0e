from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from raydist.errors import DataError, JobError
from raydist.stores import objects
from raydist.stores.credentials import hint
from raydist.stores.objects import ChangedError, Objects


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return str(request.getfixturevalue("s3"))


def test_small_objects_are_replaced_under_a_condition(bucket: str) -> None:
    folder = Objects(f"{bucket}/a")
    assert folder.read("x") is None and folder.head("x") is None and folder.names() == {}
    first = folder.replace("x", b"one", None)
    with pytest.raises(ChangedError):
        folder.replace("x", b"other", None)
    second = folder.replace("x", b"two", first)
    with pytest.raises(ChangedError):
        folder.replace("x", b"other", first)
    read = folder.read("x")
    assert read is not None and read[0] == b"two" and read[1].tag == second.tag
    folder.delete(["x", "never"])
    with pytest.raises(ChangedError):
        folder.replace("x", b"three", second)
    assert folder.names() == {}


def test_files_travel_in_parts_both_ways(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_RANGE", 1 << 20)
    contents = {"big": os.urandom(9 << 20), "parts/small": b"x", "empty": b""}
    paths = {}
    for name, data in contents.items():
        paths[name] = tmp_path / name.replace("/", "-")
        paths[name].write_bytes(data)
    folder = Objects(f"{bucket}/a/b")
    entries = folder.upload(paths)
    Objects(f"{bucket}/a/bc").write("beside", b"not below a/b")
    listing = folder.names()
    assert {name: each.tag for name, each in listing.items()} == {
        name: each.tag for name, each in entries.items()
    }
    targets = {name: tmp_path / "back" / name for name in contents}
    folder.download(listing, targets)
    assert {name: path.read_bytes() for name, path in targets.items()} == contents
    folder.write("parts/small", b"y")
    with pytest.raises(ChangedError):
        folder.download({"parts/small": listing["parts/small"]}, targets)
    with pytest.raises(ChangedError):
        folder.download({"gone": listing["big"]}, {"gone": tmp_path / "gone"})


def test_what_a_store_says_is_one_line(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobError, match=r"s3://no-such-bucket-1: the object store .*") as failure:
        Objects("s3://no-such-bucket-1").write("x", b"1")
    assert "\n" not in str(failure.value)
    for uri in ("nowhere://x/y", "az://container/x"):
        with pytest.raises(DataError, match=f"{uri}: cannot be opened"):
            Objects(uri)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(DataError, match=r"s3://b: cannot be opened: .* Missing AccessKeyId"):
        Objects("s3://b")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(JobError, match=r"credentials of AWS cannot be read: .* \(nobody\)"):
        Objects("s3://b")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("az://nobody/idx", "set AZURE_STORAGE_ACCOUNT_NAME"),
        ("hf://datasets/nobody/idx", "outputs lie in folders or on s3://, gs:// or az://"),
    ],
)
def test_an_account_that_is_missing_is_an_error_with_its_remedy(
    uri: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(DataError, match=message):
        Objects(uri)


def test_remedies_are_named_where_credentials_are_missing() -> None:
    assert "gcloud auth" in hint("gs://b/x", "Could not create a OAuth2 access token")
    assert "AWS_PROFILE" in hint("s3a://b/x", "403 Forbidden")
    assert hint("s3://b/x", "No space left") == hint("http://host/x", "403 Forbidden") == ""
