"""sentence-transformers behind /v1/embeddings, FastAPI, and a thread that encodes one request at a time.

python sentence_transformers_server.py FOLDER PORT DTYPE
"""

import asyncio
import base64
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Request(BaseModel):
    """What is used of OpenAI's."""

    model: str
    input: str | list[str]
    encoding_format: str = "float"


def make_app(model: SentenceTransformer) -> FastAPI:
    """One route, and one that says that it lives."""
    app = FastAPI()
    thread = ThreadPoolExecutor(1)  # several at a time would fight for the cores, and be slower

    def encode(texts: list[str]) -> np.ndarray:
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> dict[str, Any]:
        texts = [request.input] if isinstance(request.input, str) else request.input
        rows = await asyncio.get_running_loop().run_in_executor(thread, encode, texts)
        values = [_base64(row) if request.encoding_format == "base64" else row.tolist() for row in rows]
        data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)]
        return {"object": "list", "data": data, "model": request.model}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _base64(row: np.ndarray) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")


def main(folder: str, port: str, dtype: str) -> None:
    """Load, warm up, serve."""
    model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    model.encode(["a", "the first texts take longer"], show_progress_bar=False)
    uvicorn.run(make_app(model), host="127.0.0.1", port=int(port), access_log=False, log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
