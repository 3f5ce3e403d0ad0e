"""fastembed with a local ONNX file as a custom model."""

from __future__ import annotations

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder
from protocol import Settings, Work, serve

_NAME = "local/model"


def load(settings: Settings) -> Work:
    source = ModelSource(hf=_NAME)
    where = {"specific_model_path": settings.folder, "threads": settings.threads}
    if settings.task == "embed":
        TextEmbedding.add_custom_model(
            model=_NAME,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=source,
            dim=384,
            model_file="model.onnx",
        )
        model = TextEmbedding(_NAME, **where)
        return lambda query, texts: np.array(list(model.embed(texts, batch_size=32)))
    TextCrossEncoder.add_custom_model(model=_NAME, sources=source, model_file="model.onnx")
    ranker = TextCrossEncoder(_NAME, **where)

    def score(query: str, texts: list[str]) -> np.ndarray:
        logits = np.array(list(ranker.rerank(query, texts, batch_size=32)))
        return 1 / (1 + np.exp(-logits))

    return score


if __name__ == "__main__":
    serve(load)
