"""The doctor: does this model turn text into tokens and vectors as it should?

Token checks: the end token stands exactly once, at the end; truncation cuts neither it nor the prompt; no chat template
is applied; control tokens spelled in a text are characters. Vector checks: one text alone, in a batch, packed among
others, and through transformers' own padded forward gives the same vector. Each finding says what was seen and, when
wrong, what to do. Cost: a few forwards of short texts.
"""

import logging
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize as unit_length

from embedsmith.model.control_tokens import texts_that_spell_them
from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.attention import PACKED_ATTENTION
from embedsmith.model.layers.open_mask import see_ahead
from embedsmith.model.tokens import TokenizedTexts
from embedsmith.settings.choices import Pooling, Side
from embedsmith.support.errors import EmbedsmithError, ModelError

log = logging.getLogger(__name__)

EXAMPLE = "The library on Mill Street opens at nine."
_OTHERS = ("Rain.", "Two dogs ran along the beach while the tide came in.", "Is the 7:40 train on time today?")
# Distance between unit vectors: rounding alone stays well below, a wrong token or mask lies far above.
_COLLAPSED = 1e-3
_TF32_TOLERANCE = 5e-3  # where float32 products round their inputs to 10 bits: 1.4e-3 was measured with SmolLM2
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.05}


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: what was looked at.
        is_ok: whether it is as it should be.
        detail: what was seen.
        advice: what to do when it is not; empty otherwise.
    """

    check: str
    is_ok: bool
    detail: str
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings on a model, and how one text becomes tokens: (id, token) pairs."""

    model: str
    text: str
    tokens: list[tuple[int, str]]
    findings: list[Finding]

    @property
    def is_healthy(self) -> bool:
        """Whether every check passed."""
        return all(finding.is_ok for finding in self.findings)

    def raise_if_wrong(self) -> None:
        """Raise ModelError naming what is wrong, if anything is."""
        wrong = [f"  {f.check}: {f.detail}\n    {f.advice}" for f in self.findings if not f.is_ok]
        if wrong:
            head = f"The model '{self.model}' cannot be trusted as it is:"
            raise ModelError("\n".join([head, *wrong, f"See everything with: embedsmith doctor {self.model}"]))


def examine(embedder: Embedder, *, text: str | None = None) -> Diagnosis:
    """Run every check on an embedder; `text` is the example to show, a short sentence by default."""
    text = text or EXAMPLE
    ids = _tokenize(embedder, [text]).ids[0]
    tokenizer = embedder.backbone.tokenizer
    return Diagnosis(
        model=embedder.backbone.name,
        text=text,
        tokens=list(zip(ids.tolist(), tokenizer.convert_ids_to_tokens(ids.tolist()), strict=True)),
        findings=[
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
            *_vectors(embedder, text),
        ],
    )


def _tokenize(embedder: Embedder, texts: list[str], side: Side = Side.DOCUMENT) -> TokenizedTexts:
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
    ids = _tokenize(embedder, [text], side).ids[0]
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
    short, long = _tokenize(embedder, ["word", " ".join(["word"] * 2 * limit)]).ids
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
    all_ids = _tokenize(embedder, [EXAMPLE, *texts_that_spell_them(tokenizer)]).ids
    expected, *found = [[index for index in ids.tolist() if index in control_ids] for ids in all_ids]
    is_ok = all(one == expected for one in found)
    detail = f"{tokenizer.eos_token!r} in a text becomes " + ("its characters" if is_ok else "a control token")
    advice = "" if is_ok else "Report this tokenizer: a text could end itself."
    return Finding("spelled control tokens", is_ok, detail, advice)


def _vectors(embedder: Embedder, text: str) -> list[Finding]:
    texts = [text, *_OTHERS, text + " " + _OTHERS[1]]
    try:
        alone = embedder.encode([text])[0]
        if finding := _not_numbers(embedder, alone):
            return [finding]
        findings = _other_ways(embedder, texts)
    except (RuntimeError, TypeError, ValueError, EmbedsmithError) as error:
        advice = "This architecture does not run on packed texts; choose another model."
        return [Finding("forward", False, f"fails: {error}", advice)]
    if not all(finding.is_ok for finding in findings):
        findings = _without_rounding(findings, embedder, texts)
    spread = float(np.linalg.norm(alone - embedder.encode([_OTHERS[0]])[0]))
    is_ok = spread > _COLLAPSED
    advice = "" if is_ok else "All texts get one vector; the weights are damaged."
    findings.append(Finding("another text", is_ok, f"differs by {spread:.1e}", advice))
    return findings


def _other_ways(embedder: Embedder, texts: list[str]) -> list[Finding]:
    """The first text's vector beside others, in pieces, and by transformers: each is that of the text alone."""
    alone = embedder.encode(texts[:1])[0]
    ways = {
        "packed with other texts": embedder.encode(texts)[0],
        "the same texts one by one": embedder.encode(texts, max_tokens=1)[0],
        "transformers' padded forward": _reference(embedder, texts)[0],
    }
    tolerance = _tolerance(embedder.backbone.model.dtype, device=embedder.device)
    findings = []
    for name, vector in ways.items():
        distance = float(np.linalg.norm(alone - vector))
        is_ok = distance <= tolerance
        advice = (
            "" if is_ok else "Texts see each other or padding changes them: this model's embeddings would be wrong."
        )
        findings.append(Finding(name, is_ok, f"differs from the text alone by {distance:.1e}", advice))
    return findings


def _without_rounding(findings: list[Finding], embedder: Embedder, texts: list[str]) -> list[Finding]:
    """The findings of `_other_ways`, where what agrees in float32 is no fault; as they are where it cannot be tried.

    A model that was hardly trained since its attention goes both ways may move by more in bfloat16 than by a fault.
    """
    model = embedder.backbone.model
    is_plain = all(weight.is_floating_point() for weight in model.parameters())
    if model.dtype is torch.float32 or not is_plain or embedder.is_sharded or embedder.adapter is not None:
        return findings
    try:
        with embedder.plain_layers() as plain:
            backbone = replace(embedder.backbone, model=deepcopy(plain).float())
        copy = Embedder(backbone, settings=embedder.settings, fused=embedder.decoder is not None)
        in_float32 = _other_ways(copy, texts)
    except (MemoryError, torch.OutOfMemoryError):
        return findings
    log.warning(
        "%s rounds the vectors of '%s' by more than is usual, so they are compared in float32.\n"
        "Set model.precision to fp32 if they are to be exact.",
        str(model.dtype).removeprefix("torch."),
        embedder.backbone.name,
    )
    return [
        replace(rounded, is_ok=True, detail=f"{rounded.detail} by rounding: in float32 {exact.detail}", advice="")
        if exact.is_ok
        else rounded
        for rounded, exact in zip(findings, in_float32, strict=True)
    ]


def _tolerance(dtype: torch.dtype, *, device: torch.device) -> float:
    is_rounded = torch.get_float32_matmul_precision() != "highest"  # some containers set it so
    return _TF32_TOLERANCE if is_rounded and device.type == "cuda" and dtype is torch.float32 else _TOLERANCE[dtype]


def _not_numbers(embedder: Embedder, vector: np.ndarray) -> Finding | None:
    """A vector that holds NaN: the weights do not (loading looks at them), so a sum or product was too large."""
    count = int((~np.isfinite(vector)).sum())
    if not count:
        return None
    dtype = str(embedder.backbone.model.dtype).removeprefix("torch.")
    advice = "Numbers grow too large on the way through the layers; the weights are damaged or need another precision."
    return Finding("forward", False, f"gives NaN in {count} of {len(vector)} dimensions, in {dtype}", advice)


@torch.no_grad()
def _reference(embedder: Embedder, texts: list[str]) -> np.ndarray:
    """The same embeddings through transformers' own attention on a right-padded batch, pooled by plain loops."""
    tokenized = _tokenize(embedder, texts)
    token_lists = tokenized.ids
    longest = max(len(tokens) for tokens in token_lists)
    ids = np.zeros((len(texts), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(token_lists):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    model: Any
    with embedder.dropout(is_on=False), embedder.plain_layers() as model:
        model.set_attn_implementation("eager")
        hooks = see_ahead(model, causal_layers=embedder.causal_layers)
        try:
            states = model(
                input_ids=torch.from_numpy(ids).to(embedder.device),
                attention_mask=torch.from_numpy(mask).to(embedder.device),
                use_cache=False,
            ).last_hidden_state.float()
        finally:
            model.set_attn_implementation(PACKED_ATTENTION)
            for hook in hooks:
                hook.remove()
    vectors = []
    for row, tokens in enumerate(token_lists):
        own = states[row, tokenized.pool_from[row] : len(tokens)]  # (pooled length, H)
        weights = torch.arange(1, len(own) + 1, device=own.device, dtype=own.dtype)
        vectors.append(
            {
                Pooling.LAST: own[-1],
                Pooling.MEAN: own.mean(dim=0),
                Pooling.WEIGHTED_MEAN: (own * weights[:, None]).sum(dim=0) / weights.sum(),
                Pooling.CONCAT: torch.cat([own[-1], own.mean(dim=0)]),
            }[embedder.settings.pooling]
        )
    rows = torch.stack(vectors)
    for layer in embedder.backbone.dense:
        rows = layer(rows)
    return unit_length(rows, dim=-1).cpu().numpy()
