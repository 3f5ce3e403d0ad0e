"""Objects below a URI: listed, read and written many at a time, manifests under a condition.

`s3://`, `gs://`, `az://` (and the other spellings of Azure) and `memory://`, for tests, are served
by the `obstore` package, which reads the usual environment variables (`AWS_ENDPOINT_URL`,
`AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, ...); where
none holds a key and the `boto3` package is installed, profiles and roles of AWS work too.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from raydist.errors import DataError, JobError
from raydist.stores.credentials import hint

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_THREADS = 16  # requests at a time, of files and of ranges of one
_RANGE = 16 << 20  # bytes of a ranged get
_PART = 8 << 20  # bytes of a part of an upload, at least
_MAX_PARTS = 9_000  # stores take 10,000
_DELETED = 1_000  # keys of a request

_memory: dict[str, ObjectStore] = {}  # the buckets of `memory://`, of this process


class Entry(NamedTuple):
    """An object as the store knows it: its size and the tag that changes with its content."""

    size: int
    tag: str
    version: str = ""


class ChangedError(Exception):
    """An object is not, or not any more, what a condition says."""


class Objects:
    """The objects below a URI, by their names relative to it.

    Args:
        uri: of a folder; it need not exist, as no folder of an object store does.

    Raises:
        DataError: a scheme that is not served, or an account that is not configured.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._store, self._prefix = _open(self.uri)

    def names(self, below: str = "") -> dict[str, Entry]:
        """Returns all objects below a name."""
        import obstore

        start = self._key(below)
        entries = {}
        with _requests(self.uri):
            for page in obstore.list(self._store, start or None, chunk_size=1000):
                for each in page:
                    name = each["path"][len(self._prefix) :].lstrip("/")
                    entries[name] = _entry(each)
        return entries

    def head(self, name: str) -> Entry | None:
        """Returns what the store knows of an object, None if there is none."""
        import obstore

        try:
            with _requests(self.uri, FileNotFoundError):
                return _entry(obstore.head(self._store, self._key(name)))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> tuple[bytes, Entry] | None:
        """Returns a small object and what the store knows of it, None if there is none."""
        import obstore

        try:
            with _requests(self.uri, FileNotFoundError):
                result = obstore.get(self._store, self._key(name))
                return bytes(result.bytes()), _entry(result.meta)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> Entry:
        """Writes a small object, whatever was there."""
        return self._put(name, data, "overwrite")

    def replace(self, name: str, data: bytes, old: Entry | None) -> Entry:
        """Writes a small object in place of exactly `old`, None being nothing.

        Raises:
            ChangedError: something else is there.
        """
        if old is None:
            return self._put(name, data, "create")
        known = {"e_tag": old.tag, "version": old.version}
        return self._put(name, data, {key: value for key, value in known.items() if value})

    def delete(self, names: Iterable[str]) -> None:
        """Removes objects; one that is gone already is no error."""
        import obstore

        keys = [self._key(name) for name in names]
        for start in range(0, len(keys), _DELETED):
            with (
                contextlib.suppress(FileNotFoundError),
                _requests(self.uri, FileNotFoundError),
            ):
                obstore.delete(self._store, keys[start : start + _DELETED])

    def upload(
        self, files: Mapping[str, Path], check: Callable[[], None] = lambda: None
    ) -> dict[str, Entry]:
        """Writes local files, many at a time and the large ones in parts; returns their entries.

        Args:
            files: by the objects' names.
            check: called before each file; what it raises ends the upload.
        """
        import obstore

        def send(item: tuple[str, Path]) -> Entry:
            name, path = item
            check()
            size = path.stat().st_size
            with _requests(self.uri):
                result = obstore.put(
                    self._store,
                    self._key(name),
                    path if size else b"",
                    chunk_size=max(_PART, size // _MAX_PARTS),
                    max_concurrency=4,
                )
            return Entry(size, result["e_tag"] or "", result["version"] or "")

        return dict(zip(files, _parallel(send, files.items())))

    def download(self, entries: Mapping[str, Entry], targets: Mapping[str, Path]) -> None:
        """Copies exactly the objects that `entries` describe to local files, many at a time.

        Raises:
            ChangedError: one is gone, or is another by now.
        """
        pieces = []
        for name, entry in entries.items():
            target = targets[name]
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as out:
                out.truncate(entry.size)
            for start in range(0, entry.size, _RANGE):
                pieces.append((name, start, min(start + _RANGE, entry.size)))

        def fetch(piece: tuple[str, int, int]) -> None:
            name, start, stop = piece
            with open(targets[name], "r+b") as out:
                out.seek(start)
                for chunk in self._chunks(name, start, stop, entries[name]):
                    out.write(chunk)
                if out.tell() != stop:
                    raise ChangedError(f"{self.uri}/{name}")

        list(_parallel(fetch, pieces))

    def read_parts(self, name: str, spans: Sequence[tuple[int, int]], entry: Entry) -> list[bytes]:
        """Returns parts of exactly the object that `entry` describes, read many at a time.

        Raises:
            ChangedError: it is gone, or is another by now.
        """

        def fetch(span: tuple[int, int]) -> bytes:
            return b"".join(bytes(chunk) for chunk in self._chunks(name, *span, entry))

        return list(_parallel(fetch, spans))

    def _chunks(self, name: str, start: int, stop: int, entry: Entry) -> Iterator[Any]:
        import obstore
        from obstore.exceptions import PreconditionError

        try:
            with _requests(self.uri, FileNotFoundError, PreconditionError):
                options: Any = {"range": (start, stop), "if_match": entry.tag or None}
                yield from obstore.get(self._store, self._key(name), options=options).stream(
                    min_chunk_size=4 << 20
                )
        except (FileNotFoundError, PreconditionError) as error:
            raise ChangedError(f"{self.uri}/{name}") from error

    def _put(self, name: str, data: bytes, mode: Any) -> Entry:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        refusals: tuple[type[Exception], ...] = (AlreadyExistsError, PreconditionError)
        if isinstance(mode, dict):  # S3's answer where what was to be replaced is gone
            refusals = (*refusals, FileNotFoundError)
        try:
            with _requests(self.uri, *refusals):
                result = obstore.put(self._store, self._key(name), data, mode=mode)
        except refusals as error:
            raise ChangedError(f"{self.uri}/{name}") from error
        return Entry(len(data), result["e_tag"] or "", result["version"] or "")

    def _key(self, name: str) -> str:
        return posixpath.join(self._prefix, name) if name else self._prefix


def _parallel(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Applies a function in threads; nothing more is started after the first error."""
    with ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [each.result() for each in futures]
        finally:
            pool.shutdown(cancel_futures=True)


def _entry(meta: Any) -> Entry:
    return Entry(meta["size"], meta["e_tag"] or "", meta["version"] or "")


@contextlib.contextmanager
def _requests(uri: str, *passing: type[Exception]) -> Iterator[None]:
    """Turns what a store answers into a JobError of one line, but for the errors that pass."""
    from obstore.exceptions import BaseError

    try:
        yield
    except passing:
        raise
    except (BaseError, OSError) as error:
        reason = _reason(error)
        raise JobError(
            f"{uri}: the object store does not answer as it should: {reason}{hint(uri, reason)}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split("\n\nDebug source", 1)[0].split())


def _open(uri: str) -> tuple[ObjectStore, str]:
    """Returns the store of a URI and the prefix of its names."""
    from obstore.exceptions import BaseError
    from obstore.store import MemoryStore, from_url

    parts = urlsplit(uri)
    bucket, path = parts.netloc, parts.path.strip("/")
    options: dict[str, Any] = {
        "client_options": {"allow_http": _plain_http(parts.scheme), "timeout": "300s"},
        "retry_config": {"max_retries": 6, "retry_timeout": timedelta(seconds=120)},
    }
    if parts.scheme == "memory":
        return _memory.setdefault(bucket, MemoryStore()), path
    root = f"{parts.scheme}://{bucket}"
    if parts.scheme in ("s3", "s3a"):
        root = f"s3://{bucket}"
        options |= _aws()
    if parts.scheme in ("http", "https"):  # the host alone does not say which store it is
        root, path = uri, ""
    try:
        return from_url(root, **options), path
    except (BaseError, ValueError) as error:
        reason = _reason(error)
        if "recognise URL" in reason:
            reason = "outputs lie in folders or on s3://, gs:// or az://"
        raise DataError(f"{uri}: cannot be opened: {reason}{hint(uri, reason)}") from error


def _plain_http(scheme: str) -> bool:
    """Returns whether the user names a server without TLS: one of this machine or network."""
    endpoints = (os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    return scheme == "http" or any(each.startswith("http://") for each in endpoints)


def _aws() -> dict[str, Any]:
    """Returns what obstore does not find by itself: an S3 endpoint, and boto3's credentials."""
    settings: dict[str, Any] = {}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3"):
        settings["endpoint"] = endpoint
    if "AWS_ACCESS_KEY_ID" not in os.environ and "AWS_SKIP_SIGNATURE" not in os.environ:
        with contextlib.suppress(ImportError, ValueError):
            import boto3  # type: ignore[import-untyped]
            from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
            from obstore.auth.boto3 import Boto3CredentialProvider

            try:
                session = boto3.Session()
                credentials = session.get_credentials()
            except BotoCoreError as error:
                raise JobError(f"the credentials of AWS cannot be read: {error}") from error
            if credentials is not None:
                settings["credential_provider"] = Boto3CredentialProvider(session)
                if session.region_name:
                    settings["region"] = session.region_name
    return settings
