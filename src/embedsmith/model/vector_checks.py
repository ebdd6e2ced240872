"""The doctor's checks of vectors: one text alone, in a batch, packed among others, and through transformers' own padded
forward gives the same. Cost: a few forwards of short texts.
"""

import logging
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize as unit_length

from embedsmith.model.embedder import Embedder
from embedsmith.model.finding import Finding
from embedsmith.model.layers.attention import PACKED_ATTENTION
from embedsmith.model.layers.open_mask import see_ahead
from embedsmith.model.token_checks import tokenize
from embedsmith.settings.choices import Pooling
from embedsmith.support.errors import EmbedsmithError

log = logging.getLogger(__name__)

_OTHERS = ("Rain.", "Two dogs ran along the beach while the tide came in.", "Is the 7:40 train on time today?")
# Distance between unit vectors: rounding alone stays well below, a wrong token or mask lies far above.
_COLLAPSED = 1e-3
_TF32_TOLERANCE = 5e-3  # where float32 products round their inputs to 10 bits: 1.4e-3 was measured with SmolLM2
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.05}


def check_vectors(embedder: Embedder, text: str) -> list[Finding]:
    """The vector of a text, alone and in other ways; what cannot be computed is the one finding."""
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
    tokenized = tokenize(embedder, texts)
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
