"""Who is champion: a registered model's alias moves after a paired test against its holder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raydist.evaluation.mlflow_store import connect, mlflow_errors
from raydist.evaluation.significance import compare

__all__ = ["Promotion", "promote"]


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a model that was registered.

    Attributes:
        version: its version in the registry.
        moved: whether the alias now points to it.
        reason: why, or why not: one sentence.
    """

    version: int
    moved: bool
    reason: str


def promote(
    uri: str,
    name: str,
    source: str | os.PathLike[str],
    *,
    alias: str = "champion",
    metric: str,
    values: Mapping[str, float],
    run_id: str | None = None,
    model_id: str | None = None,
    level: float = 0.05,
) -> Promotion:
    """Registers a model and moves an alias to it if it beats the alias's present holder.

    The holder is beaten if the mean over the queries that both were measured on is higher and a
    paired t-test gives p < `level`; without a holder the alias is simply set. The values are
    kept as `per_query.json` in `source`, which the version's tags name.

    Args:
        uri: MLflow's URI.
        name: registered model, created if need be.
        source: the model's folder.
        alias: for example `champion`.
        metric: measure that decides; the holder must have been measured by the same one.
        values: this model's value for each query.
        run_id: run that made the model.
        model_id: LoggedModel that it is.
        level: of significance.

    Raises:
        JobError: MLflow cannot be reached or refuses.
    """
    folder = Path(source).absolute()
    record = folder / "per_query.json"
    record.write_text(json.dumps({"metric": metric, "values": dict(values)}), encoding="utf-8")
    client = connect(uri)
    with mlflow_errors(uri):
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        tags = {"metric": metric, "mean": f"{sum(values.values()) / max(len(values), 1):.6f}"}
        made = client.create_model_version(
            name, folder.as_uri(), run_id, {**tags, "per_query": str(record)}, model_id=model_id
        )
        version = int(made.version)
        registered = client.get_registered_model(name)
        if alias not in registered.aliases:
            client.set_registered_model_alias(name, alias, str(version))
            return Promotion(version, True, f"{name} had no {alias}")
        holder = client.get_model_version_by_alias(name, alias)
        try:
            old = json.loads(Path(holder.tags["per_query"]).read_text(encoding="utf-8"))
        except (KeyError, OSError, ValueError):
            old = {"metric": "unknown", "values": {}}
        common = sorted(old["values"].keys() & values.keys())
        if old["metric"] != metric or len(common) < 2:
            why = f"{alias} is version {holder.version}, whose {metric} per query is not known"
            return Promotion(version, False, f"{why}: nothing to test against")
        result = compare(
            np.array([values[q] for q in common]), np.array([old["values"][q] for q in common])
        )
        won = result.difference > 0 and result.p < level
        if won:
            client.set_registered_model_alias(name, alias, str(version))
        verb = "beats" if won else "does not beat"
        return Promotion(
            version,
            won,
            f"version {version} {verb} version {holder.version}: {metric} {result.difference:+.4f} "
            f"on {len(common)} queries, {result.test}, p = {result.p:.3g}",
        )
