"""What is answered, for the OpenAPI document; the answers themselves are written by `answers.py`."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Embedding(BaseModel):
    """One embedding."""

    object: Literal["embedding"]
    index: int = Field(description="Place in the input.")
    embedding: list[float] | str = Field(description="At unit length; text with encoding_format base64.")


class Usage(BaseModel):
    """What it cost."""

    prompt_tokens: int = Field(description="Tokens computed, the model's prompt and end token included.")
    total_tokens: int


class EmbeddingsReply(BaseModel):
    """Of `/v1/embeddings`."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelReply(BaseModel):
    """A model; the last three are ours."""

    id: str
    object: Literal["model"]
    created: int = Field(description="When the server was started, in seconds since 1970.")
    owned_by: str
    dimensions: int = Field(description="Width of its embeddings.")
    max_tokens: int | None = Field(description="Most tokens per text; null: any number.")
    parent: str | None = Field(description="The model served here that it was tuned from; null: it is not.")


class ModelsReply(BaseModel):
    """Of `/v1/models`."""

    object: Literal["list"]
    data: list[ModelReply]


class TokenReply(BaseModel):
    """One token of a text."""

    id: int
    token: str = Field(description="Its name in the vocabulary.")
    text: str = Field(description="The characters that it stands for.")
    role: Literal["start", "prompt", "text", "end"] = Field(description="What it is there for.")
    is_pooled: bool | None = Field(description="Whether the vector is made of its state; null: not known.")


class TokenizedReply(BaseModel):
    """One text as it is computed."""

    tokens: list[TokenReply]
    is_cut: bool = Field(description="Whether it was longer than the model takes.")


class TokensReply(BaseModel):
    """Of `/tokens`."""

    model: str
    prompt: str = Field(description="What texts stand in, {text} in their place.")
    pooling: str | None = Field(description="How states become a vector; null: not known.")
    texts: list[TokenizedReply]


class Fault(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """An error as OpenAI's API has it."""

    error: Fault


class TeiErrorReply(BaseModel):
    """An error as text-embeddings-inference has it."""

    error: str
    error_type: str


class Status(BaseModel):
    """Of `/health` and `/ready`."""

    status: str


_MEANINGS = {
    400: "No JSON, or something that does not fit the model.",
    401: "No API key, or another one.",
    404: "No such model.",
    405: "Another method.",
    408: "The body did not come in time.",
    413: "The body, the texts, or their tokens are more than the server takes at one time.",
    415: "The body is not said to be JSON.",
    422: "A field is missing, unknown, or of another type.",
    429: "As much waits as may; Retry-After says when to ask again.",
    500: "The server failed.",
    503: "The server is stopping.",
}


def errors(*statuses: int, model: type[BaseModel] = ErrorReply) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: what may go wrong, in a form."""
    return {status: {"model": model, "description": _MEANINGS[status]} for status in statuses}


COMPUTING = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503)
"""What may go wrong where texts are embedded."""
