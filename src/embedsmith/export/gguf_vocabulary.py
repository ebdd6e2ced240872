"""A tokenizer.json -> the vocabulary of a GGUF file, of which llama.cpp makes the same tokens.

llama.cpp has its own rules by name. Two kinds of tokenizers have a name there: BPE on bytes, by how a text is taken
apart first, and SentencePiece's BPE, which has scores in the place of merges. Any other is refused.

Texts are characters: a control token keeps its place, under a spelling that no merge arrives at, and as no control
token, so that nothing finds it in a text, whether or not a loader looks for control tokens there (llama-server does).
What llama.cpp puts around texts it takes from the ids of start and end token.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gguf import GGUFWriter, TokenType
from transformers.convert_slow_tokenizer import bytes_to_unicode

from embedsmith.export.gguf_prompts import HIDDEN
from embedsmith.model.tokens import TextTokenizer
from embedsmith.support.errors import ConfigError

UnicodeForm = Literal["NFC"]
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
# By the steps that take a text apart, and whether a word of the vocabulary is taken whole.
_SPLITTERS: dict[tuple[Any, ...], str] = {
    (("ByteLevel", True), False): "gpt-2",
    (("Digits", True), ("ByteLevel", True), False): "smollm",
    (("Split", _QWEN2), ("ByteLevel", False), False): "qwen2",
    (("Split", _LLAMA3), ("ByteLevel", False), True): "llama-bpe",
}
_BLANK = "\u2581"
_SPELLED_BYTE = bytes_to_unicode()
_NO_BYTE = _SPELLED_BYTE[0xFF]  # which no text in UTF-8 has
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of its tokens, by id.

    Attributes:
        model: of the tokenizer, as llama.cpp calls it: `gpt2` or `llama`.
        splitter: how texts are taken apart first, as llama.cpp calls it.
        tokens: spellings.
        kinds: of each.
        merges: of `gpt2`.
        scores: of `llama`.
        puts_blank: whether a blank is put before texts.
        unicode_form: in which texts have to be given, or None: as they are.
        stand_for: id of a copy -> the id that it stands for.
    """

    model: str
    splitter: str
    tokens: list[str]
    kinds: list[TokenType]
    merges: list[str]
    scores: list[float]
    puts_blank: bool
    unicode_form: UnicodeForm | None
    stand_for: Mapping[int, int]


def read_vocabulary(texts: TextTokenizer, *, num_rows: int, copies: Mapping[str, int] | None = None) -> Vocabulary:
    """A model's vocabulary in llama.cpp's terms.

    Args:
        texts: cuts a model's texts.
        num_rows: of the model's table of embeddings; each gets a token.
        copies: spelling of tokens behind all others -> the id that each stands for; found in texts as they stand.

    Raises:
        ConfigError: llama.cpp has no such tokenizer.
    """
    state = json.loads(texts.tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _refuse(f"{model['type']} is no BPE as it is known there")
    added = {token["content"]: token for token in state["added_tokens"]}
    own = {content for content in added if content not in texts.encoder.control_tokens}
    for content in own:
        if any(added[content][name] for name in ("lstrip", "rstrip", "single_word")):
            raise _refuse(f"the token {content!r} is found under conditions")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    is_pieces = bool(model.get("byte_fallback"))
    spelling_of = {index: spelling for spelling, index in texts.tokenizer.backend_tokenizer.get_vocab().items()}
    made = {merge.replace(" ", "", 1) for merge in merges}
    hidden = set(texts.encoder.control_tokens) | (
        _never_made(model["vocab"], made=made, own=own) if is_pieces else set()
    )
    tokens, kinds = _spell(spelling_of, num_rows=num_rows, hidden=hidden, own=own, is_pieces=is_pieces)
    stand_for = dict(enumerate((copies or {}).values(), start=len(tokens)))
    tokens += copies or {}
    kinds += [TokenType.USER_DEFINED] * len(stand_for)
    if not is_pieces:
        splitter, unicode_form = _splitter_of(state)
        return Vocabulary("gpt2", splitter, tokens, kinds, merges, [], False, unicode_form, stand_for)
    puts_blank = _puts_blank(state)
    return Vocabulary("llama", "default", tokens, kinds, [], _scores(tokens, merges), puts_blank, None, stand_for)


def describe_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, *, texts: TextTokenizer) -> None:
    """All of it, and what is put around texts.

    Raises:
        ConfigError: what the tokenizer puts before texts is not its start token.
    """
    start = texts.tokenizer.bos_token_id
    starts = texts.encoder.starts
    if starts not in ([], [start]):
        raise _refuse(f"the ids {starts} are put before texts, and its start token is {start}")
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.splitter)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.puts_blank)
    writer.add_eos_token_id(texts.end_id)
    writer.add_add_eos_token(texts.end_token)
    writer.add_bos_token_id(texts.end_id if start is None else start)
    writer.add_add_bos_token(bool(starts))
    for id_of, add in (
        (texts.tokenizer.unk_token_id, writer.add_unk_token_id),
        (texts.tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if id_of is not None:
            add(id_of)


def _spell(
    spelling_of: dict[int, str], *, num_rows: int, hidden: Collection[str], own: Collection[str], is_pieces: bool
) -> tuple[list[str], list[TokenType]]:
    tokens, kinds = [], []
    for index in range(num_rows):
        spelling = spelling_of.get(index)
        if spelling is None or spelling in hidden:
            tokens.append(_hide(str(index) if spelling is None else spelling, is_pieces=is_pieces))
            kinds.append(TokenType.UNUSED if spelling is None else TokenType.NORMAL)
        else:
            tokens.append(spelling)
            is_byte = is_pieces and spelling in _BYTES
            kinds.append(TokenType.USER_DEFINED if spelling in own else TokenType.BYTE if is_byte else TokenType.NORMAL)
    return tokens, kinds


def _hide(spelling: str, *, is_pieces: bool) -> str:
    """A spelling that no text arrives at."""
    if is_pieces:
        return f"{HIDDEN}{spelling}"
    return _NO_BYTE + "".join(_SPELLED_BYTE[byte] for byte in spelling.encode())


def _splitter_of(state: dict[str, Any]) -> tuple[str, UnicodeForm | None]:
    """How a byte-level tokenizer takes texts apart, in llama.cpp's word, and the form of Unicode it makes first."""
    normalizer = state["normalizer"]
    if normalizer and normalizer["type"] != "NFC":
        raise _refuse(f"the normalizer {normalizer['type']}")
    before = state["pre_tokenizer"] or {"type": "none"}
    steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    described = []
    for step in steps:
        if step["type"] == "ByteLevel" and not step["add_prefix_space"]:
            described.append(("ByteLevel", step.get("use_regex", True)))
        elif step["type"] == "Digits":
            described.append(("Digits", step["individual_digits"]))
        elif step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
            described.append(("Split", step["pattern"].get("Regex")))
        else:
            described.append((step["type"], None))
    key: tuple[Any, ...] = (*described, bool(state["model"].get("ignore_merges")))
    if key not in _SPLITTERS:
        raise _refuse(f"it takes texts apart in a way that has no name there: {', '.join(map(str, key))}")
    return _SPLITTERS[key], "NFC" if normalizer else None


def _puts_blank(state: dict[str, Any]) -> bool:
    """Whether SentencePiece's BPE puts a blank before texts; that it takes blanks as it does there."""
    missing = sorted(set(_BYTES) - set(state["model"]["vocab"]))
    if missing:
        raise _refuse(f"{len(missing)} bytes have no token: {missing[0]} ...")
    normalizer, before = state["normalizer"], state["pre_tokenizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK}
    prepends = {"type": "Prepend", "prepend": _BLANK}
    # Nothing is left of the blanks that this would part a text at.
    at_blanks = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if before not in (None, at_blanks) or steps not in ([replaces], [prepends, replaces]):
        raise _refuse("it takes blanks otherwise than SentencePiece's BPE does there")
    return prepends in steps


def _never_made(vocabulary: dict[str, int], *, made: Collection[str], own: Collection[str]) -> set[str]:
    """Entries of several characters that no merge makes: llama.cpp, which has no merges, would make them."""
    return {one for one in vocabulary if len(one) > 1 and one not in made and one not in own and one not in _BYTES}


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """Of each token the rank of the first merge that makes it, as a score: the higher, the sooner."""
    rank_of: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        rank_of.setdefault(merge.replace(" ", "", 1), rank)
    return [float(-rank_of.get(token, len(merges))) for token in tokens]


def _refuse(reason: str) -> ConfigError:
    return ConfigError(
        f"llama.cpp has no tokenizer that cuts texts as this model's: {reason}.\n"
        "Export to sentence-transformers or onnx, or load it with embedsmith."
    )
