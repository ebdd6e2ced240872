"""The published way to train: every text padded to 150 tokens, three forwards of the whole language model.

As the paper's repository (trapoom555/Language-Model-STS-CFT) does it: a causal language model with its vocabulary
logits, all hidden states kept, the last column of the last one as embedding (padding on the left), bf16 weights and
bf16 autocast, LoRA by peft.
"""

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.protocol import Batch, WorkerSpec


class PublishedSubject:
    """A causal language model under peft."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.tokenizer = AutoTokenizer.from_pretrained(spec.model, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.bfloat16)
        torch.manual_seed(spec.seed)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=spec.lora_r,
            lora_alpha=spec.lora_alpha,
            lora_dropout=spec.lora_dropout,
            target_modules=list(spec.target_modules),
            init_lora_weights="gaussian",
        )
        self.model = get_peft_model(model, config)
        self.model.train()
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)

    def step(self, batch: Batch) -> tuple[float, int]:
        """Three forwards, one backward, clip, optimizer."""
        self.num_tokens = 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            anchor, positive, negative = (self._embed(t) for t in (batch.anchors, batch.positives, batch.negatives))
            logits = torch.cat((anchor @ positive.T, anchor @ negative.T), dim=1)
            loss = cross_entropy(logits.float() / self.spec.temperature, torch.arange(len(anchor)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), self.num_tokens

    def encode(self, texts: list[str]) -> np.ndarray:
        """Embeddings, for checks."""
        self.num_tokens = 0
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), self.model.disable_adapter():
            return self._embed(texts).float().numpy()

    def _embed(self, texts: list[str]) -> torch.Tensor:
        inputs = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.spec.max_length, return_tensors="pt"
        )
        self.num_tokens += int(inputs["attention_mask"].sum())
        output = self.model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
        )
        return normalize(output.hidden_states[-1][:, -1, :], dim=-1)
