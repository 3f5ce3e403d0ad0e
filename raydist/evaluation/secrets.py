"""Addresses and commands without the passwords and keys in them."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

_USER = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)[^/\s@'\"]*@")
_KEY = re.compile(
    r"(?i)(?P<key>[\w.-]*(?:password|passwd|secret|token|api_?key|access_?key|credentials?)"
    r"\s*[=:]\s*)(?P<value>[^\s,}&]+)"
)
_HIDDEN = "***"


def without_secrets(text: str) -> str:
    """Returns a text whose addresses have no user or password, and whose keys are hidden."""
    return _USER.sub(r"\g<scheme>", text)


def hide_keys(command: str) -> str:
    """Returns a command line without secrets, in addresses or as values such as `api_key=...`."""
    return _KEY.sub(rf"\g<key>{_HIDDEN}", without_secrets(command))


def has_password(uri: str) -> bool:
    """Returns whether an address holds a password."""
    return "://" in uri and bool(urlsplit(uri).password)


def with_login(uri: str) -> str:
    """Returns the address with the user and password that `MLFLOW_TRACKING_URI` has for it."""
    own = os.environ.get("MLFLOW_TRACKING_URI", "")
    return own if without_secrets(own) == uri else uri
