"""The bare model: transformers' forward of one text's tokens, nothing around it. The floor under encoding one text."""

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from benchmarks.protocol import Batch, WorkerSpec


class BareSubject:
    """A model without tokenizing, pooling or batching."""

    def __init__(self, spec: WorkerSpec) -> None:
        dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
        self.model = AutoModel.from_pretrained(spec.model, dtype=dtype).train(mode=False)
        self.tokenizer = AutoTokenizer.from_pretrained(spec.model)
        self.tokens: dict[str, torch.Tensor] = {}

    def step(self, batch: Batch) -> tuple[float, int]:
        """It cannot train."""
        raise NotImplementedError("the bare model is measured for encoding only")

    @torch.no_grad()
    def encode(self, texts: list[str]) -> np.ndarray:
        """Last state of each text, one at a time, not normalized; tokenized on first sight, outside later timings."""
        return np.stack([self._last_state(text) for text in texts])

    def _last_state(self, text: str) -> np.ndarray:
        if text not in self.tokens:
            self.tokens[text] = self.tokenizer(text, return_tensors="pt")["input_ids"]
        output = self.model(input_ids=self.tokens[text], use_cache=False)
        return output.last_hidden_state[0, -1].float().numpy()
