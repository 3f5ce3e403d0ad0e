"""OpenVINO: its runtime alone, or under sentence-transformers by optimum-intel (engine=st)."""

from __future__ import annotations

from typing import Any

from protocol import Settings, Work, serve

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def load(settings: Settings) -> Work:
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[settings.precision],
        "INFERENCE_NUM_THREADS": str(settings.threads),
        "PERFORMANCE_HINT": "LATENCY",
    }
    return _under_st(settings, options) if settings.engine == "st" else _alone(settings, options)


def _alone(settings: Settings, options: dict[str, str]) -> Work:
    import openvino
    from bare import run_batches

    compiled = openvino.Core().compile_model(f"{settings.folder}/model.onnx", "CPU", options)
    request = compiled.create_infer_request()

    def forward(inputs: dict[str, Any]) -> Any:
        return request.infer(inputs)[0]

    return run_batches(settings, forward)


def _under_st(settings: Settings, options: dict[str, str]) -> Work:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    how: dict[str, Any] = {
        "backend": "openvino",
        "device": "cpu",
        "model_kwargs": {"export": True, "ov_config": options},
    }
    if settings.task == "embed":
        model = SentenceTransformer(settings.folder, **how)
        model.max_seq_length = settings.max_length
        return lambda query, texts: model.encode(texts, batch_size=32, normalize_embeddings=True)
    ranker = CrossEncoder(settings.folder, max_length=settings.max_length, **how)
    return lambda query, texts: ranker.predict([(query, text) for text in texts], batch_size=32)


if __name__ == "__main__":
    serve(load)
