from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.errors import ConfigError
from raydist.serving import app
from raydist.serving.errors import ServiceError
from raydist.serving.keys import Keys, read_keys, refuse_shown


def test_keys_come_from_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_bytes("\ufeffalpha\n# team\n\n  # other\nbeta\n".encode())
    monkeypatch.setenv("RAYDIST_API_KEYS", "gamma, delta,")
    keys = read_keys(str(file))
    for key in ("alpha", "beta", "gamma", "delta"):
        assert keys.client(f"Bearer {key}") is not None
    for wrong in ("# team", "# other", ""):
        assert keys.client(f"Bearer {wrong}") is None
    assert keys.client(None) is None and keys.client("alpha") is None
    assert not Keys([])


def test_keys_that_no_header_can_carry_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAYDIST_API_KEYS", raising=False)
    file = tmp_path / "keys"
    for content, message in (
        ("alpha\nschlüssel".encode(), "key 2 has a character that is not ASCII"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b" # nothing\n", "has no key"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_keys(str(file))
    monkeypatch.setenv("RAYDIST_API_KEYS", "schlüssel")
    with pytest.raises(ConfigError, match="RAYDIST_API_KEYS: key 1"):
        read_keys()


def test_the_ingress_has_the_builders_keys_whatever_its_own_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker on another machine inherits nothing of the terminal that started the service."""
    monkeypatch.setenv("RAYDIST_API_KEYS", "secret")
    built = app.build(load(ServeConfig, (), ["reranker=bm25", "host=0.0.0.0"]))
    monkeypatch.delenv("RAYDIST_API_KEYS")
    sent = cloudpickle.loads(cloudpickle.dumps(built._bound_deployment.init_args))
    keys = next(argument for argument in sent if isinstance(argument, Keys))
    assert keys.admit("Bearer secret", "10.0.0.7")
    with pytest.raises(ServiceError, match="valid key"):
        keys.admit(None, "127.0.0.1")
    assert b"secret" not in cloudpickle.dumps(keys)


def test_keys_that_rays_dashboard_would_show_are_refused() -> None:
    refuse_shown({"OTHER": "a"})
    with pytest.raises(ConfigError, match="dashboard shows RAYDIST_API_KEYS"):
        refuse_shown({"RAYDIST_API_KEYS": "secret"})


class Call:
    """A replica's method that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def remote(self, *_: Any) -> Call:
        return self

    def __await__(self) -> Any:
        raise self.error
        yield


def test_a_failing_model_is_not_taken_for_a_lost_replica() -> None:
    cause = RuntimeError("out of memory")
    failed = RayTaskError("score", "Traceback: out of memory", cause).as_instanceof_cause()
    understood = RayTaskError("check", "", ServiceError(503, "not yet", "not_ready"))
    for error, status, code in (
        (failed, 500, "model_failed"),
        (understood.as_instanceof_cause(), 503, "not_ready"),
        (ActorDiedError(), 503, "not_ready"),
    ):
        with pytest.raises(ServiceError) as caught:
            asyncio.run(app._remote(Call(error)))
        assert (caught.value.status, caught.value.code) == (status, code)
        assert "memory" not in caught.value.message
