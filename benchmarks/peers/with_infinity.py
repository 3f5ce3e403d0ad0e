"""infinity's engine from Python, with torch or with ONNX (engine=optimum)."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from infinity_emb import AsyncEngineArray, EngineArgs
from protocol import Settings, Work, serve


def load(settings: Settings) -> Work:
    loop = asyncio.new_event_loop()
    array = AsyncEngineArray.from_args(
        [
            EngineArgs(
                model_name_or_path=settings.folder,
                engine=settings.engine,
                device="cpu",
                dtype="auto" if settings.precision == "int8" else settings.precision,
                bettertransformer=False,
                pooling_method="mean",
                onnx_disable_optimize=True,
                model_warmup=False,
            )
        ]
    )
    engine = array[0]
    loop.run_until_complete(engine.astart())

    async def embed(query: str, texts: list[str]) -> Any:
        vectors, _ = await engine.embed(sentences=texts)
        return np.array(vectors)

    async def rerank(query: str, texts: list[str]) -> Any:
        scores, _ = await engine.rerank(query=query, docs=texts)
        return [score.relevance_score for score in sorted(scores, key=lambda score: score.index)]

    task = embed if settings.task == "embed" else rerank
    return lambda query, texts: loop.run_until_complete(task(query, texts))


if __name__ == "__main__":
    serve(load)
