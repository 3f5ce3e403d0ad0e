"""Weights by a formula, so that a recorded model need not be kept.

`python pylate_weights.py OUT`, in an environment with pylate 1.6.0, writes `tests/golden/pylate`:
the JSON files of a model as PyLate saves it, its scores, losses and gradients. `python
pylate_weights.py OUT FOLDER` prints how far the scores of a folder that raydist wrote
(`layout=pylate`) are from those in OUT.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

RECORDED = Path(__file__).parents[1] / "golden" / "pylate"
WORDS = ("river", "stone", "lamp", "garden", "winter", "bread", "mirror", "candle", "forest")
QUERIES = ("stone lamp", "a winter garden?", "bread, mirror and candle")
LISTS = (
    (
        "winter river lamp mirror lamp garden",
        "stone candle and stone lamp and bread garden ,",
        ". bread and bread river candle and",
    ),
    (
        "mirror candle bread river , candle",
        "candle stone . garden candle lamp",
        "winter . stone stone stone",
    ),
)
"""Documents of the first two queries: the positive, then negatives."""
TEACHER = ((3.0, 1.0, 0.5), (0.5, 2.0, -1.0))
DOCUMENTS = ("river; stone, lamp.", "garden winter bread", "mirror! candle. forest " * 4, "stone")
DOCUMENTS += ("stone zebra lamp",)  # PyLate skips unknown tokens where a skipped word is unknown


def fill(module: Any) -> None:
    """Sets all parameters by their names and places."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            name = name.removeprefix("auto_model.").removeprefix("model.")
            places = torch.arange(parameter.numel(), dtype=torch.float64)
            values = torch.sin(places * 0.731 + sum(map(ord, name))) * 0.4
            scale = 1.0 if "LayerNorm.weight" in name else 0.0
            parameter.copy_((scale + values).reshape(parameter.shape).float())


def restored(folder: Path) -> Path:
    """Writes the recorded model with its weights into a new folder, and returns it."""
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    shutil.copytree(RECORDED, folder)
    transformer = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    dense = torch.nn.ModuleDict({"linear": torch.nn.Linear(16, 8, bias=False)})
    for module, place in ((transformer, folder), (dense, folder / "1_Dense")):
        fill(module)
        weights = {name: each.contiguous() for name, each in module.state_dict().items()}
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return folder


def scores_of(model: Any) -> list[list[float]]:
    """Returns PyLate's scores."""
    from pylate import scores

    queries = model.encode(list(QUERIES), is_query=True, convert_to_tensor=True)
    documents = model.encode(list(DOCUMENTS), is_query=False, convert_to_tensor=True)
    return [
        [float(scores.colbert_scores(q[None], d[None])[0, 0]) for d in documents] for q in queries
    ]


def losses_of(model: Any) -> dict[str, Any]:
    """Returns the values of PyLate's losses, and their gradients of the projection."""
    from pylate import losses

    queries = model.tokenize(list(QUERIES[:2]), is_query=True)
    columns = [model.tokenize(list(each), is_query=False, pad=True) for each in zip(*LISTS)]
    lists = model.tokenize([text for each in LISTS for text in each], is_query=False, pad=True)
    teacher = torch.tensor(TEACHER)
    cases = {
        "contrastive": (losses.Contrastive(model, temperature=0.7), columns, None),
        "cached": (
            losses.CachedContrastive(model, mini_batch_size=1, temperature=0.7),
            columns,
            None,
        ),
        "distillation": (losses.Distillation(model), [lists], teacher),
        "distillation_of_raw_scores": (
            losses.Distillation(model, normalize_scores=False),
            [lists],
            teacher,
        ),
    }
    recorded = {}
    for name, (loss, documents, labels) in cases.items():
        model.zero_grad()
        value = loss([dict(each) for each in (queries, *documents)], labels)
        value.backward()
        gradient = model[1].linear.weight.grad
        recorded[name] = {"value": float(value.detach()), "gradient": gradient.tolist()}
    return recorded


def main(out: Path) -> None:
    from pylate import models
    from sentence_transformers.models import Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    with tempfile.TemporaryDirectory() as scratch:
        base, saved = Path(scratch, "base"), Path(scratch, "saved")
        base.mkdir()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        vocabulary = [*special, *WORDS, "a", "and", *".,;?!"]
        (base / "vocab.txt").write_text("\n".join(vocabulary))
        BertTokenizerFast(str(base / "vocab.txt")).save_pretrained(base)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=40,
        )
        BertModel(config, add_pooling_layer=False).save_pretrained(base)
        dense = models.Dense(in_features=16, out_features=8, bias=False)
        model = models.ColBERT(
            modules=[Transformer(str(base)), dense],
            query_length=12,
            document_length=20,
            device="cpu",
        )
        fill(model[0])
        fill(model[1])
        model.save(str(saved))
        values = scores_of(model)
        recorded = losses_of(model.eval())
        shutil.rmtree(out, ignore_errors=True)
        for path in sorted(saved.rglob("*.json")):
            target = out / path.relative_to(saved)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(json.loads(path.read_text()), indent=1) + "\n")
        (out / "scores.json").write_text(json.dumps(values, indent=1) + "\n")
        lines = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in recorded.items()]
        (out / "losses.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        from pylate.models import ColBERT

        recorded = torch.tensor(json.loads(Path(sys.argv[1], "scores.json").read_text()))
        own = torch.tensor(scores_of(ColBERT(sys.argv[2], device="cpu")))
        print(float((own - recorded).abs().max()))
