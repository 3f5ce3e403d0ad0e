"""Bearer keys: read from the environment or a file, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from pathlib import Path

from raydist.errors import ConfigError

__all__ = ["ENVIRONMENT", "Keys", "read_keys"]

ENVIRONMENT = "RAYDIST_API_KEYS"


class Keys:
    """The keys that are let in; only their digests are kept."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def client(self, authorization: str | None) -> str | None:
        """Returns a name for the key in an Authorization header, None if it is not a valid one.

        Every key is compared, whatever matched, so that time tells nothing.
        """
        scheme, _, key = (authorization or "").partition(" ")
        given = _digest(key.strip())
        found = None
        for digest in self._digests:
            if hmac.compare_digest(digest, given):
                found = digest.hex()[:8]
        return found if scheme.lower() == "bearer" else None


def read_keys(file: str | None = None) -> Keys:
    """Returns the keys of a file (one per line, `#` for comments) and of RAYDIST_API_KEYS.

    Raises:
        ConfigError: the file cannot be read or holds no key.
    """
    found = [key.strip() for key in os.environ.get(ENVIRONMENT, "").split(",") if key.strip()]
    if file:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(f"keys_file={file}: cannot be read: {error.strerror}") from None
        own = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not own:
            raise ConfigError(f"keys_file={file}: no key in it")
        found += own
    return Keys(found)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
