"""An exported model as MLflow's `pyfunc`: it ranks texts, or returns a bi-encoder's vectors.

    ranker = mlflow.pyfunc.load_model("models:/NAME/1")
    ranker.predict(pandas.DataFrame({"query": ["heron"], "texts": [["a bird", "a boat"]]}))

A row is a query and its texts, and gets a list of scores, one for each text. With
`params={"output": "embeddings"}` a bi-encoder returns vectors instead: of the query, and of each
text. MLflow finds this module by the file `MLmodel` in the model's folder, which names it: nothing
is pickled, and the weights are the folder's own.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from raydist import __version__
from raydist.disk import atomic
from raydist.errors import ArtifactError, ConfigError
from raydist.models.folders.contract import Contract, read_contract

MLMODEL = "MLmodel"
_INPUTS = [
    {"name": "query", "type": "string", "required": True},
    {"name": "texts", "type": "array", "items": {"type": "string"}, "required": True},
]
_SCORES = [{"name": "scores", "type": "array", "items": {"type": "double"}, "required": True}]
_PARAMS = [{"name": "output", "type": "string", "default": "scores", "shape": None}]


def write_mlmodel(folder: Path) -> None:
    """Writes the file by which MLflow loads a folder, with the signature of `Ranker.predict`."""
    contract = _contract(folder)
    signature = {"inputs": json.dumps(_INPUTS), "outputs": json.dumps(_SCORES)}
    if not contract.pairs:
        signature["params"] = json.dumps(_PARAMS)
    record = {
        "flavors": {
            "python_function": {
                "loader_module": __name__,
                "python_version": platform.python_version(),
            }
        },
        "signature": {"params": None, **signature},
        "metadata": {"raydist": __version__, "kind": contract.kind},
    }
    with atomic(folder / MLMODEL) as partial:
        partial.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")


class Ranker:
    """A model that scores texts for queries.

    Args:
        folder: that `raydist export` wrote.
    """

    def __init__(self, folder: Path) -> None:
        from raydist.reranking.load import load_reranker
        from raydist.reranking.spec import BiEncoderSpec, CrossEncoderSpec

        self._folder = str(folder)
        bi = not _contract(folder).pairs
        spec = BiEncoderSpec if bi else CrossEncoderSpec
        self._reranker = load_reranker(spec(model=self._folder))
        self._encoder: Any = None
        self._bi = bi

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Returns a data frame: scores per row, or vectors.

        Args:
            model_input: a data frame with the columns `query` and `texts`.
            params: `output`: `scores`, or `embeddings` of a bi-encoder.

        Raises:
            ConfigError: another output.
        """
        import pandas

        queries = list(model_input["query"])
        texts = [list(row) for row in model_input["texts"]]
        output = (params or {}).get("output", "scores")
        if output == "scores":
            scores = self._reranker.score(list(zip(queries, texts)))
            return pandas.DataFrame({"scores": scores})
        if output != "embeddings" or not self._bi:
            allowed = "scores or embeddings" if self._bi else "scores"
            raise ConfigError(f"output = {output}: expected {allowed}")
        encoder = self._encoder = self._encoder or self._load_encoder()
        flat = encoder.encode_documents([text for row in texts for text in row])
        rows = iter(flat.tolist())
        vectors = [[next(rows) for _ in row] for row in texts]
        return pandas.DataFrame(
            {"query": encoder.encode_queries(queries).tolist(), "texts": vectors}
        )

    def _load_encoder(self) -> Any:
        from raydist.models.biencoder import BiEncoder

        return BiEncoder.load(self._folder)


def _load_pyfunc(path: str) -> Ranker:
    """Loads a model's folder: the function that MLflow calls."""
    return Ranker(Path(path))


def _contract(folder: Path) -> Contract:
    contract = read_contract(folder)
    if contract is None:
        raise ArtifactError(f"{folder}: holds no model that raydist export wrote")
    return contract
