"""Bearer keys: read from the environment or a file, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from raydist.errors import ConfigError
from raydist.serving.errors import ServiceError

ENVIRONMENT = "RAYDIST_API_KEYS"


class Keys:
    """Admits clients with one of the keys; without keys, this machine alone or everybody.

    Keys are read once, where the application is built, and sent to every ingress: the environment
    of a process on another node has no effect.

    Args:
        keys: only their digests are stored.
        anonymous: without keys, admit everybody.
    """

    def __init__(self, keys: Sequence[str], *, anonymous: bool = False) -> None:
        self._digests = [_digest(key) for key in keys]
        self._anonymous = anonymous

    def __bool__(self) -> bool:
        return bool(self._digests)

    def client(self, authorization: str | None) -> str | None:
        """Returns a name for the key in an Authorization header, None if it is not a valid one.

        Every key is compared, even after a match, so that the time reveals nothing.
        """
        scheme, _, key = (authorization or "").partition(" ")
        key_digest = _digest(key.strip())
        name = None
        for digest in self._digests:
            if hmac.compare_digest(digest, key_digest):
                name = digest.hex()[:8]
        return name if scheme.lower() == "bearer" else None

    def admit(self, authorization: str | None, peer: str, host: str | None = None) -> str:
        """Returns the name of a request's client, empty without keys.

        Args:
            authorization: the request's Authorization header.
            peer: the address that the request comes from.
            host: the request's Host header. Without keys it must name this machine: a web page can
                give its own name this machine's address, and then read what is served here.

        Raises:
            ServiceError: 401; 403 another Host.
        """
        if self._digests:
            name = self.client(authorization)
            if name is None:
                raise _refusal("a valid key is needed: Authorization: Bearer KEY")
            return name
        # Ray Serve listens at the address of its own options, whatever this application's are.
        if self._anonymous:
            return ""
        if _loopback(peer):
            if host is None or _names_loopback(host):
                return ""
            raise ServiceError(
                403,
                "the service has no keys, so it only answers to localhost, not to "
                f"{host[:100]!r}: use http://localhost, or start it with keys_file=, "
                f"{ENVIRONMENT} or anonymous=true",
                "host_not_allowed",
            )
        raise _refusal(
            "the service has no keys, so it only answers its own machine: start it with "
            f"keys_file= or {ENVIRONMENT}, or with anonymous=true"
        )


def read_keys(
    file: str | None = None, *, anonymous: bool = False, public_host: str | None = None
) -> Keys:
    """Returns the keys of a file (one per line, `#` for comments) and of RAYDIST_API_KEYS.

    Args:
        file: its path.
        anonymous: without keys, let everybody in.
        public_host: the address that the service listens on, if other machines reach it.

    Raises:
        ConfigError: the file cannot be read or holds no key; a key is not ASCII; or others can
            connect, and there are neither keys nor `anonymous`.
    """
    keys = _ascii(ENVIRONMENT, os.environ.get(ENVIRONMENT, "").split(","))
    if file:
        try:
            text = Path(file).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ConfigError(f"keys_file={file}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"keys_file={file}: is not text in UTF-8") from None
        lines = [line.strip() for line in text.splitlines()]
        own = _ascii(f"keys_file={file}", [line for line in lines if not line.startswith("#")])
        if not own:
            raise ConfigError(f"keys_file={file}: has no key")
        keys += own
    if public_host is not None and not keys and not anonymous:
        raise ConfigError(
            f"host={public_host}: others can connect, so keys are needed: set keys_file= or "
            f"{ENVIRONMENT}, or anonymous=true to let everybody in"
        )
    return Keys(keys, anonymous=anonymous)


def refuse_shown(environment: Mapping[str, str]) -> None:
    """Raises ConfigError if the variables of a `runtime_env` have keys: the dashboard shows it."""
    if ENVIRONMENT in environment:
        raise ConfigError(
            f"runtime_env: Ray's dashboard shows {ENVIRONMENT} to whoever opens it; use "
            "keys_file=, or set the variable where Ray is started"
        )


def _ascii(where: str, words: Sequence[str]) -> list[str]:
    """Returns the keys among `words`; headers carry ASCII alone."""
    keys = [word.strip() for word in words if word.strip()]
    for number, key in enumerate(keys, 1):
        if not key.isascii():
            raise ConfigError(f"{where}: key {number} has a character that is not ASCII")
    return keys


def _refusal(message: str) -> ServiceError:
    return ServiceError(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _names_loopback(host: str) -> bool:
    """Returns whether a Host header, with or without a port, names this machine itself."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or _loopback(name)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
