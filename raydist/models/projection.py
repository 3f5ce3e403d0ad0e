"""Projections after the pooling: sentence-transformers' Dense modules, read and written."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raydist.errors import ArtifactError
from raydist.models.folders.sentence_transformers import read_json

_ACTIVATIONS = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}
SENTENCE, TOKENS = "sentence_embedding", "token_embeddings"
"""What a module reads and writes: the vector after the pooling, or those of the tokens."""
_WEIGHTS = "model.safetensors"


class Projection(nn.Module):
    """A linear map of a vector and an activation; `Projection.load` reads one."""

    def __init__(self, linear: nn.Linear, activation: str) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation
        self._activate = _ACTIVATIONS[activation]()

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype, of: str = SENTENCE) -> Projection:
        """Returns the projection in a folder, of the text's vector or of its `TOKENS`.

        Raises:
            ArtifactError: it does something else, or its weights do not fit.
        """
        config = read_json(folder / "config.json")
        activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        name = activation.rsplit(".", 1)[-1]
        ends = {config.get(f"module_{end}_name") or of for end in ("input", "output")}
        if name not in _ACTIVATIONS or config.get("use_residual") or ends != {of}:
            raise ArtifactError(
                f"{folder}: a Dense module with activation {name} of {', '.join(sorted(ends))}"
                f"{' and a residual' if config.get('use_residual') else ''} is not supported"
            )
        if not (folder / _WEIGHTS).is_file():
            raise ArtifactError(f"{folder}: no {_WEIGHTS}; weights in other formats are not read")
        linear = nn.Linear(
            int(config["in_features"]), int(config["out_features"]), bool(config.get("bias", True))
        )
        try:
            projection = cls(linear, name)
            projection.load_state_dict(load_file(folder / _WEIGHTS))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ArtifactError(f"{folder}: weights do not fit config.json ({reason})") from None
        return projection.to(dtype)

    def forward(self, vectors_BD: Tensor) -> Tensor:
        """Returns the vectors [B, D'] in the exact type of the input."""
        wide = self.linear(vectors_BD.to(self.linear.weight.dtype))
        return self._activate(wide).to(vectors_BD.dtype)  # type: ignore[no-any-return]

    def save(self, folder: Path, of: str = SENTENCE) -> None:
        """Writes the module as sentence-transformers does."""
        folder.mkdir(exist_ok=True)
        kind = _ACTIVATIONS[self.activation]
        record = {
            "in_features": self.linear.in_features,
            "out_features": self.linear.out_features,
            "bias": self.linear.bias is not None,
            "activation_function": f"{kind.__module__}.{kind.__name__}",
        }
        if of != SENTENCE:
            record |= {"module_input_name": of, "module_output_name": of}
        (folder / "config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})


def output_width(folders: tuple[Path, ...], width: int) -> int:
    """Returns the length of the vectors after the projections in these folders."""
    for folder in folders:
        width = int(read_json(folder / "config.json")["out_features"])
    return width
