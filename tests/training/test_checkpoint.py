"""What is kept is read again first: the final model and every best one."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource
from raydist.errors import ArtifactError
from raydist.models.biencoder import BiEncoder
from raydist.models.scratch import create
from raydist.models.spec import Lora
from raydist.training.checkpoint import CheckedSave
from raydist.training.run import run
from raydist.training.spec import DeepSpeed, Listener
from raydist.training.validation.build import evaluate_checkpoint
from raydist.training.validation.decisions import Best, State
from raydist.training.validation.files import ListenerFiles
from raydist.training.worker import Place
from tests.training.jobs import lines, tiny_job, weights
from tests.training.small import WORDS, checkpoint, encoder, texts
from tests.training.spawn import spawn


def vectors(model: Any) -> torch.Tensor:
    output: torch.Tensor = model(model.pad(model.tokenize(texts()[:8], "query")))
    return output


def checked(**options: Any) -> CheckedSave:
    return CheckedSave(
        vectors, lambda folder, device: BiEncoder.load(folder, device=device, **options)
    )


def test_a_best_model_that_reads_back_differently_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = encoder(checkpoint(tmp_path / "start")).train()
    files = ListenerFiles(tmp_path, "dev", checked())
    files.keep(1, model, ["RR"], State(best={"RR": Best(0.5, 1)}), None)
    assert model.training, "training continues as it was"
    best = tmp_path / "dev" / "best" / "RR"
    before = (best / "model.safetensors").read_bytes()
    save = BiEncoder.save

    def broken(self: BiEncoder, folder: Path, **options: Any) -> None:
        with torch.no_grad():
            next(self.parameters()).mul_(1.5)
        save(self, folder, **options)
        with torch.no_grad():
            next(self.parameters()).div_(1.5)

    monkeypatch.setattr(BiEncoder, "save", broken)
    with pytest.raises(ArtifactError, match="differs from the trained one"):
        files.keep(2, model, ["RR"], State(best={"RR": Best(0.6, 2)}), None)
    assert (best / "model.safetensors").read_bytes() == before
    assert json.loads((best / "settings.json").read_text())["step"] == 1


def test_adapters_of_a_deep_model_in_half_precision_are_merged_before_they_are_compared(
    tmp_path: Path,
) -> None:
    create(texts(), tmp_path / "start", layers=12, hidden=64, heads=2, vocab=300, seed=1)
    model = encoder(tmp_path / "start", lora=Lora(r=8), dtype="bfloat16")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        apart = vectors(model)
        checked(dtype="bfloat16")(model, tmp_path / "written", {})
        together = vectors(BiEncoder.load(tmp_path / "written", dtype="bfloat16", device="cpu"))
    assert (apart - together).abs().max() > 0.02 * apart.abs().max(), "merging rounds"
    assert any("lora_B" in name for name, _ in model.named_parameters())


def watched(folder: Path) -> Listener:
    """A listener and its files: one document, so that not all ranks encode."""
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": WORDS[0]}) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": WORDS[1]}) + "\n")
    (folder / "qrels.txt").write_text("q 0 d 1\n")
    return Listener(
        corpus=CorpusSource(path=(str(folder / "corpus.jsonl"),)),
        queries=QueriesSource(path=(str(folder / "queries.jsonl"),)),
        qrels=QrelsSource(path=(str(folder / "qrels.txt"),)),
        metrics={"RR": True},
        interval=2,
    )


ADAPTERS = {"dropout": 0.0, "lora": Lora(r=4)}


def train(dev: Listener, rank: int, world: int, folder: Path) -> None:
    validation = {"dev": dev}
    job = tiny_job(
        folder,
        steps=4,
        deepspeed=DeepSpeed(zero=3),
        validation=validation,
        **ADAPTERS,
    )
    run(job, Place(rank, world, torch.device("cpu")))


def test_a_model_spread_over_ranks_is_whole_where_it_is_evaluated_and_kept(tmp_path: Path) -> None:
    dev = watched(tmp_path / "dev")
    tiny_job(tmp_path / "run")  # prepares the data once
    spawn(partial(train, dev), 2, tmp_path / "run")
    assert evaluate_checkpoint(dev, tmp_path / "run/listeners/dev/best/RR").means == {"RR": 1.0}
    alone = tmp_path / "alone"
    run(tiny_job(alone, steps=4, **ADAPTERS), Place(0, 1, torch.device("cpu")))
    for whole, single in zip(lines(tmp_path / "run"), lines(alone), strict=True):
        assert whole["loss"] == pytest.approx(single["loss"], rel=1e-4)
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(tmp_path / "run")[name], tensor, rtol=0, atol=1e-4)
