"""The configuration of validation and tracking."""

from __future__ import annotations

import json

import pytest

from raydist.config.base import Block
from raydist.config.load import load
from raydist.errors import ConfigError
from raydist.evaluation.spec import Tracking
from raydist.training.spec import Validation


class Config(Block):
    """The fields of a training configuration that are tested here."""

    validation: Validation = {}
    """Listeners by id."""
    tracking: Tracking = Tracking()
    """Tracking."""


BASE = ["validation.dev.corpus=C", "validation.dev.queries=Q", "validation.dev.qrels=R"]


def test_a_listener_needs_its_data_and_has_the_defaults_of_upstream():
    dev = load(Config, [], BASE).validation["dev"]
    assert (dev.metrics, dev.warmup, dev.interval, dev.early_stop) == ({"map": True}, -1, 128, 0)
    assert (dev.kind, dev.retriever.kind, dev.async_) == ("listener", "dense", False)


def test_listeners_are_read_from_the_command_line():
    config = load(
        Config,
        [],
        [
            *BASE,
            "validation.dev.metrics={nDCG@10: true, R@100: false}",
            "validation.dev.interval=50",
            "validation.dev.early_stop=200",
            "validation.dev.async=true",
            "validation.all.kind=aggregate",
            "validation.all.listeners=[dev]",
            "tracking=none",
        ],
    )
    dev = config.validation["dev"]
    assert dev.metrics == {"nDCG@10": True, "R@100": False} and dev.async_
    assert config.validation["all"].listeners == ["dev"] and config.tracking.uri == "none"
    assert dev.corpus.path == ("C",) and config.resolved()["validation"]["dev"]["async"] is True
    assert load(Config, [], []).validation == {} and load(Config, [], []).tracking.uri == "auto"
    assert "async" not in config.identity()["validation"]["dev"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (BASE[:2], "validation.dev.qrels: required"),
        ([*BASE, "validation.dev.early_stop=100"], "multiple of interval = 128"),
        ([*BASE, "validation.dev.intervall=3"], "did you mean validation.dev.interval"),
        ([*BASE, "validation.dev.metrics={ndcg@10: true}"], "did you mean nDCG@10"),
        ([*BASE, "validation.dev.metrics={success: true}"], "stands for Success@1"),
        ([*BASE, "validation.dev.metrics={P: true}"], "'P' needs a cutoff; for example P@10"),
        ([*BASE, "validation.dev.metrics={NumQ: true}"], "is a count"),
        (
            [*BASE, "validation.dev.metrics={AP: false}", "validation.dev.early_stop=128"],
            "no metric is kept",
        ),
        ([*BASE, "validation.dev.retriever=rerank"], "validation.dev.retriever.run: required"),
        (["validation.x.kind=mean"], "expected one of listener, aggregate"),
        ([*BASE, "validation.dev.gpus=0.5"], "gpus = 0.5: only async=true"),
    ],
)
def test_mistakes_are_reported_by_their_key(arguments, text):
    with pytest.raises(ConfigError, match=text):
        load(Config, [], arguments)


@pytest.mark.parametrize("id", ["../../elsewhere", "..", "a/b", "", "a b"])
def test_the_id_of_a_listener_must_be_the_name_of_a_folder(tmp_path, id):
    file = tmp_path / "job.yaml"
    spec = {"corpus": "C", "queries": "Q", "qrels": "R"}
    file.write_text(json.dumps({"validation": {id: spec}}))
    with pytest.raises(ConfigError, match="names a folder: expected letters"):
        load(Config, [str(file)], [])
