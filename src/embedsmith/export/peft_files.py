"""A run -> its adapter alone, as transformers and peft load it; kept only if they embed as the model does.

    adapter_config.json, adapter_model.safetensors    peft's
    tokenizer.json ...                                puts prompt, start and end token by itself
    embedding.json                                    ours, by which `Embedder.load` takes the folder
    parity.json                                       how near its vectors are to the run's

Whoever loads it pools: the last token's state, or the mean of all.
"""

import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedsmith.export.folders import PARITY_FILE, Format, check_new_folder, what_cannot_be_expressed
from embedsmith.export.parity import Expected, Parity, compare_prompted, compare_vectors, expect
from embedsmith.export.placing import PlacedPrompts, place_prompts
from embedsmith.export.plain_tokenizers import write_closing_tokenizer
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.backbone import find_adapter
from embedsmith.model.loading.sources import source_of
from embedsmith.settings.choices import Pooling, Precision, Side
from embedsmith.support import files
from embedsmith.support.errors import ConfigError
from embedsmith.support.free_memory import let_go

log = logging.getLogger(__name__)

PEFT = "peft"
"""What the format is called beside those of `folders.Format`."""
_BATCH = 8


def export_peft(model: str, *, folder: Path, base_model: str | None = None, device: str = "cpu") -> Parity:
    """Write `folder`; returns how near its embeddings are to the model's, through transformers and peft.

    Args:
        model: a run or adapter.
        folder: must not exist, or be empty.
        base_model: where the base lies, if not where it lay in training.
        device: where both are compared.

    Raises:
        RunError: the folder is taken or cannot be written, or what was written does not embed as the model does.
        ConfigError: it has no adapter, or something that transformers and peft do not compute.
        ModelError: by its name.
    """
    check_new_folder(folder)
    live = Embedder.load(model, base_model=base_model, precision=Precision.FP32, device=device, fused=False)
    if faults := _what_peft_cannot_express(live):
        raise ConfigError(f"Cannot be expressed in {PEFT}: {'; '.join(faults)}.\nExport to merged, or another format.")
    placed, expected = place_prompts(live), expect(live)
    if lead := placed.texts[Side.DOCUMENT]:
        log.warning("Put %r before every text: the tokenizer there cannot put what the prompt ends with.", lead)
    with files.atomic_folder(folder) as temporary:
        live.save(temporary)
        write_closing_tokenizer(live.tokenizer, folder=temporary, prompts=placed)
        base = source_of(live.settings.base_model)
        del live
        let_go()
        parity = _check(temporary, base=base, expected=expected, placed=placed, device=device)
        files.write_json(temporary / PARITY_FILE, asdict(parity))
    return parity


def _what_peft_cannot_express(live: Embedder) -> list[str]:
    faults = what_cannot_be_expressed(live, to=Format.SENTENCE_TRANSFORMERS)
    if live.adapter is None:
        faults.append("a model without an adapter")
    elif find_adapter(live.settings.base_model) is not None:
        faults.append(f"a base that is a run itself: {live.settings.base_model}")
    if not live.attends_as_base and not any("bidirectional_layers" in fault for fault in faults):
        faults.append(f"bidirectional_layers {live.settings.bidirectional_layers}, which the base's own files must say")
    if live.backbone.dense:
        faults.append("dense layers behind the pooling")
    return faults


def _check(folder: Path, *, base: str, expected: Expected, placed: PlacedPrompts, device: str) -> Parity:
    """Through transformers and peft alone."""
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    compare_prompted(tokenizer.backend_tokenizer, expected, placed)
    network = AutoModel.from_pretrained(base, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers under a name that goes away
        network = PeftModel.from_pretrained(network, folder).to(device).eval()
    texts = [placed.texts[Side.DOCUMENT] + text for text in expected.texts]
    found = [
        _embed(network, tokenizer, texts[first : first + _BATCH], expected.settings.pooling)
        for first in range(0, len(texts), _BATCH)
    ]
    return compare_vectors([np.concatenate(found)], expected, dtype="fp32")


@torch.inference_mode()
def _embed(network: Any, tokenizer: Any, texts: list[str], pooling: Pooling) -> np.ndarray:
    """Vectors (K, D) of K texts, in one batch padded on the right."""
    batch = tokenizer(texts, padding=True, padding_side="right", truncation=True, return_tensors="pt")
    batch = batch.to(network.device)
    mask = batch["attention_mask"].float()  # (K, L)
    states = network(**batch).last_hidden_state  # (K, L, H)
    if pooling is Pooling.LAST:
        pooled = states[torch.arange(len(states)), batch["attention_mask"].sum(1) - 1]
    else:
        weights = mask * mask.cumsum(1) if pooling is Pooling.WEIGHTED_MEAN else mask
        pooled = (states * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)
    return torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
