"""Bodies of requests: bytes -> what is asked, checked; JSON and types in one pass, by pydantic's own parser."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema

from embedsmith.serving.errors import ApiError
from embedsmith.serving.served_model import Question
from embedsmith.settings.choices import Side

_INPUT_KINDS = "a string, a list of strings, a list of token ids, or a list of lists of token ids"
_MOST_SHOWN = 200  # characters of a value in a message

Texts = list[str]
Ids = list[list[int]]


def read_inputs(value: Any) -> tuple[Texts, Ids]:
    """The `input` of OpenAI's API: (texts, none) or (none, token ids of texts).

    Raises:
        ValueError: it is neither, and where.
    """
    if isinstance(value, str):
        return [value], []
    if not isinstance(value, list):
        raise ValueError(f"it is {_kind(value)}; it must be {_INPUT_KINDS}")
    if not value:
        raise ValueError(f"it is an empty list; it must be {_INPUT_KINDS}")
    if _is_id(value[0]):
        return [], [_read_ids(value, where="item")]
    wanted = str if isinstance(value[0], str) else list
    for place, item in enumerate(value):
        if not isinstance(item, wanted):
            beside = "" if place == 0 else f", and item 0 {_kind(value[0])}"
            raise ValueError(f"item {place} is {_kind(item)}{beside}; it must be {_INPUT_KINDS}")
    if wanted is str:
        return value, []
    return [], [_read_ids(item, where=f"item {place}, token") for place, item in enumerate(value)]


def _read_ids(ids: list[Any], *, where: str) -> list[int]:
    if not ids:
        raise ValueError(f"{where.removesuffix(', token')} is an empty list of token ids")
    for place, index in enumerate(ids):
        if not _is_id(index):
            raise ValueError(f"{where} {place} is {_kind(index)}, and item 0 a token id; it must be {_INPUT_KINDS}")
    return ids


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    kinds = {str: "a string", list: "a list", dict: "an object", bool: "a boolean", int: "an integer"}
    return "null" if value is None else kinds.get(type(value), f"the {type(value).__name__} {value!r:.40}")


_TEXT = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_INPUT_SCHEMA = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1},
    ]
}
Inputs = Annotated[tuple[Texts, Ids], PlainValidator(read_inputs), WithJsonSchema(_INPUT_SCHEMA)]
InputType = Literal["query", "document"]


class _Body(BaseModel):
    """An unknown field is refused: whoever sends it means something by it."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EmbeddingsRequest(_Body):
    """`/v1/embeddings`, as OpenAI defines it; `input_type`, `instruction` and `truncate` are ours."""

    model: str
    input: Inputs = Field(description=f"To embed: {_INPUT_KINDS}, of the model's own tokenizer.")
    encoding_format: Literal["float", "base64"] | None = Field(
        "float", description="base64: of little-endian float32, a fifth of the bytes."
    )
    dimensions: int | None = Field(None, ge=1, description="Keep so many, the first ones, at unit length.")
    user: str | None = Field(None, description="Taken, as OpenAI's clients may send it, and not used.")
    input_type: InputType | None = Field(
        None, description="What the texts are, where the model has a prompt for queries; default: document."
    )
    instruction: str | None = Field(None, description="Fills {instruction} in the model's prompt.")
    truncate: bool | None = Field(None, description="false: texts longer than the model takes are refused, not cut.")

    def question(self) -> Question:
        """What is to be embedded."""
        texts, ids = self.input
        return Question(texts, ids, side=_side(self.input_type), instruction=self.instruction)


class EmbedRequest(_Body):
    """`/embed`, as text-embeddings-inference takes it; `model` is ours."""

    inputs: Inputs = Field(description=f"To embed: {_INPUT_KINDS}.")
    dimensions: int | None = Field(None, ge=1, description="Keep so many, the first ones, at unit length.")
    normalize: Literal[True] | None = Field(None, description="Embeddings are at unit length always.")
    prompt_name: InputType | None = Field(None, description="query or document; default: document.")
    truncate: bool | None = Field(None, description="false: texts longer than the model takes are refused, not cut.")
    truncation_direction: Literal["Right", "right"] | None = Field(None, description="Texts are cut at their end.")
    model: str | None = Field(None, description="Default: the first that the server was started with.")

    def question(self) -> Question:
        """What is to be embedded."""
        return Question(*self.inputs, side=_side(self.prompt_name))


class TokensRequest(_Body):
    """`/tokens`, for people to see how texts are cut."""

    model: str | None = Field(None, description="Default: the first that the server was started with.")
    input: list[str] = Field(min_length=1, max_length=64)
    input_type: InputType | None = Field(None, description="query or document; default: document.")
    instruction: str | None = Field(None, description="Fills {instruction} in the model's prompt.")

    def question(self) -> Question:
        """What is to be shown."""
        return Question(self.input, side=_side(self.input_type), instruction=self.instruction)


class SimilarityInputs(_Body):
    """One sentence, and those that it is compared with."""

    source_sentence: str
    sentences: list[str] = Field(min_length=1)


class SimilarityParameters(_Body):
    """How they are embedded."""

    truncate: bool | None = Field(None, description="false: texts longer than the model takes are refused, not cut.")
    truncation_direction: Literal["Right", "right"] | None = Field(None, description="Texts are cut at their end.")
    prompt_name: InputType | None = Field(None, description="query or document; default: document.")


class SimilarityRequest(_Body):
    """`/similarity`, as text-embeddings-inference takes it; `model` is ours."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: str | None = Field(None, description="Default: the first that the server was started with.")

    def question(self) -> Question:
        """What is to be embedded: the source sentence first."""
        prompt_name = self.parameters.prompt_name if self.parameters else None
        return Question([self.inputs.source_sentence, *self.inputs.sentences], side=_side(prompt_name))


def _side(name: str | None) -> Side:
    return Side(name) if name else Side.DOCUMENT


Body = TypeVar("Body", bound=BaseModel)


def parse_body(kind: type[Body], body: bytes) -> Body:
    """A body as its record.

    Raises:
        ApiError: 400, it is no JSON in UTF-8; 422, it is something else than the route takes.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=True)
        if first["type"] == "json_invalid":
            reason = first["ctx"]["error"]
            raise ApiError(400, f"The body is no JSON in UTF-8: {reason}.", code="invalid_json") from None
        field = _name_of(first["loc"])
        more = f" ({len(others)} more fields are at fault.)" if others else ""
        message = f"{field}: {_reason(first)}.{more}"
        raise ApiError(422, message, code="invalid_value", param=field) from None


def _name_of(location: Sequence[str | int]) -> str:
    return ".".join(map(str, location)) or "body"


def _reason(fault: Any) -> str:
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    if fault["type"] == "extra_forbidden":
        return "there is no such field; leave it away"
    if fault["type"] == "missing":
        return "it is missing"
    return f"{fault['msg'][:1].lower()}{fault['msg'][1:]}, and it is {fault['input']!r:.{_MOST_SHOWN}}"
