"""Models in this process: texts to vectors, pairs to scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raydist.api.command import spoken_errors
from raydist.api.hits import Hit, Hits
from raydist.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np


class Encoder:
    """A bi-encoder: turns texts into vectors.

    Shapes: n texts, d dimensions.

    >>> import raydist as rd
    >>> encoder = rd.Encoder(MODEL)
    >>> encoder.encode_queries(["herons", "canals"]).shape == (2, encoder.dimension)
    True

    Attributes:
        name: the model's folder or name.
        model: the loaded `raydist.models.biencoder.BiEncoder`.
    """

    @spoken_errors("raydist.Encoder")
    def __init__(self, model: Any, *, device: str | None = None, **keys: Any) -> None:
        """Loads the model.

        Args:
            model: a folder, a finished training run, or a name on the Hugging Face hub.
            device: cpu, cuda, cuda:1, …; an accelerator if there is one and None is given.
            keys: the other keys of `raydist embed model.…`: `pooling`, `normalize`, `dtype`, ….

        Raises:
            ConfigError: a value is not allowed, or contradicts the folder.
            DataError: there is no such model.
        """
        from raydist.config.embed import EmbedConfig
        from raydist.config.load import load
        from raydist.models.inference import load_encoder

        name = os.fspath(model) if isinstance(model, os.PathLike) else model
        unset = {"corpus": "-", "out": "-"}
        config = load(EmbedConfig, [{**unset, "model": {"path": name, **keys}}])
        self._config = config
        assert config.model is not None
        self.name: str = config.model.path
        self.model = load_encoder(config.model, device=device or "")

    @property
    def dimension(self) -> int:
        """The number of components of a vector."""
        return self.model.dimension

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 vectors [n, d] of queries, with the model's instruction for them."""
        return self.model.encode_queries(_texts(texts))

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 vectors [n, d] of documents; a title and a newline come before a text."""
        return self.model.encode_documents(_texts(texts))

    def identity(self) -> Any:
        """Returns JSON that tells its vectors from those of another."""
        return _identity(self._config, "model")

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}: {self.dimension} dimensions)"


class Reranker:
    """Scores documents for a query: BM25, a cross-encoder, Qwen3 or a bi-encoder.

    >>> import raydist as rd
    >>> reranker = rd.Reranker({"kind": "bm25", "analyzer": "english"})
    >>> reranker.rank("herons", ["a boat", "a heron eats", "a canal"])[0].text
    'a heron eats'

    Attributes:
        name: the model's folder or name, or `bm25`.
        model: the loaded reranker, an object with `score`.
    """

    @spoken_errors("raydist.Reranker")
    def __init__(self, reranker: Any, **keys: Any) -> None:
        """Loads the model.

        Args:
            reranker: bm25, Qwen/Qwen3-Reranker-0.6B (or -4B, -8B), a folder or a hub name, or a
                mapping of all that can be set.
            keys: the keys of `raydist rerank reranker.…` beside the model: `device`, `max_length`.

        Raises:
            ConfigError: a value is not allowed.
            DataError: there is no such model.
        """
        from raydist.api.reranking import checked
        from raydist.reranking.load import load_reranker
        from raydist.reranking.spec import reranker_from_text

        block = os.fspath(reranker) if isinstance(reranker, os.PathLike) else reranker
        if keys:
            block = reranker_from_text(block) if isinstance(block, str) else dict(block)
            block |= keys
        config = checked(block)
        self._config = config
        self.name: str = getattr(config.reranker, "model", config.reranker.kind)
        self.model = load_reranker(config.reranker)

    def score(self, query: str, documents: Sequence[str]) -> np.ndarray:
        """Returns float64 scores [n], one per document, larger is better."""
        import numpy as np

        texts = _texts(documents)
        return (
            np.asarray(self.model.score([(query, texts)])[0], np.float64) if texts else np.empty(0)
        )

    def rank(self, query: str, documents: Sequence[str] | Mapping[str, str]) -> Hits:
        """Returns the documents in the order of their scores; equal scores keep theirs.

        Args:
            query: its text.
            documents: `{id: text}`, or texts, whose ids are their places, from 0.
        """
        import numpy as np

        by_id = documents if isinstance(documents, Mapping) else dict(enumerate(_texts(documents)))
        ids, texts = [str(name) for name in by_id], list(by_id.values())
        scores = self.score(query, texts)
        order = np.argsort(-scores, kind="stable").tolist()
        hits = [
            Hit(rank, float(scores[i]), ids[i], "", texts[i]) for rank, i in enumerate(order, 1)
        ]
        return Hits(query, hits)

    def identity(self) -> Any:
        """Returns JSON that tells its scores from those of another."""
        return _identity(self._config, "reranker")

    def __repr__(self) -> str:
        return f"Reranker({self.name!r})"


def _identity(config: Any, key: str) -> Any:
    """Returns the settings of a block of a configuration, and the contents of its models."""
    from raydist.config.base import identity
    from raydist.config.inputs import inputs

    models = [str(content) for name, content in inputs(config).items() if name.startswith(key)]
    return {key: identity(getattr(config, key)), "models": models}


def _texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ConfigError("texts: expected several texts, not one; give [text]")
    for place, each in enumerate(values := list(texts)):
        if not isinstance(each, str):
            raise ConfigError(f"texts: number {place} is {each!r}, not a text; leave it out")
    return values
