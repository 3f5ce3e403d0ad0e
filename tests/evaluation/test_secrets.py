"""What is written down has no passwords."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raydist.evaluation.secrets import hide_keys, with_login, without_secrets
from raydist.evaluation.spec import Tracking
from raydist.evaluation.tracking import resolve_uri


def test_addresses_lose_their_user_and_password_and_nothing_else_changes() -> None:
    text = "at https://ann:s3cret@host:5000/a and postgresql+psycopg://u:p@db/m, a@b.c"
    assert without_secrets(text) == "at https://host:5000/a and postgresql+psycopg://db/m, a@b.c"
    for same in ("sqlite:////a/b@c/mlflow.db", "models:/name@champion", "s3://bucket/x@y"):
        assert without_secrets(same) == same


def test_the_keys_of_a_command_are_hidden() -> None:
    command = "raydist load url=http://u:pw@h api_key=abc token=d/e seed=1 model.tokenizer=x"
    hidden = "raydist load url=http://h api_key=*** token=*** seed=1 model.tokenizer=x"
    assert hide_keys(command) == hidden


def test_the_environments_password_is_used_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cret@host:5000")
    uri = resolve_uri("auto")
    assert uri == "http://host:5000" and with_login(uri) == "http://ann:s3cret@host:5000"
    assert with_login("http://other:5000") == "http://other:5000"


def test_a_password_in_the_configuration_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as error:
        replace(Tracking(), uri="http://ann:s3cret@host:5000")
    assert "s3cret" not in str(error.value)
