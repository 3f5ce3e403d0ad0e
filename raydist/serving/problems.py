"""Errors of the service: one envelope, OpenAI's, whatever went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

__all__ = ["Problem", "from_validation"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable",
    504: "timeout_error",
}


class Problem(Exception):
    """An answer that is an error; the ingress turns it into a response.

    Attributes:
        status: the HTTP status.
        body: the envelope.
        headers: further headers, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: dict[str, Any] = {
            "error": {
                "message": message,
                "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request"),
                "param": param,
                "code": code,
            }
        }

    def __reduce__(self) -> tuple[Any, ...]:
        error = self.body["error"]
        return _rebuild, (self.status, str(self), error["param"], error["code"], self.headers)


def _rebuild(
    status: int, message: str, param: str | None, code: str | None, headers: dict[str, str]
) -> Problem:
    return Problem(status, message, param=param, code=code, headers=headers)


def from_validation(error: ValidationError) -> Problem:
    """Returns 400 for a body that is not JSON, 422 for one with wrong fields, naming the first."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"].startswith("json_"):
        return Problem(400, f"the body is not JSON: {first['msg']}", code="invalid_json")
    where = [str(p) for p in first["loc"] if str(p) not in ("function-after[_clean(), str]", "str")]
    param = ".".join(where) or None
    more = error.error_count() - 1
    message = f"{param or 'body'}: {first['msg'].removeprefix('Value error, ')}"
    return Problem(
        422, message + (f" (and {more} more)" if more else ""), param=param, code=first["type"]
    )
