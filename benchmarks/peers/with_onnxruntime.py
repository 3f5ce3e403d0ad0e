"""onnxruntime alone: texts sorted by length and padded in batches of a token budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from bare import run_batches
from protocol import Settings, Work, serve


def load(settings: Settings) -> Work:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(
        f"{settings.folder}/model.onnx", options, providers=["CPUExecutionProvider"]
    )

    def forward(inputs: dict[str, np.ndarray]) -> Any:
        return session.run(None, inputs)[0]

    return run_batches(settings, forward)


if __name__ == "__main__":
    serve(load)
