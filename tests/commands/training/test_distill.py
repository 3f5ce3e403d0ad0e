from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from raydist.cli import main
from raydist.models.crossencoder import CrossEncoderModel
from raydist.reranking.cross_encoder import CrossEncoder
from raydist.reranking.spec import CrossEncoderSpec
from tests.commands.training.runs import VALIDATION, metrics
from tests.training.small import texts

STAGES = [Path(__file__).parents[3] / "jobs/rank-distillm" / f"stage{i}.yaml" for i in (1, 2)]
SOURCES = ["corpus=corpus.jsonl", "queries=queries.jsonl", "tracking=none", "log_every=1"]


def judge(offset: int) -> None:
    """Judges one document of each query."""
    Path("qrels.txt").write_text("".join(f"q{i} 0 d{i + offset} 1\n" for i in range(8)))


def rank(scale: int = 1) -> None:
    """Writes a run of 12 documents of each query."""
    lines = (
        f"q{i} Q0 d{i + j} {j + 1} {scale * (20 - j)} r\n" for i in range(8) for j in range(12)
    )
    Path("run.txt").write_text("".join(lines))


@pytest.fixture
def run(files: Path) -> None:
    """A run of 12 documents of each query, one of them judged."""
    judge(5)
    rank()


def distill(model: Path, out: str, *words: str) -> list[str]:
    command = ["distill", "data=run.txt", *SOURCES, f"model={model}", f"out={out}", "steps=2"]
    return [*command, "batch_size=4", "model.dropout=0", *words]


def test_both_stages_of_rank_distillm_run_and_the_second_finds_the_first(
    run: None, model: Path
) -> None:
    first, second = (yaml.safe_load(stage.read_text()) for stage in STAGES)
    assert second["model"]["path"] == f"{first['storage']}/{first['out']}"
    small = [
        *("data=run.txt", *SOURCES, "model.max_length=40", "storage=store", "steps=2"),
        *("batch_size=4", "workers=0", "gpus_per_worker=0", "deepspeed.zero=0"),
    ]
    start = [str(STAGES[0]), *small, "qrels=qrels.txt", f"model.path={model}"]
    assert main(["distill", *start]) == 0
    assert "loss/infonce_list" in metrics(f"store/{first['out']}")[0]
    assert main(["distill", str(STAGES[1]), *small, f"model.path=store/{first['out']}"]) == 0
    assert "loss/adr_mse" in metrics(f"store/{second['out']}")[0]


@pytest.mark.parametrize("loss", ["adr_mse", "listnet", "listwise_softmax_ce"])
def test_lists_with_judgements_have_their_grades_as_targets(
    run: None, model: Path, loss: str
) -> None:
    """Another run's scores in the same order change nothing; another judgement does."""
    losses = []
    for name, scores, judged in (("a", 1, 5), ("b", 7, 5), ("c", 1, 4)):
        rank(scores)
        judge(judged)
        assert main(distill(model, name, f"loss.kind={loss}", "qrels=qrels.txt")) == 0
        losses.append(metrics(name)[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("output", ["prob", "log_prob"])
def test_a_student_that_emits_probabilities_learns_and_is_saved_with_them(
    run: None, model: Path, output: str
) -> None:
    words = ["loss.kind=listwise_softmax_ce", f"model.output={output}", "optim.lr=1e-3"]
    assert main(distill(model, "a", *words, "steps=8")) == 0
    losses = [entry["loss"] for entry in metrics("a")]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    scores = CrossEncoder(CrossEncoderSpec(model="a", device="cpu")).score(
        [("river stone", texts()[:5])]
    )[0]
    assert all(0 < score < 1 for score in scores)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.output=prob"], "only listwise_softmax_ce takes probabilities; adr_mse needs"),
        (["qrels=qrels.txt", "target=rank"], "target = rank: applies to a teacher's scores"),
        (["qrels=qrels.txt", "loss.kind=kl_div"], "has no teacher scores, which kl_div needs"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_starts(
    run: None, model: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(distill(model, "a", *words)) == 2
    assert message in capsys.readouterr().err
    assert not Path("a").exists()


@pytest.mark.parametrize("loss", ["adr_mse", "distill_ranknet", "listwise_softmax_ce"])
def test_distill_trains_a_cross_encoder_from_lists(
    files: Path, model: Path, loss: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data=distill.jsonl", f"loss.kind={loss}", "sampler.size=5"]
    assert main(distill(model, "a", *words)) == 0
    assert f"loss/{loss}" in metrics("a")[0]
    assert ("target=minmax" in capsys.readouterr().err) == (loss == "listwise_softmax_ce")
    scorer = CrossEncoderModel.load("a", device="cpu")
    assert scorer.contract.kind == "crossencoder"


def test_distill_trains_a_bi_encoder_and_takes_judged_positives(files: Path, model: Path) -> None:
    words = [
        *("data=distill.jsonl", "model.kind=biencoder", "qrels=qrels.txt", "batch_size=1"),
        *("sampler.kind=negatives", "sampler.passages_per_query=3"),
        *("loss.kind=infonce", "distill=none"),
    ]
    assert main(distill(model, "a", *words)) == 0
    manifest = json.loads(Path("a/manifest.json").read_text())
    assert manifest["trained"] == "biencoder" and manifest["samples"]["data"] == 3


def test_steps_of_a_number_of_tokens_are_planned_run_and_refused_with_the_least(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = distill(model, "a", "data=distill.jsonl", "batch_tokens=900")
    words.remove("batch_size=4")
    assert main(words) == 0
    manifest = json.loads(Path("a/manifest.json").read_text())
    assert manifest["outcome"]["step"] == 2 and manifest["steps_per_epoch"] > 1
    assert list(Path("a/data/data").glob("lengths-*.npy"))
    for more, message in (
        (["batch_tokens=9"], "9: data has samples of "),
        (["data.batch_size=4"], "data.batch_size = 4: batch_tokens = 900 says how many"),
    ):
        assert main([*words, *more, "out=b"]) == 2
        assert message in capsys.readouterr().err and not Path("b").exists()


def test_a_cross_encoder_is_not_validated_by_a_search(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(distill(model, "a", "data=distill.jsonl", *VALIDATION)) == 2
    assert "validation.dev.retriever = dense: a cross-encoder" in capsys.readouterr().err
    assert not Path("a").exists()
