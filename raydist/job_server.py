"""The job server of a cluster, behind the URL of its dashboard."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raydist.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.job_submission import JobSubmissionClient

_PATIENCE_S = 8.0  # for a connection, and for the first answer
_REMEDY = (
    "expected the URL of the cluster's dashboard, as http://127.0.0.1:8265 once ray dashboard "
    "CLUSTER.yaml forwards it"
)


def connect(address: str) -> JobSubmissionClient:
    """Returns a client of the job server.

    Args:
        address: the URL of a dashboard; http:// where it has no scheme.

    Raises:
        JobError: no dashboard answers there soon, or it wants a token.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    url = address.strip().rstrip("/") if "://" in address else f"http://{address.strip()}"
    _check(address, url)
    try:
        with _only(url):
            return JobSubmissionClient(url)
    except AuthenticationError as error:
        raise JobError(
            f"address = {address}: {str(error).splitlines()[0]}; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN, or put the cluster's token into ~/.ray/auth_token"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise JobError(f"address = {address}: {str(error).splitlines()[0]}; {_REMEDY}") from error


def _check(address: str, url: str) -> None:
    """Raises JobError unless a dashboard answers; Ray's client would wait without a limit."""
    import httpx

    try:
        # Only asks whether somebody is there: the client checks certificates and sends the token.
        answer = httpx.get(
            f"{url}/api/version", timeout=_PATIENCE_S, verify=False, follow_redirects=True
        )
        token_wanted = answer.status_code in (401, 403)
        problem = "" if token_wanted or "ray_version" in answer.json() else "no dashboard of Ray"
    except (ValueError, TypeError):
        problem = "no dashboard of Ray"
    except httpx.TimeoutException:
        problem = "does not answer"
    except httpx.ConnectError as error:
        problem = str(error) or "does not answer"
    except (httpx.HTTPError, httpx.InvalidURL):
        problem = "no web server"
    if problem:
        raise JobError(f"address = {address}: {problem}; {_REMEDY}")


@contextmanager
def _only(url: str) -> Iterator[None]:
    """Makes Ray's client take this address: its environment would win over any other."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def read_log(client: Any, job: str) -> str:
    """Returns a job's log, also one that is not UTF-8, with a mark for each wrong byte.

    The job server decodes strictly and, where that fails, answers with an error that does not say
    so. What serves all log files sends bytes.
    """
    try:
        return str(client.get_job_logs(job))
    except RuntimeError:
        node = client.get_job_info(job).driver_node_id
        parameters = {"submission_id": job, "node_id": node, "lines": -1}
        answer = client._do_request("GET", "/api/v0/logs/file", params=parameters)
        if answer.status_code != 200:
            raise
    text = answer.content.decode("utf-8", "replace")
    return str(text.replace("\r\n", "\n").replace("\r", "\n"))  # as the job server does
