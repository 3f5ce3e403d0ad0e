from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydist.config.load import load
from raydist.config.training import DistillConfig, TrainConfig
from raydist.errors import ConfigError

LINE = ["data=train.jsonl", "model=PATH", "out=DIR"]


def train(*words: str) -> TrainConfig:
    return load(TrainConfig, (), [*LINE, *words])


def distill(*words: str) -> DistillConfig:
    return load(DistillConfig, (), ["data=d.jsonl", "model=PATH", "out=DIR", *words])


def test_the_lines_of_the_handbook_are_read() -> None:
    config = train(
        *("workers=2", "steps=100", "batch_size=32", "loss.kind=infonce"),
        *("loss.scope=cross_device", "distill.kind=kl_div", "model.dropout=0", "log_every=1"),
    )
    assert config.data is not None and config.data.path == ("train.jsonl",)
    assert config.model.path == "PATH" and config.model.dropout == 0 and config.steps == 100
    assert config.loss is not None and config.loss.kind == "infonce"
    assert train("loss.kind=biir", "loss.training_type=retrieval_answer_passage").loss is not None
    assert train("loss.temperature=0.05").objectives()["infonce"].weight == 1
    for kind in ("adr_mse", "distill_ranknet", "listwise_softmax_ce"):
        student = distill("corpus=c", "queries=q", f"loss.kind={kind}")
        assert list(student.objectives()) == [kind] and student.model.kind == "crossencoder"


def test_scalars_set_the_primary_fields() -> None:
    config = train("optim=1e-4", "cache=16", "deepspeed=2", "checkpoint=50", "tracking=none")
    assert (config.optim.lr, config.cache.chunk_size, config.deepspeed.zero) == (1e-4, 16, 2)
    assert config.checkpoint.every == 50 and config.tracking.uri == "none"
    assert distill("target=binary(2)").target.threshold == 2  # type: ignore[union-attr]
    bi = distill("model.kind=biencoder", "model.pooling=mean")
    assert bi.model.kind == "biencoder" and bi.model.path == "PATH"


def test_several_losses_and_data_sets_have_names() -> None:
    config = load(
        TrainConfig,
        (),
        [
            *("datasets.a.path=a.jsonl", "datasets.b.path=b.jsonl", "datasets.b.weight=0.5"),
            *("model=P", "out=D", "losses.x.kind=infonce", "losses.y.kind=kl_div"),
            "losses.y.weight=0.3",
        ],
    )
    assert list(config.sets()) == ["a", "b"] and config.sets()["b"].weight == 0.5
    assert config.loss is None and list(config.objectives()) == ["x", "y"]


def test_a_saved_configuration_loads_as_itself(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for config in (
        train("distill=none"),
        train("losses.x.kind=infonce"),
        distill("sampler.kind=negatives", "qrels=q.txt", "target=minmax"),
    ):
        path.write_text(json.dumps(config.resolved()))
        assert load(type(config), [str(path)]) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["datasets.a.path=x"], "one of data and datasets"),
        (["batch_size=3", "workers=4"], "batch_size = 3: expected at least one sample for each"),
        (["batch_size=4", "accumulation=8"], "8 accumulation parts"),
        (["loss.temperature=0"], "loss.temperature = '0': input should be greater"),
        (["loss.kind=infonse"], "loss.kind = 'infonse': expected one of"),
        (["optim.lrr=1"], "optim.lrr.*lr"),
        (["losses.a.kind=infonce", "loss.kind=infonce"], "give only one of them"),
        (["deepspeed.zero=4"], "deepspeed.zero"),
        (["validation.dev.interval=50"], "validation.dev.corpus"),
    ],
)
def test_mistakes_are_reported_by_their_key(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(*words)


def test_a_cross_encoder_scores_only_its_own_lists() -> None:
    with pytest.raises(ConfigError, match="scores each list on its own"):
        distill("loss.kind=infonce", "loss.scope=cross_device")
    with pytest.raises(ConfigError, match="needs a bi-encoder"):
        distill("loss.kind=biir")
    with pytest.raises(ConfigError, match="needs qrels=PATH"):
        distill("sampler.kind=negatives")


def test_settings_of_the_execution_are_not_part_of_the_identity() -> None:
    assert train().identity() == train("workers=2", "log_every=1", "tracking=none").identity()
    assert train().identity() == train("cache=8", "checkpoint=3").identity()
    assert train().identity() != train("seed=1").identity()


HALF = "model.dtype=bfloat16"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (train, (HALF,)),
        (distill, (HALF, "corpus=c", "queries=q")),
        (distill, (HALF, "corpus=c", "queries=q", "model.lora.r=8")),  # and its head
    ],
)
def test_half_precision_weights_are_refused_where_their_updates_would_be_lost(
    config: Callable[..., Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"model\.dtype = bfloat16: .*model\.autocast=bfloat16"):
        config(*words)
    assert config(*words, "deepspeed.zero=1").model.dtype == "bfloat16"


def test_half_precision_is_allowed_for_adapters_and_autocast() -> None:
    assert train(HALF, "model.lora.r=8").model.lora is not None
    assert train("model.autocast=bfloat16").model.dtype == "float32"
    for field in ("dtype", "autocast"):  # its gradients need scaling
        with pytest.raises(ConfigError, match=rf"model\.{field}.*'bfloat16'"):
            train(f"model.{field}=float16")
