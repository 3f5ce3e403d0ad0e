"""The yardstick of `benchmarks.serving`: plain FastAPI around sentence-transformers' CrossEncoder.

python -m benchmarks.plain_server FOLDER PORT
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder


class Body(BaseModel):
    query: str
    documents: list[str]


def make_app(folder: str) -> FastAPI:
    app = FastAPI()
    model = CrossEncoder(folder, device="cpu")
    lock = threading.Lock()

    @app.post("/v1/rerank")
    def rerank(body: Body) -> dict[str, Any]:
        with lock:
            scores = model.predict([(body.query, text) for text in body.documents]).tolist()
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return {"results": [{"index": i, "relevance_score": scores[i]} for i in order]}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
