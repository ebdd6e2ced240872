"""An export's folder -> its model card: `README.md` in the form model hubs read, with how its own tool loads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_ST = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
vectors = model.encode(["A cat sleeps.", "An animal is asleep."])
"""
_EMBEDSMITH = """\
from embedsmith import Embedder

embedder = Embedder.load("{name}")
vectors = embedder.encode(["A cat sleeps.", "An animal is asleep."])
"""
_HUB_FILE = """\
from huggingface_hub import hf_hub_download

path = hf_hub_download("{name}", "{file}")
"""
_LIBRARIES = {
    "sentence-transformers": "sentence-transformers",
    "static": "model2vec",
    "merged": "transformers",
    "peft": "peft",
}
_USES = {
    "sentence-transformers": _ST,
    "static": _ST,
    "merged": _EMBEDSMITH,
    "peft": _EMBEDSMITH,
    "gguf": _HUB_FILE.format(name="{name}", file="model.gguf")
    + """
from llama_cpp import Llama

model = Llama(path, embedding=True, n_ctx=512, n_batch=512, n_ubatch=512)
vectors = model.embed(["A cat sleeps.", "An animal is asleep."], normalize=True)
""",
}


@dataclass(frozen=True)
class ExportCard:
    """What such a card says.

    Attributes:
        name: of the repository.
        kind: what it was exported to.
        hub_base: hub id of what it builds on in the end; None: none is known.
        license: of that, where it is known.
        parity: how near its vectors are to those of the model that it was exported from, as `parity.json` has it; None:
            it has none.
        prompts: to be put around texts by whoever asks: name -> template.
    """

    name: str
    kind: str
    hub_base: str | None
    license: str | None
    parity: Mapping[str, Any] | None
    prompts: Mapping[str, str]


def export_card(card: ExportCard) -> str:
    """The card's text."""
    front: dict[str, Any] = {"library_name": _LIBRARIES[card.kind]} if card.kind in _LIBRARIES else {}
    front |= {"pipeline_tag": "sentence-similarity"}
    front |= {"tags": ["embedsmith", "feature-extraction", "sentence-similarity", card.kind]}
    if card.hub_base:
        relation = "adapter" if card.kind == "peft" else "finetune"
        front |= {"base_model": card.hub_base, "base_model_relation": relation}
    front |= {"license": card.license} if card.license else {}
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
        f"# {card.name.rpartition('/')[2]}\n",
        f"A text-embedding model, exported by embedsmith to {card.kind}. Not made to generate text.\n",
    ]
    if card.parity:
        parts += [
            f"Cosines of its vectors to those of the model it was exported from, of {card.parity['num_texts']} texts: "
            f"smallest {card.parity['smallest']:.6f}, mean {card.parity['mean']:.6f}.\n"
        ]
    if card.kind in _USES:
        parts += ["## Use\n", f"```python\n{_USES[card.kind].format(name=card.name)}```\n"]
    if card.prompts:
        lines = [f"- {name}: {template!r}" for name, template in card.prompts.items()]
        parts += ["Put around each text, which takes the place of `{text}`:\n", "\n".join(lines) + "\n"]
    return "\n".join(parts)
