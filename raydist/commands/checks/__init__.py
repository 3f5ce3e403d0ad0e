"""Parts of the doctor verb."""

from __future__ import annotations

import re

Finding = tuple[str, str, str]
"""`ok`, `note` or `bad`, then what was looked at, then what was found."""


def brief(text: object) -> str:
    """Returns an error's or address's first line, without the password that a URL may hold."""
    first = str(text).partition("\n")[0] or type(text).__name__
    return re.sub(r"(://[^/\s:@]*:)[^/\s]*@", r"\1***@", first)
