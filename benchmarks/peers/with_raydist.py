"""raydist itself, of the checkout on PYTHONPATH: another version beside this one."""

from __future__ import annotations

from protocol import Settings, Work, serve


def load(settings: Settings) -> Work:
    import torch

    torch.set_num_threads(settings.threads)
    if settings.task == "embed":
        from raydist.models.biencoder import BiEncoder

        model = BiEncoder.load(settings.folder, device="cpu", dtype=settings.precision)
        return lambda query, texts: model.encode_documents(texts)
    try:
        from raydist.reranking.cross_encoder import CrossEncoder
        from raydist.reranking.spec import CrossEncoderSpec
    except ModuleNotFoundError:  # as earlier versions call the room
        from raydist.rerank.cross_encoder import CrossEncoder
        from raydist.rerank.spec import CrossEncoderSpec

    spec = CrossEncoderSpec(model=settings.folder, device="cpu", dtype=settings.precision)
    reranker = CrossEncoder(spec)
    return lambda query, texts: reranker.score([(query, texts)])[0]


if __name__ == "__main__":
    serve(load)
