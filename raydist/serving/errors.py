"""Errors of the HTTP service, all in one envelope that every client reads.

`{error: {message, type, param, code}, message, detail}`: OpenAI's clients read `error`, Cohere's
`message`, Voyage's and Jina's `detail`. TEI's clients need `error` as a string.
"""

from __future__ import annotations

import math

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable",
    504: "timeout_error",
}


_TEI_TYPES = {
    400: "Validation",
    413: "Validation",
    422: "Validation",
    429: "Overloaded",
    503: "Unhealthy",
}


class ServiceError(Exception):
    """An answer that is an error.

    Args:
        status: the HTTP status.
        message: the fault, and what is allowed.
        code: a short word for programs.
        param: the field, if one is at fault.
        headers: to be sent along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or {}

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.status, self.message, self.code, self.param, self.headers)

    def body(self, *, tei: bool = False) -> dict[str, object]:
        """Returns the envelope, or its form for TEI's clients."""
        if tei:
            error_type = _TEI_TYPES.get(self.status, "Backend")
            fields = {"error": self.message, "error_type": error_type}
            return {**fields, "message": self.message, "detail": self.message}
        error = {
            "message": self.message,
            "type": _TYPES.get(self.status, "server_error"),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error, "message": self.message, "detail": self.message}


def _rebuild(
    status: int, message: str, code: str, param: str | None, headers: dict[str, str]
) -> ServiceError:
    return ServiceError(status, message, code, param=param, headers=headers)


def overloaded(retry_after_s: float, what: str) -> ServiceError:
    """Returns a 429 with the time to wait."""
    seconds = max(1, math.ceil(retry_after_s))
    return ServiceError(
        429,
        f"{what}; try again in {seconds} s",
        "overloaded",
        headers={"Retry-After": str(seconds)},
    )


def not_ready(message: str, retry_after_s: float = 1) -> ServiceError:
    """Returns a 503 with the time to wait."""
    seconds = max(1, math.ceil(retry_after_s))
    return ServiceError(503, message, "not_ready", headers={"Retry-After": str(seconds)})


def deadline(seconds: float) -> ServiceError:
    """Returns a 504."""
    return ServiceError(504, f"not answered within {seconds:g} s", "deadline")
