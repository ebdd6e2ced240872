"""Prompts inside a tokenizer.json, as an export for other tools has them: put in, and taken out again.

    start token  {before}  text  {behind}  end token        one prompt for all texts: its ids stand in the template
    \\A(?:query:|passage:)                                    several: what texts begin with is tokenised apart

embedsmith itself puts prompts where `embedding.json` says, so it takes them out when it loads such a tokenizer.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers, processors

_BEFORE, _BEHIND, _CONTROL = "{before}", "{behind}", "{control}"
_FIRST = r"\A(?:"


def set_template(
    backend: Tokenizer,
    *,
    starts: Sequence[int],
    before: Sequence[int],
    behind: Sequence[int],
    ends: Sequence[int],
    control_ids: Collection[int],
) -> None:
    """Let a tokenizer put ids around every text by itself; they count towards the length that it cuts to.

    It recognises no control token in a text. Which ids of the prompt are some (`control_ids`) is kept, for
    `take_out_prompts`.
    """
    names = {index: str(backend.id_to_token(index)) for index in (*starts, *before, *behind, *ends)}
    around = {_BEFORE: before, _BEHIND: behind}
    kept = {_CONTROL: sorted({*before, *behind} & set(control_ids))}
    pieces = [names[index] for index in starts]
    pieces += [piece for piece in (_BEFORE, "$A", _BEHIND) if around.get(piece, True)]
    pieces += [names[index] for index in ends]
    single = {names[index]: [index] for index in (*starts, *ends)}
    special = [
        {"id": piece, "ids": list(ids), "tokens": [names[index] for index in ids]}
        for piece, ids in {**single, **around, **kept}.items()
        if ids
    ]
    backend.post_processor = processors.TemplateProcessing(single=" ".join(pieces), special_tokens=special)


def spell_template(backend: Tokenizer, *, before: Sequence[int], behind: Sequence[int]) -> None:
    """The same as `set_template`, each token under its own name: readers that take a name for one token of the
    vocabulary (transformers.js) find it. `take_out_prompts` does not find the prompt again."""

    def piece(index: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": backend.id_to_token(index), "type_id": 0}}

    template = [*map(piece, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(piece, behind)]
    names = {index: str(backend.id_to_token(index)) for index in (*before, *behind)}
    state = json.loads(backend.to_str())
    state["post_processor"] = {
        "type": "TemplateProcessing",
        "single": template,
        "pair": [*template, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]} for index, name in names.items()},
    }
    backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor


def cut_off_beginnings(backend: Tokenizer, *, beginnings: Sequence[str]) -> None:
    """Let a tokenizer cut what texts may begin with apart from what follows; the longest that fits."""
    normalize = backend.normalizer.normalize_str if backend.normalizer else str
    spelled = "|".join(re.escape(normalize(one)) for one in sorted(beginnings, key=len, reverse=True))
    split = pre_tokenizers.Split(Regex(f"{_FIRST}{spelled})"), behavior="isolated")
    others = [backend.pre_tokenizer] if backend.pre_tokenizer else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, *others])


def has_prompts(backend: Tokenizer) -> bool:
    """Whether any stand in it."""
    return _takes_part(_state(backend.post_processor)) or _cuts_off(_state(backend.pre_tokenizer))


def take_out_prompts(backend: Tokenizer) -> None:
    """Inverse of the two above; control tokens that the prompt held are recognised again."""
    state = json.loads(backend.to_str())
    template = state["post_processor"]
    if _takes_part(template or {}):
        template["single"] = [piece for piece in template["single"] if _name_of(piece) not in (_BEFORE, _BEHIND)]
        tokens = template["special_tokens"]
        template["special_tokens"] = {
            name: token for name, token in tokens.items() if name not in (_BEFORE, _BEHIND, _CONTROL)
        }
        control = tokens.get(_CONTROL, {}).get("tokens", [])
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    if _cuts_off(state["pre_tokenizer"] or {}):
        del state["pre_tokenizer"]["pretokenizers"][0]
    plain = Tokenizer.from_str(json.dumps(state))
    backend.post_processor, backend.pre_tokenizer = plain.post_processor, plain.pre_tokenizer


def _state(part: Any) -> dict[str, Any]:
    return json.loads(part.__getstate__()) if part else {}


def _takes_part(template: dict[str, Any]) -> bool:
    return bool({_BEFORE, _BEHIND} & {_name_of(piece) for piece in template.get("single", [])})


def _name_of(piece: dict[str, Any]) -> str | None:
    return piece.get("SpecialToken", {}).get("id")


def _cuts_off(state: dict[str, Any]) -> bool:
    first = (state.get("pretokenizers") or [{}])[0]
    return str(first.get("pattern", {}).get("Regex", "")).startswith(_FIRST)
