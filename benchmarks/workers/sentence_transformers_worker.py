"""sentence-transformers: its trainer's collator, loss, training step and optimizer; its `encode`.

The trainer is its own. Only the loop around `training_step` is ours, because a step must wait until it is asked for.
"""

import tempfile
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers.utils import is_flash_attn_2_available, is_flash_attn_4_available

from benchmarks.protocol import Batch, WorkerSpec, read_batches

_COLUMNS = ("anchor", "positive", "negative")


def flash_attention() -> str | None:
    """The version of flash attention that is installed, as transformers calls it; None: neither is."""
    versions = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_4": is_flash_attn_4_available}
    return next((name for name, is_there in versions.items() if is_there()), None)


class SentenceTransformersSubject:
    """A SentenceTransformer with last-token pooling and, where it is to be trained, LoRA and a trainer."""

    def __init__(self, spec: WorkerSpec, *, chat_template: bool) -> None:
        dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
        options: dict[str, Any] = {"dtype": dtype}
        if spec.device != "cpu" and (flash := flash_attention()):
            options["attn_implementation"] = flash
        transformer = Transformer(spec.model, max_seq_length=spec.max_length, model_kwargs=options)
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
        self.model = SentenceTransformer(modules=[transformer, pooling], device=spec.device)
        # A tokenizer with a chat template makes it wrap every string in a message: three times the tokens.
        modality = self.model.preprocess(["a text"])["modality"]
        assert modality == ("message" if chat_template else "text"), f"texts are taken as {modality}"
        if spec.triplets:
            torch.manual_seed(spec.seed)
            self._add_adapter(spec)
            self._make_trainer(spec)

    def step(self, batch: Batch) -> tuple[float, int]:
        """Collate, `training_step`, clip, optimizer, schedule: what its loop does between two batches."""
        trainer = self.trainer
        rows = [
            dict(zip(_COLUMNS, texts, strict=True))
            for texts in zip(batch.anchors, batch.positives, batch.negatives, strict=True)
        ]
        inputs: dict[str, Any] = trainer.data_collator(rows)
        num_tokens = sum(int(inputs[f"{column}_attention_mask"].sum()) for column in _COLUMNS)
        loss = trainer.training_step(self.prepared, inputs)
        trainer.accelerator.clip_grad_norm_(self.prepared.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.optimizer.zero_grad()
        return loss.item(), num_tokens

    def encode(self, texts: list[str]) -> np.ndarray:
        """Its default batch size; it sorts by length itself."""
        vectors = self.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    def _add_adapter(self, spec: WorkerSpec) -> None:
        self.model.add_adapter(
            LoraConfig(
                task_type="FEATURE_EXTRACTION",
                r=spec.lora_r,
                lora_alpha=spec.lora_alpha,
                lora_dropout=spec.lora_dropout,
                target_modules=list(spec.target_modules),
                init_lora_weights="gaussian",
            )
        )
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # bf16 weights are too coarse for the first updates

    def _make_trainer(self, spec: WorkerSpec) -> None:
        assert spec.triplets is not None
        columns = zip(*((b.anchors, b.positives, b.negatives) for b in read_batches(spec.triplets)), strict=True)
        texts = {name: [text for part in parts for text in part] for name, parts in zip(_COLUMNS, columns, strict=True)}
        self.folder = tempfile.TemporaryDirectory()
        arguments = SentenceTransformerTrainingArguments(
            output_dir=self.folder.name,
            per_device_train_batch_size=spec.batch_size,
            max_steps=1000,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.max_grad_norm,
            lr_scheduler_type="cosine",
            seed=spec.seed,
            use_cpu=spec.device == "cpu",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model=self.model,
            args=arguments,
            train_dataset=Dataset.from_dict(texts),
            loss=MultipleNegativesRankingLoss(self.model, scale=1 / spec.temperature),
        )
        trainer.create_optimizer_and_scheduler(num_training_steps=arguments.max_steps)
        trainer.current_gradient_accumulation_steps = 1
        self.prepared, trainer.optimizer = trainer.accelerator.prepare(self.model, trainer.optimizer)
        self.trainer = trainer
