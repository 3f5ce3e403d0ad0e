"""raydist itself, of the checkout on PYTHONPATH: another version beside this one."""

from __future__ import annotations

from typing import Any

from protocol import Settings, Work, serve


def load(settings: Settings) -> Work:
    import torch

    torch.set_num_threads(settings.threads)
    if settings.task == "embed":
        model = _encoder(settings)
        return lambda query, texts: model.encode_documents(texts)
    reranker = _reranker(settings)
    return lambda query, texts: reranker.score([(query, texts)])[0]


def _encoder(settings: Settings) -> Any:
    try:
        from raydist.models.inference import load_encoder
        from raydist.models.spec import EncoderSource
    except ImportError:  # versions before it
        from raydist.models.biencoder import BiEncoder

        return BiEncoder.load(settings.folder, device="cpu", dtype=settings.precision)
    source: Any = {"path": settings.folder, "dtype": settings.precision}
    return load_encoder(EncoderSource(**source), device="cpu")


def _reranker(settings: Settings) -> Any:
    how: dict[str, Any] = {"device": "cpu", "dtype": settings.precision}
    try:
        from raydist.reranking.cross_encoder import CrossEncoder
        from raydist.reranking.spec import CrossEncoderSpec
    except ModuleNotFoundError:  # versions before specs
        from raydist.rerank.cross_encoder import CrossEncoder

        return CrossEncoder(settings.folder, **how)
    return CrossEncoder(CrossEncoderSpec(model=settings.folder, **how))


if __name__ == "__main__":
    serve(load)
