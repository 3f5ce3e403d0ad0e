from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

import raydist
from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.errors import ConfigError
from raydist.serving.app import build, deployment
from raydist.serving.replicas import Scorer

ROOT = Path(raydist.__file__).parents[1]
JOBS = sorted((ROOT / "jobs" / "serve").glob("*.yaml"))
CLUSTER = sorted((ROOT / "cluster" / "serve").glob("*.yaml"))


@pytest.mark.parametrize("file", JOBS, ids=lambda path: path.name)
def test_every_recipe_is_a_valid_configuration(file: Path) -> None:
    load(ServeConfig, [str(file)])


def unknown_keys(model: type[BaseModel], data: dict[str, Any], where: str = "") -> list[str]:
    """Returns the keys that Serve would silently ignore."""
    unknown = []
    for key, value in data.items():
        field = model.model_fields.get(key)
        if field is None:
            unknown.append(f"{where}{key}")
            continue
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if isinstance(t, type)]
        for each in inner:
            if issubclass(each, BaseModel):
                for item in value if isinstance(value, list) else [value]:
                    unknown += unknown_keys(each, item, f"{where}{key}.")
                break
    return unknown


@pytest.mark.parametrize("file", CLUSTER, ids=lambda path: path.name)
def test_every_serve_file_is_valid_and_on_loopback(file: Path) -> None:
    data = yaml.safe_load(file.read_text())
    ServeDeploySchema.model_validate(data)
    assert unknown_keys(ServeDeploySchema, data) == []
    assert data["http_options"]["host"] == "127.0.0.1"
    (application,) = data["applications"]
    config = ServeConfig.model_validate(application["args"])
    assert data["http_options"]["request_timeout_s"] > config.limits.deadline_s
    assert build(config) is not None


def test_others_can_connect_only_with_keys_or_on_purpose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAYDIST_API_KEYS", raising=False)
    with pytest.raises(ConfigError, match="keys are needed"):
        build(load(ServeConfig, (), ["reranker=bm25", "host=0.0.0.0"]))
    build(load(ServeConfig, (), ["reranker=bm25", "host=0.0.0.0", "anonymous=true"]))
    keys = tmp_path / "keys"
    keys.write_text("key\n")
    build(load(ServeConfig, (), ["reranker=bm25", "host=0.0.0.0", f"keys_file={keys}"]))


def test_how_replicas_scale_reaches_serve() -> None:
    words = ["min=1", "max=4", "target_ongoing=3", "upscale_delay_s=5", "downscale_delay_s=60"]
    words = ["reranker=bm25", *(f"replicas.{word}" for word in words), "replicas.look_back_s=4"]
    config = load(ServeConfig, (), words)
    scaling = deployment(Scorer, "scorer", config, "bm25")._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)
    assert scaling.target_ongoing_requests == 3 and scaling.look_back_period_s == 4
    assert (scaling.upscale_delay_s, scaling.downscale_delay_s) == (5, 60)
    assert scaling.policy.get_policy().__name__ == "ByTokens"
    assert scaling.policy.policy_kwargs == {"target_wait_s": 1.0}
    two = load(ServeConfig, (), ["reranker=bm25", "replicas=2"])
    fixed = deployment(Scorer, "scorer", two, "bm25")
    assert fixed.num_replicas == 2 and fixed._deployment_config.autoscaling_config is None


def test_registered_models_are_called_by_their_name() -> None:
    words = ["reranker=models:/toy@champion", "embedder=models:/vectors/3"]
    config = load(ServeConfig, (), words)
    assert config.models() == ["toy", "vectors"]
    with pytest.raises(ConfigError, match="reranker"):
        load(ServeConfig, (), ["reranker=models:/toy"])


def test_a_folder_has_a_name_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "model" / "inside"
    inside.mkdir(parents=True)
    for here, word, name in ((inside.parent, ".", "model"), (inside, "..", "model")):
        monkeypatch.chdir(here)
        assert load(ServeConfig, (), [f"embedder={word}"]).models() == [name]
    config = load(ServeConfig, (), ["reranker=Qwen/Qwen3-Reranker-0.6B", "embedder=a/b"])
    assert config.aliases() == {"Qwen/Qwen3-Reranker-0.6B": "Qwen3-Reranker-0.6B", "a/b": "b"}


def test_nothing_to_serve_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to serve"):
        load(ServeConfig, (), ["port=8000"])


def test_the_dashboards_metrics_exist() -> None:
    from raydist.serving import metrics

    source = Path(metrics.__file__).read_text()
    board = json.loads((ROOT / "cluster" / "grafana-serving.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(queries) >= 8
    for query in queries:
        for name in re.findall(r"ray_(raydist_\w+)", query):
            base = name.removesuffix("_bucket").removesuffix("_total")
            stage = base.removeprefix("raydist_").removesuffix("_seconds")
            assert f'"{base}"' in source or stage in ("queue", "tokenize", "infer"), name
