from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from raydist.cli import main
from raydist.commands.training.plan import threads
from raydist.commands.training.temperature import decided
from raydist.config.load import load
from raydist.config.training import TrainConfig
from raydist.dense.vectors import VectorShards
from raydist.losses.spec import AdrMse, BiIR, InfoNCE
from tests.commands.training.runs import VALIDATION, metrics, write
from tests.killed import run_until
from tests.training.jobs import record
from tests.training.small import WORDS, samples

COMMON = ["tracking=none", "log_every=1", "model.document_max_length=32", "model.dropout=0"]


def line(model: Path, out: str, *words: str) -> list[str]:
    command = [
        "train",
        "data=train.jsonl",
        f"model={model}",
        f"out={out}",
        "steps=4",
        "batch_size=8",
    ]
    return [*command, "batch_size=8", *COMMON, *words]


def test_a_run_writes_metrics_model_and_manifest_and_its_config_repeats_it(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line(model, "a", "distill.kind=kl_div", "loss.scope=cross_device")) == 0
    lines = metrics("a")
    assert [entry["step"] for entry in lines] == [1, 2, 3, 4]
    wanted = {"loss", "loss/infonce", "loss/kl_div", "lr", "grad_norm", "samples_per_s"}
    assert wanted <= set(lines[0])
    manifest = json.loads(Path("a/manifest.json").read_text())
    assert manifest["kind"] == "training-run" and manifest["outcome"]["step"] == 4
    assert {"data", "model"} <= set(manifest["inputs"])
    assert main(["train", "a/config.json", "out=b"]) == 0
    assert [e["loss"] for e in metrics("b")] == [e["loss"] for e in lines]
    capsys.readouterr()
    assert main(line(model, "a", "distill.kind=kl_div", "loss.scope=cross_device")) == 0
    assert "already built" in capsys.readouterr().err
    assert main(line(model, "a", "optim.lr=1e-3")) == 2
    assert "optim.lr: 2e-05 -> 0.001" in capsys.readouterr().err


def test_adapters_are_trained_exported_alone_and_used_as_a_model_with_their_base(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line(model, "r", "model.lora.r=4", "optim.lr=0.01")) == 0
    assert main(["export", "checkpoint=r", "out=a", "adapter=true"]) == 0
    assert [f.name for f in Path("a").glob("*.safetensors")] == ["adapter_model.safetensors"]
    for name in ("r", "a", str(model)):
        out = f"v-{Path(name).name}"
        assert main(["embed", "corpus=corpus.jsonl", f"model={name}", f"out={out}"]) == 0
    trained, alone, base = (
        VectorShards.open(f"v-{name}").read(0, 5) for name in ("r", "a", model.name)
    )
    assert np.abs(trained - alone).max() < 2e-6 < 1e-3 < np.abs(trained - base).max()
    assert main(["export", "checkpoint=a", "out=whole"]) == 0
    assert main(line(model, "plain")) == 0
    assert main(["export", "checkpoint=plain", "out=b", "adapter=true"]) == 2
    assert "adapter=true: " in capsys.readouterr().err


def test_an_interrupted_run_needs_resume_and_then_ends_as_if_undisturbed(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("checkpoint.every=1", "checkpoint.keep=9")
    assert main(line(model, "a", *words)) == 0
    whole = metrics("a")
    manifest = json.loads(Path("a/manifest.json").read_text())
    Path("a/.job.json").write_text(json.dumps(manifest))
    Path("a/manifest.json").unlink()
    shutil.rmtree("a/checkpoint-final")
    for step in (3, 4):
        shutil.rmtree(f"a/checkpoints/step-0000000{step}")
    assert main(line(model, "a", *words)) == 2
    assert "holds an interrupted run of this configuration at step 2: --resume" in (
        capsys.readouterr().err
    )
    assert main([*line(model, "a", *words), "--resume"]) == 0
    again = metrics("a")
    assert [(e["step"], e["loss"], e["grad_norm"]) for e in again] == [
        (e["step"], e["loss"], e["grad_norm"]) for e in whole
    ]
    assert Path("a/checkpoint-final/config.json").exists()


def test_more_steps_of_a_constant_rate_are_those_of_a_longer_run(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("optim.schedule=constant", "optim.warmup=2")
    assert main(line(model, "a", *words, "steps=3")) == 0
    assert main(line(model, "a", *words, "steps=5")) == 2, "only --resume goes on"
    assert main([*line(model, "a", *words, "steps=2"), "--resume"]) == 2
    assert "steps = 2: a is at step 3 already" in capsys.readouterr().err
    assert main([*line(model, "a", *words, "steps=5"), "--resume"]) == 0
    assert main(line(model, "b", *words, "steps=5")) == 0
    assert [(e["step"], e["loss"], e["lr"]) for e in metrics("a")] == [
        (e["step"], e["loss"], e["lr"]) for e in metrics("b")
    ]
    weights = [Path(out, "checkpoint-final/model.safetensors").read_bytes() for out in "ab"]
    assert weights[0] == weights[1]
    assert main(["train", "a/config.json"]) == 0, "a's configuration is that of 5 steps"
    assert "already built" in capsys.readouterr().err


def test_more_steps_of_a_falling_rate_are_refused_with_the_choice(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line(model, "a", "steps=3")) == 0
    assert main([*line(model, "a", "steps=5"), "--resume"]) == 2
    message = capsys.readouterr().err
    assert "steps: 3 -> 5: optim.schedule = linear follows from the number of steps" in message
    assert "model=a and another out=" in message and "optim.schedule=constant" in message
    assert Path("a/manifest.json").exists()


def test_listeners_evaluate_and_keep_the_best(files: Path, model: Path) -> None:
    words = [
        *VALIDATION,
        *("validation.dev.metrics={nDCG@10: true, R@5: false}", "validation.dev.interval=2"),
    ]
    assert main(line(model, "a", *words)) == 0
    history = Path("a/listeners/dev/history.jsonl").read_text().splitlines()
    assert [json.loads(entry)["step"] for entry in history] == [0, 2, 4]
    settings = json.loads(Path("a/listeners/dev/best/nDCG@10/settings.json").read_text())
    assert settings["key"] == "nDCG@10" and settings["listener"] == "dev"
    assert not Path("a/listeners/dev/best/R@5").exists()


def test_a_killed_command_that_is_resumed_learns_and_decides_as_if_undisturbed(
    files: Path, model: Path
) -> None:
    words = [  # at most 9 bests, each .1 above the last: it stops at 10 + 9 * 10 + 15 or before
        *(*VALIDATION, "validation.dev.metrics={nDCG@10: true, R@5: false}", "steps=120"),
        *("validation.dev.interval=5", "validation.dev.early_stop=15", "validation.dev.warmup=10"),
        *("validation.dev.min_delta=0.1", "checkpoint.every=3", "optim.lr=1e-3"),
    ]
    run_until(r"step-00000018$", *line(model, "killed", *words))  # 15 is saved and evaluated
    history = Path("killed/listeners/dev/history.jsonl").read_text().splitlines()
    assert json.loads(history[-1])["step"] == 15
    assert not Path("killed/manifest.json").exists()
    assert main([*line(model, "killed", *words), "--resume"]) == 0
    assert main(line(model, "whole", *words)) == 0
    seen = [
        (
            [(e["step"], e["loss"], e["grad_norm"]) for e in metrics(out)],
            Path(out, "listeners/dev/history.jsonl").read_text(),
            json.loads(Path(out, "listeners/dev/info.json").read_text()),
            json.loads(Path(out, "manifest.json").read_text())["outcome"]["stopped"],
            Path(out, "checkpoint-final/model.safetensors").read_bytes(),
            Path(out, "listeners/dev/best/nDCG@10/model.safetensors").read_bytes(),
        )
        for out in ("killed", "whole")
    ]
    assert seen[0] == seen[1]
    best = seen[0][2]["nDCG@10"]["step"]
    assert seen[0][3] and best >= 10 and seen[0][0][-1][0] == best + 15, seen[0][1]


def test_a_run_is_in_mlflow_with_its_configuration_and_losses(
    files: Path, model: Path, database: str
) -> None:
    from mlflow import MlflowClient

    words = [word for word in line(model, "a", "distill=none") if not word.startswith("tracking")]
    assert main([*words, f"tracking={database}", "tracking.experiment=tests"]) == 0
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["batch_size"] == "8"
    values = [m.value for m in client.get_metric_history(run.info.run_id, "train/loss/infonce")]
    assert values == pytest.approx([entry["loss/infonce"] for entry in metrics("a")])
    assert run.info.run_name == f"train {model.name} on train.jsonl"
    assert run.data.tags["raydist.verb"] == "train" and "epochs" not in run.data.params
    assert len(run.data.params) < 40 and "optim.weight_decay" not in run.data.params
    (data,) = [each for each in run.inputs.dataset_inputs if each.dataset.name == "train.jsonl"]
    recorded = json.loads(Path("a/manifest.json").read_text())["inputs"]["data"]
    assert data.dataset.digest == recorded.removeprefix("full:")
    assert data.tags[0].value == "training data"
    whole = client.download_artifacts(run.info.run_id, "config.yaml")
    assert yaml.safe_load(Path(whole).read_text())["optim"]["weight_decay"] == 0.01


def test_a_dry_run_looks_at_the_data_and_writes_nothing(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line(model, "a"), "--dry-run"]) == 0
    assert "would write" in capsys.readouterr().err and not Path("a").exists()
    write("broken.jsonl", [record(samples(scores=True)[0]), {"query": 1}])
    assert main([*line(model, "a", "data=broken.jsonl"), "--dry-run"]) == 2
    assert "broken.jsonl, line 2" in capsys.readouterr().err
    assert main([*line(model, "a", "model=/nonexistent"), "--dry-run"]) == 2
    assert "/nonexistent: no such folder" in capsys.readouterr().err


def test_a_temperature_for_unit_vectors_is_noted_where_vectors_have_any_length(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, noted in (
        ((), False),
        (("loss.temperature=0.02",), True),
        (("model.normalize=true", "loss.temperature=0.02"), False),
        (("losses.a.kind=infonce", "losses.a.temperature=0.02", "losses.b.kind=infonce"), True),
    ):
        assert main([*line(model, "a", *words), "--dry-run"]) == 0
        said = capsys.readouterr().err
        assert ("model.normalize is false" in said) == noted, words
    assert "(a 0.02) is one for vectors of length 1" in said


def test_a_temperature_that_is_not_given_follows_from_the_models_scores(
    files: Path, model: Path
) -> None:
    def of(*words: str) -> TrainConfig:
        return load(TrainConfig, (), ["data=train.jsonl", "out=x", f"model={model}", *words])

    def temperature(config: TrainConfig) -> float | None:
        return decided(config).loss.temperature

    unit = of("model.normalize=true")
    assert temperature(unit) == 0.02
    assert (
        decided(unit).identity() == of("model.normalize=true", "loss.temperature=0.02").identity()
    )
    assert decided(unit).identity() == unit.identity()  # as versions with that default had it
    assert temperature(of()) == temperature(of("model.kind=multivector")) == 1
    assert temperature(of("model.kind=sparse")) == 1
    assert temperature(of("loss.kind=biir")) == 0.02  # draws norms to 1 itself
    assert decided(of("model.kind=sparse", "loss.kind=biir")).loss == BiIR(
        temperature=1.0, answer_temperature=1.0
    )
    assert temperature(of("loss.temperature=0.3")) == 0.3
    several = decided(of("losses.a.kind=infonce", "losses.b.kind=adr_mse"))
    assert several.losses == {"a": InfoNCE(temperature=1.0), "b": AdrMse()}


def test_a_teacher_that_is_asked_for_and_not_there_is_noted_or_refused(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("plain.jsonl", [{"query": "q", "pos": ["p"], "neg": ["n"]}] * 9)
    for words, code, noted in (
        (("data=plain.jsonl", "distill.kind=kl_div"), 0, "so nothing is distilled"),
        (("data=plain.jsonl", "loss.teacher_margin=0.1"), 2, "no data set has the teacher scores"),
        (("distill=none", "loss.teacher_margin=0.1"), 0, "teacher"),
    ):
        assert main([*line(model, "a", *words), "--dry-run"]) == code
        assert noted in capsys.readouterr().err, words
    assert main([*line(model, "a", "data=plain.jsonl"), "--dry-run"]) == 0
    assert "nothing is distilled" not in capsys.readouterr().err


def test_what_the_number_of_workers_changes_is_noted(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, noted in (
        ((), ""),
        (("workers=2",), "loss.scope = in_batch (infonce): negatives are those of 1/2 of a step"),
        (("accumulation=4", "loss.scope=cross_device"), "negatives are those of 1/4 of a step"),
        (("workers=2", "loss.scope=cross_device"), ""),
    ):
        assert main([*line(model, "a", *words), "--dry-run"]) == 0
        said = capsys.readouterr().err
        assert noted in said and ("negatives are those" in said) == bool(noted), words


def test_a_batch_size_of_the_lines_leaves_no_worker_without_a_sample(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("few.jsonl", [{"query": "q", "pos": ["p"], "neg": ["n"], "batch_size": 2}] * 9)
    words = line(model, "a", "data=few.jsonl", "workers=3", "--dry-run")
    assert main(words) == 2
    assert "batch_size = 2: expected at least one sample" in capsys.readouterr().err
    assert main([*words, "data.batch_size=3"]) == 0


def test_batches_are_prepared_by_the_cpus_that_training_leaves() -> None:
    def count(*words: str) -> int:
        return threads(load(TrainConfig, (), ["data=d", "model=M", "out=O", *words]))

    gpus = ("workers=2", "gpus_per_worker=1")
    assert [count(*gpus, f"cpus_per_worker={n}") for n in (1, 2, 8, 64)] == [1, 1, 7, 8]
    assert count("workers=2", "cpus_per_worker=8") == 1  # the steps take them all


def test_steps_of_a_number_of_tokens_are_planned_run_and_refused_with_the_least(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line(model, "a", "batch_tokens=600", "train_group_size=3")
    assert main(words) == 0
    assert list(Path("a/data/data").glob("lengths-*.npy"))
    assert main(["verify", "a"]) == 0
    manifest = json.loads(Path("a/manifest.json").read_text())
    assert manifest["outcome"]["step"] == 4 and manifest["steps_per_epoch"] > 1
    capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    assert "already built" in capsys.readouterr().err
    anew = [word for word in words if not word.startswith("model=")] + ["model.scratch.layers=1"]
    for more, message in (
        ([*words, "batch_tokens=9"], "9: data has samples of "),
        ([*words, "data.batch_size=4"], "data.batch_size = 4: batch_tokens = 600 says how many"),
        (anew, "model.scratch has no tokenizer to count with"),
    ):
        assert main([*more, "out=b"]) == 2
        assert message in capsys.readouterr().err and not Path("b").exists()


def test_negatives_from_bm25_are_searched_for_but_not_in_a_dry_run(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = ["corpus=corpus.jsonl", "queries=queries.jsonl", "train_group_size=2"]
    words = ["data.path=qrels.txt", "data.bm25_negatives=5", *sources, "distill=none"]
    words = [word for word in line(model, "a", *words) if word != "data=train.jsonl"]
    assert main([*words, "--dry-run"]) == 0
    assert "Group(size=2" in capsys.readouterr().err and not Path("a").exists()
    assert main(words) == 0
    facts = json.loads(Path("a/data/data/facts.json").read_text())
    assert set(facts["negatives"]) <= {"4", "5"}


def test_a_model_from_nothing_learns_its_vocabulary_from_the_data(files: Path) -> None:
    words = ["train", "data=train.jsonl", "out=a", "steps=2", "batch_size=8", "tracking=none"]
    sizes = ["layers=1", "hidden=32", "heads=2", "vocab=200", "max_length=40"]
    assert main([*words, *(f"model.scratch.{s}" for s in sizes)]) == 0
    config = json.loads(Path("a/checkpoint-final/config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (1, 32)
    vocabulary = json.loads(Path("a/checkpoint-final/tokenizer.json").read_text())["model"]["vocab"]
    assert len(vocabulary) <= 200 and set(WORDS) & set(vocabulary)


def test_reinforced_ir_trains_with_answers_and_refuses_to_without(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["loss.kind=biir", "loss.training_type=retrieval_answer_passage", "distill=none"]
    assert main(line(model, "a", *words)) == 2
    assert "the data has no answers" in capsys.readouterr().err
    lines = [record(s) | {"answer": f"answer {s.query}"} for s in samples(scores=True)]
    lines[3].pop("answer")
    write("train.jsonl", lines)
    assert main(line(model, "b", *words)) == 0
    assert {"loss/qp", "loss/qa", "loss/ap", "loss/answer_norm"} <= set(metrics("b")[0])


def test_several_data_sets_take_turns(files: Path, model: Path) -> None:
    few = [{**record(s), "train_group_size": 2} for s in samples(9, scores=True)]
    write("few_no_in_batch_neg.jsonl", few)
    words = [
        *("train", "datasets.many.path=train.jsonl", "datasets.many.prompt=find ", "epochs=2"),
        *("datasets.few.path=few_no_in_batch_neg.jsonl", "datasets.few.weight=2"),
        *(f"model={model}", "out=a", "batch_size=6", *COMMON),
    ]
    assert main(words) == 0
    manifest = json.loads(Path("a/manifest.json").read_text())
    assert manifest["steps_per_epoch"] == 4 + 3 and len(metrics("a")) == 14


def test_a_run_that_validation_reranks_is_one_of_the_inputs(
    files: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*VALIDATION, "validation.dev.retriever.kind=rerank", "validation.dev.interval=4"]
    words += ["validation.dev.retriever.run=run.txt"]
    ranking = "".join(f"q{i} Q0 d{i * 5 + j} {j + 1} {-j} t\n" for i in range(8) for j in range(4))
    Path("run.txt").write_text(ranking)
    assert main(line(model, "a", *words)) == 0  # a bi-encoder reranks by its dot products
    assert len(Path("a/listeners/dev/history.jsonl").read_text().splitlines()) == 2
    Path("run.txt").write_text(ranking.replace("q7 Q0 d38 4 -3 t\n", ""))
    assert main(line(model, "a", *words)) == 2
    assert "content of validation.dev.retriever.run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=none.jsonl"], "none.jsonl: no such file"),
        (["model=/nonexistent"], "/nonexistent"),
        (["loss.kind=margin_mse", "data=plain.jsonl"], "has no teacher scores"),
        (["data=alone.jsonl", "train_group_size=4"], "at least one negative"),
        ([*VALIDATION, "validation.dev.corpus=none.jsonl"], "none.jsonl: no such file"),
        ([*VALIDATION, "validation.dev.qrels=other.txt"], "none of the 8 queries is judged"),
        ([*VALIDATION, "validation.all.kind=aggregate", "validation.all.listeners=[x]"], "x: no"),
    ],
)
def test_mistakes_end_the_command_before_anything_starts(
    files: Path, model: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("plain.jsonl", [{"query": "q", "pos": ["p"], "neg": ["n"]}] * 9)
    write("alone.jsonl", [{"query": "q", "pos": ["p"]}] * 9)
    Path("other.txt").write_text("someone 0 d1 1\n")
    assert main(line(model, "a", *words)) in (1, 2)
    assert message in capsys.readouterr().err
    assert not Path("a").exists(), "the corrected command would be refused"
