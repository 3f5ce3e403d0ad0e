"""Registered models: finding one by its name, and moving an alias to a better one.

A reference is `models:/NAME@ALIAS` or `models:/NAME/VERSION`. An alias moves only after a paired
test against its holder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from raydist.errors import ConfigError
from raydist.evaluation.follower import State
from raydist.evaluation.metric_names import metric_name
from raydist.evaluation.mlflow_store import (
    connect,
    create_run,
    download,
    mlflow_errors,
    read_artifact,
)
from raydist.evaluation.significance import compare
from raydist.evaluation.tracking import facts
from raydist.fingerprints import value_fingerprint
from raydist.stores.copies import cache_folder

REGISTERED = "models:/"
"""The prefix of a reference to a registered model."""

_LONGEST_CARD = 5000  # characters of a version's description, MLflow's limit
_ARTIFACTS = ("runs", "models", "mlflow-artifacts")
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def registered(reference: str, uri: str) -> tuple[str, str]:
    """Returns a registered model's folder (or the URI of one) and its version.

    A model among MLflow's artifacts is copied to the cache first.

    Args:
        reference: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        uri: MLflow's, from `resolve_uri`.

    Raises:
        ConfigError: the reference is of another form.
        JobError: MLflow cannot be reached, or has no such model.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(f"{reference}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    client = connect(uri)
    with mlflow_errors(uri):
        if match["alias"]:
            model = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            model = client.get_model_version(match["name"], match["version"])
        parts = urlsplit(model.source)
        if parts.scheme in _ARTIFACTS:
            copy = cache_folder() / "registered" / value_fingerprint([uri, model.source])
            if not copy.is_dir():
                download(uri, model.source, copy)
            return str(copy), str(model.version)
    if parts.scheme in ("", "file"):
        return unquote(parts.path), str(model.version)
    return str(model.source), str(model.version)


@dataclass(frozen=True, slots=True)
class Promotion:
    """The result of registering a model.

    Attributes:
        version: its version in the registry.
        moved: whether the alias now points to it.
        reason: why, or why not, in one sentence.
    """

    version: int
    moved: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model to be registered, and that may become an alias's holder.

    Attributes:
        name: registered model, created if missing.
        folder: of the model.
        metric: measure that decides; the holder must have been measured by the same one.
        values: this model's value for each query; none if it was not measured.
        fingerprint: of the model; a version of this fingerprint and folder is taken as it is.
        run_id: run that made the model; one is created for a new version if it is not known.
        model_id: LoggedModel that it is.
        upload: keep the model's files among the run's artifacts, as where `folder` will not stay;
            an MLflow server, which takes no local folder for a source, gets them in any case.
        experiment: of a run that is created.
    """

    name: str
    folder: str | os.PathLike[str]
    fingerprint: str
    metric: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    run_id: str | None = None
    model_id: str | None = None
    upload: bool = False
    experiment: str = "raydist"

    @property
    def tag(self) -> str:
        """The tag of a version that names the values per query."""
        return f"per_query.{metric_name(self.metric)}"


def register(uri: str, candidate: Candidate) -> int:
    """Registers a model, with its card as the description, and returns its version.

    Raises:
        JobError: MLflow cannot be reached or refuses.
    """
    client = connect(uri)
    with mlflow_errors(uri):
        return int(_register(client, uri, candidate))


def promote(
    uri: str, candidate: Candidate, *, alias: str = "champion", level: float = 0.05
) -> Promotion:
    """Registers a model and moves an alias to it if it beats the alias's present holder.

    The holder is beaten if the mean over the queries that both were measured on is higher and a
    paired t-test gives p < `level`; without a holder, or where the holder is the same model in
    another folder, the alias is set without a test. The values are an artifact of the run that made
    the model, which the version's tags name: they outlive the folder.

    Args:
        uri: MLflow's URI.
        candidate: the model and its values.
        alias: for example `champion`.
        level: of significance.

    Raises:
        JobError: MLflow cannot be reached or refuses.
    """
    client = connect(uri)
    with mlflow_errors(uri):
        version = _register(client, uri, candidate)
        moved, reason = _compare(client, candidate, version, alias, level)
        if moved:
            client.set_registered_model_alias(candidate.name, alias, version)
        return Promotion(int(version), moved, reason)


def _register(client: Any, uri: str, candidate: Candidate) -> str:
    """Returns the candidate's version, created if there is none, with its values per query."""
    name, tag, run_id = candidate.name, candidate.tag, candidate.run_id
    upload = candidate.upload or uri.startswith(("http://", "https://"))
    location = Path(candidate.folder).absolute().as_uri()
    if not client.search_registered_models(f"name = '{name}'", max_results=1):
        client.create_registered_model(name)
    model = None
    for each in client.search_model_versions(f"name = '{name}'"):
        same = each.tags.get("fingerprint") == candidate.fingerprint
        if model is None and same and (upload or each.source == location):
            model = each
    measured = bool(candidate.values) and (model is None or tag not in model.tags)
    if run_id is None and (model is None or measured):
        tags = facts() | {"raydist.verb": "export"}
        run_id = create_run(client, State(uri, candidate.experiment, f"export {name}", tags)).run_id
        client.set_terminated(run_id)
    if model is None:
        if upload:
            inside = f"registered/{name}-{candidate.fingerprint}"
            client.log_artifacts(run_id, str(candidate.folder), inside)
            location = f"runs:/{run_id}/{inside}"
        # MLflow's own stores forget `model_id`, so it is a tag as well.
        tags = {"fingerprint": candidate.fingerprint}
        tags |= {"model_id": candidate.model_id} if candidate.model_id else {}
        model = client.create_model_version(
            name,
            location,
            run_id,
            tags,
            description=_card(Path(candidate.folder)),
            model_id=candidate.model_id,
        )
    version = str(model.version)
    if measured:
        metric, values = metric_name(candidate.metric), candidate.values
        file = f"registered/{name}-{version}/{metric}.json"
        client.log_text(run_id, json.dumps(dict(values)), file)
        mean = sum(values.values()) / max(len(values), 1)
        client.set_model_version_tag(name, version, metric, f"{mean:.6f}")
        client.set_model_version_tag(name, version, tag, f"runs:/{run_id}/{file}")
    return version


def _card(folder: Path) -> str | None:
    """Returns a model's card without the front matter that only hubs read."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    return re.sub(r"\A---\n.*?\n---\n+", "", text, flags=re.DOTALL)[:_LONGEST_CARD]


def _compare(
    client: Any, candidate: Candidate, version: str, alias: str, level: float
) -> tuple[bool, str]:
    """Returns whether the alias moves to a version, and why."""
    name, values = candidate.name, candidate.values
    if alias not in client.get_registered_model(name).aliases:
        return True, f"{name} had no {alias}"
    holder = client.get_model_version_by_alias(name, alias)
    if str(holder.version) == version:
        return True, f"version {version} is {alias} already"
    if holder.tags.get("fingerprint") == candidate.fingerprint:
        return True, f"version {version} is the same model as version {holder.version}"
    text = read_artifact(client, holder.tags.get(candidate.tag, ""))
    old: dict[str, float] = json.loads(text) if text is not None else {}
    common = sorted(old.keys() & values.keys())
    if len(common) < 2:
        return False, (
            f"{alias} is version {holder.version}, whose {candidate.metric} is not known of these "
            "queries: nothing to test against; remove the alias in MLflow to set it untested"
        )
    result = compare(np.array([values[q] for q in common]), np.array([old[q] for q in common]))
    better = result.difference > 0 and result.p < level
    return better, (
        f"version {version} {'beats' if better else 'does not beat'} version {holder.version}: "
        f"{candidate.metric} {result.difference:+.4f} on {len(common)} queries, {result.test}, "
        f"p = {result.p:.3g}"
    )
