"""embedsmith: the step of its training loop and `Embedder.encode`, fused or plain."""

import numpy as np
import torch
from accelerate import Accelerator

from benchmarks.protocol import Batch, WorkerSpec
from benchmarks.variants import Variant
from embedsmith.data.rows import Triplets
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Loss
from embedsmith.settings.prompts import PROMPTS
from embedsmith.settings.recipe import load_config
from embedsmith.training.budget import TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.memory import tokens_that_fit
from embedsmith.training.objective import Objective
from embedsmith.training.step import take_step


class EmbedsmithSubject:
    """An embedder, with an adapter where it is to be trained."""

    def __init__(self, spec: WorkerSpec, *, variant: Variant) -> None:
        overrides = {
            "output_dir": "unused",
            "model": spec.model,
            "fused": str(variant.fused).lower(),
            "max_length": str(spec.max_length),
            "precision": spec.precision,
            "batch_size": str(spec.batch_size),
            "lora_r": str(spec.lora_r),
            "lora_alpha": str(spec.lora_alpha),
            "lora_dropout": str(spec.lora_dropout),
            "learning_rate": str(spec.learning_rate),
            "temperature": str(spec.temperature),
            "target_modules": f"[{', '.join(spec.target_modules)}]",
        }
        if spec.max_tokens:
            overrides["max_tokens"] = str(spec.max_tokens)
        self.config = load_config(overrides=overrides)
        self.embedder = Embedder.load(
            spec.model,
            precision=spec.precision,
            max_length=spec.max_length,
            device=spec.device,
            fused=variant.fused,
            prompt=variant.prompt,
            end_token=PROMPTS[variant.prompt].end_token if variant.prompt else True,
        )
        self.embedder.shares_prefixes = variant.shares_prefixes
        if variant.fused and self.embedder.why_not_fused:
            raise RuntimeError(f"the blocks are not fused: {self.embedder.why_not_fused}")
        self.max_grad_norm = spec.max_grad_norm
        self.accelerator = Accelerator(cpu=spec.device == "cpu")
        if spec.triplets:
            torch.manual_seed(spec.seed)
            self.embedder.add_adapter(self.config.adapter)
            settings = self.config.training
            self.objective = Objective(Loss.INFO_NCE, settings, self.config.teacher, widths=(self.embedder.dim,))
            self.budget = TokenBudget(settings.max_tokens or tokens_that_fit(self.embedder))
            self.parameters = [p for p in self.embedder.backbone.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(
                self.parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
            )

    def step(self, batch: Batch) -> tuple[float, int]:
        """As one turn of `embedsmith.training.loop.train_adapter`; equal texts count once in the tokens."""
        triplets = Triplets.plain(batch.anchors, batch.positives, [[negative] for negative in batch.negatives])
        loss, num_tokens = take_step(
            self.embedder,
            batch=triplets,
            objective=self.objective,
            budget=self.budget,
            processes=Processes(self.accelerator),
        )
        grad_norm = self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
        assert torch.isfinite(loss) and torch.isfinite(grad_norm), "the loss is not finite"
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item(), num_tokens

    def encode(self, texts: list[str]) -> np.ndarray:
        """By the embedder, with its default bound on one forward."""
        return self.embedder.encode(texts)
