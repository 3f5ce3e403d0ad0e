from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydist.cli import main
from raydist.rerank.cross_encoder import CrossEncoder
from raydist.rerank.spec import CrossEncoderSpec
from tests.training.small import checkpoint, texts

STAGES = [Path(__file__).parents[2] / "jobs/rank-distillm" / f"stage{i}.yaml" for i in (1, 2)]
SOURCES = ["corpus=corpus.jsonl", "queries=queries.jsonl", "tracking=none", "log_every=1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus with queries and judgements and a run of 12 documents each, in this folder."""
    monkeypatch.chdir(tmp_path)
    pool = texts()
    write("corpus.jsonl", [{"id": f"d{i}", "text": text} for i, text in enumerate(pool)])
    write("queries.jsonl", [{"id": f"q{i}", "text": pool[i * 5]} for i in range(8)])
    Path("qrels.txt").write_text("".join(f"q{i} 0 d{i + 5} 1\n" for i in range(8)))
    Path("run.txt").write_text(
        "".join(f"q{i} Q0 d{i + j} {j + 1} {20 - j} r\n" for i in range(8) for j in range(12))
    )
    return tmp_path


def write(name: str, records: list[Any]) -> None:
    Path(name).write_text("".join(json.dumps(r) + "\n" for r in records))


def metrics(out: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]


def distill(model: Path, out: str, *words: str) -> list[str]:
    given = ["distill", "data=run.txt", *SOURCES, f"model={model}", f"out={out}", "steps=2"]
    return [*given, "batch_size=4", "model.dropout=0", *words]


def test_both_stages_of_rank_distillm_run_and_the_second_finds_the_first(
    files: Path, model: Path
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
    files: Path, model: Path, loss: str
) -> None:
    """Another run's scores in the same order change nothing; another judgement does."""
    losses = []
    for name, scores, judged in (("a", 1, 5), ("b", 7, 5), ("c", 1, 4)):
        Path("run.txt").write_text(
            "".join(
                f"q{i} Q0 d{i + j} {j + 1} {scores * (20 - j)} r\n"
                for i in range(8)
                for j in range(12)
            )
        )
        Path("qrels.txt").write_text("".join(f"q{i} 0 d{i + judged} 1\n" for i in range(8)))
        assert main(distill(model, name, f"loss.kind={loss}", "qrels=qrels.txt")) == 0
        losses.append(metrics(name)[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("output", ["prob", "log_prob"])
def test_a_student_that_emits_probabilities_learns_and_is_saved_with_them(
    files: Path, model: Path, output: str
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
        (["model.output=prob"], "only listwise_softmax_ce reads probabilities, adr_mse needs"),
        (["qrels=qrels.txt", "target=rank"], "target = rank: is of a teacher's scores"),
        (["qrels=qrels.txt", "loss.kind=kl_div"], "has no teacher scores, which kl_div needs"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_starts(
    files: Path, model: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(distill(model, "a", *words)) == 2
    assert message in capsys.readouterr().err
    assert not Path("a").exists()
