"""The doctor's checks of tokens.

The end token stands exactly once, at the end; truncation cuts neither it nor the prompt; no chat template is applied;
control tokens spelled in a text are characters. Each says where its setting comes from.
"""

import numpy as np

from embedsmith.model.control_tokens import texts_that_spell_them
from embedsmith.model.embedder import Embedder
from embedsmith.model.finding import Finding
from embedsmith.model.tokens import TokenizedTexts
from embedsmith.settings.choices import Side

EXAMPLE = "The library on Mill Street opens at nine."


def check_tokens(embedder: Embedder, text: str) -> list[Finding]:
    """How a text becomes tokens, in the order of a text."""
    ids = tokenize(embedder, [text]).ids[0]
    return [
        _pooling(embedder),
        _attention(embedder),
        _start_token(embedder, ids),
        _end_token(embedder, ids),
        _pad_token(embedder),
        *(_prompt(embedder, text, side) for side in _sides(embedder)),
        *_named_prompts(embedder),
        _truncation(embedder),
        _chat_template(embedder),
        _spelled_control_tokens(embedder),
    ]


def tokenize(embedder: Embedder, texts: list[str], side: Side = Side.DOCUMENT) -> TokenizedTexts:
    """Texts under the prompt of their side."""
    return embedder.tokenizer.tokenize(texts, prompts=embedder.prompt_of(side))


def _sides(embedder: Embedder) -> list[Side]:
    return list(Side) if embedder.settings.query_prompt else [Side.DOCUMENT]


def _without_end(embedder: Embedder, ids: np.ndarray) -> list[int]:
    return (ids[:-1] if embedder.settings.end_token else ids).tolist()


def _from(embedder: Embedder, *names: str) -> str:
    """Where a setting comes from, to stand behind it."""
    return f"({next((embedder.origins[name] for name in names if name in embedder.origins), 'by default')})"


def _pooling(embedder: Embedder) -> Finding:
    settings = embedder.settings
    over = {
        "all": "",
        "behind_prompt": ", means over what stands behind the prompt",
        "text": ", means over the text and what stands behind it",
    }[settings.pool_over]
    dense = embedder.backbone.dense
    widths = " -> ".join(map(str, [dense[0].in_features, *(layer.out_features for layer in dense)])) if dense else ""
    layers = f", then dense layers {widths}" if dense else ""
    detail = f"{settings.pooling}{over} {_from(embedder, 'pooling')}{layers}; unit length, {embedder.dim} dimensions"
    return Finding("pooling", True, detail)


def _attention(embedder: Embedder) -> Finding:
    num_layers = embedder.backbone.model.config.num_hidden_layers
    num_open = num_layers - embedder.causal_layers
    where = {0: "causal", num_layers: "both ways"}.get(
        num_open, f"both ways in the last {num_open} of {num_layers} layers"
    )
    return Finding("attention", True, f"{where} {_from(embedder, 'bidirectional_layers')}")


def _start_token(embedder: Embedder, ids: np.ndarray) -> Finding:
    tokenizer = embedder.backbone.tokenizer
    start = tokenizer.bos_token_id
    if start is None:
        return Finding("start token", True, "the tokenizer has none")
    is_there = bool(ids[0] == start)
    count = int((ids[:-1] == start).sum())
    detail = f"{tokenizer.bos_token!r} (id {start}) " + (
        "stands first" if is_there else "is not added by this tokenizer"
    )
    return Finding("start token", count <= 1, detail, "" if count <= 1 else "Remove it from model.prompt.")


def _end_token(embedder: Embedder, ids: np.ndarray) -> Finding:
    end = embedder.tokenizer.end_id
    name = f"{embedder.backbone.tokenizer.convert_ids_to_tokens(end)!r} (id {end})"
    origin = _from(embedder, "end_token")
    count = int((ids[1:] == end).sum()) if len(ids) > 1 else 1
    if not embedder.settings.end_token:
        advice = "" if count == 0 else "Remove the end token from model.prompt and from the text."
        detail = f"{name} is not put {origin}, and stands {count} time(s)"
        return Finding("end token", count == 0, detail, advice)
    is_ok = bool(ids[-1] == end) and count == 1
    return Finding(
        "end token",
        is_ok,
        f"{name} stands {count} time(s), {'last' if ids[-1] == end else 'not last'} {origin}",
        "" if is_ok else "Remove the end token from model.prompt and from the text: embedsmith adds it.",
    )


def _pad_token(embedder: Embedder) -> Finding:
    tokenizer = embedder.backbone.tokenizer
    same = " (the same as the end token)" if tokenizer.pad_token_id == tokenizer.eos_token_id else ""
    return Finding("pad token", True, f"id {tokenizer.pad_token_id}{same}; never used, texts are packed")


def _prompt(embedder: Embedder, text: str, side: Side) -> Finding:
    check = "prompt of queries" if side is Side.QUERY else "prompt"
    prompt = embedder.prompt_of(side)
    names = ("query_prompt", "prompt") if side is Side.QUERY else ("prompt",)
    origin = _from(embedder, *names)
    if prompt.is_empty:
        return Finding(check, True, f"none {origin}")
    ids = tokenize(embedder, [text], side).ids[0]
    decoded = embedder.backbone.tokenizer.decode(_without_end(embedder, ids))
    is_ok = all(part.strip() in decoded for part in prompt.parts) and _ends_with_prompt(embedder, ids, side)
    advice = "" if is_ok else "The tokenizer changes the prompt's text; write it as it is decoded here."
    why = embedder.why_not_shared(side)
    cost = f"; computed anew with every text: {why}" if why else ""
    way = {"apart": "apart from the text", "joined": "joined with the text"}[embedder.settings.prompt_tokens]
    detail = f"{prompt.template!r} {origin} becomes {decoded!r}, tokenised {way}{cost}"
    return Finding(check, is_ok, detail, advice)


def _named_prompts(embedder: Embedder) -> list[Finding]:
    """The other prompts that a published model brings."""
    if not (prompts := embedder.settings.prompts):
        return []
    detail = f"{', '.join(prompts)} {_from(embedder, 'prompts')}: --prompt NAME takes one"
    return [Finding("prompts by name", True, detail)]


def _ends_with_prompt(embedder: Embedder, ids: np.ndarray, side: Side = Side.DOCUMENT) -> bool:
    decoded = embedder.backbone.tokenizer.decode(_without_end(embedder, ids)).rstrip()
    return bool(decoded.endswith(embedder.prompt_of(side).parts[-1].strip()))


def _truncation(embedder: Embedder) -> Finding:
    limit = embedder.tokenizer.max_length
    short, long = tokenize(embedder, ["word", " ".join(["word"] * 2 * limit)]).ids
    # Both copies of an echo prompt are cut alike, so a token or two may be left over.
    num_spare = 2 if embedder.prompt_of().is_echo else 0
    is_ok = (
        limit - num_spare <= len(long) <= limit
        and bool(long[-1] == short[-1] or not embedder.settings.end_token)  # else it may end within a word
        and bool(long[0] == short[0])
        and _ends_with_prompt(embedder, long)
    )
    kept = ", start, prompt and end kept" if is_ok else ""
    detail = f"a long text is cut to {len(long)} tokens {_from(embedder, 'max_length')}{kept}"
    return Finding("truncation", is_ok, detail, "" if is_ok else "Shorten model.prompt or report this tokenizer.")


def _chat_template(embedder: Embedder) -> Finding:
    tokenizer = embedder.backbone.tokenizer
    if getattr(tokenizer, "chat_template", None) is None:
        return Finding("chat template", True, "the tokenizer has none")
    # Nor is it tried: it is a program, though one in a sandbox.
    return Finding("chat template", True, "there is one, not applied")


def _spelled_control_tokens(embedder: Embedder) -> Finding:
    """A text that spells control tokens has no more of them than another one has."""
    tokenizer = embedder.backbone.tokenizer
    control_ids = set(embedder.tokenizer.encoder.control_tokens.values())
    if tokenizer.unk_token_id != tokenizer.eos_token_id:
        control_ids -= {tokenizer.unk_token_id}  # any word that is not in the vocabulary
    all_ids = tokenize(embedder, [EXAMPLE, *texts_that_spell_them(tokenizer)]).ids
    expected, *found = [[index for index in ids.tolist() if index in control_ids] for ids in all_ids]
    is_ok = all(one == expected for one in found)
    detail = f"{tokenizer.eos_token!r} in a text becomes " + ("its characters" if is_ok else "a control token")
    advice = "" if is_ok else "Report this tokenizer: a text could end itself."
    return Finding("spelled control tokens", is_ok, detail, advice)
