"""Models by their place in the registry: `models:/NAME@ALIAS` or `models:/NAME/VERSION`."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from raydist.errors import ConfigError
from raydist.evaluation.mlflow_store import connect, download, mlflow_errors
from raydist.fingerprints import value_fingerprint
from raydist.stores.copies import cache_folder

REGISTERED = "models:/"
"""What a reference to a registered model begins with."""

_ARTIFACTS = ("runs", "models", "mlflow-artifacts")
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def registered(reference: str, uri: str) -> tuple[str, str]:
    """Returns a registered model's folder (or the URI of one) and its version.

    What lies among MLflow's artifacts is copied to the cache first.

    Args:
        reference: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        uri: MLflow's, from `resolve_uri`.

    Raises:
        ConfigError: the reference is of another form.
        JobError: MLflow cannot be reached, or has no such model.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ConfigError(f"{reference}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    client = connect(uri)
    with mlflow_errors(uri):
        if found["alias"]:
            model = client.get_model_version_by_alias(found["name"], found["alias"])
        else:
            model = client.get_model_version(found["name"], found["version"])
        parts = urlsplit(model.source)
        if parts.scheme in _ARTIFACTS:
            copy = cache_folder() / "registered" / value_fingerprint([uri, model.source])
            if not copy.is_dir():
                download(uri, model.source, copy)
            return str(copy), str(model.version)
    if parts.scheme in ("", "file"):
        return unquote(parts.path), str(model.version)
    return str(model.source), str(model.version)
