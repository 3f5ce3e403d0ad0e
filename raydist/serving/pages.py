"""The pages for people: a search box at /, the reference at /docs. Neither loads anything else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from raydist.serving.docs import docs_page

_PAGE = Path(__file__).with_name("page.html")


def add_pages(app: FastAPI) -> None:
    """Adds the pages to an application."""

    async def page() -> HTMLResponse:
        return _answer(_PAGE.read_text(encoding="utf-8"))

    async def docs() -> HTMLResponse:
        return _answer(docs_page(app.openapi()))

    for path, handler in (("/", page), ("/docs", docs)):
        app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)(handler)


def policy(page: str) -> str:
    """Returns the Content-Security-Policy of a page: its own scripts and styles, and no others."""

    def hashes(element: str) -> str:
        contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digests = (hashlib.sha256(each.encode()).digest() for each in contents)
        return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests) or "'none'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _answer(page: str) -> HTMLResponse:
    headers = {
        "Content-Security-Policy": policy(page),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(page, headers=headers)
