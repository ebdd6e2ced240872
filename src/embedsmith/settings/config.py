"""RunConfig: every setting of a run, typed, with its meaning.

Leaf names are the ones Hugging Face users know and occur once each. `recipe.py` reads them.
"""

from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from embedsmith.settings.choices import Loss, Precision, Quantization
from embedsmith.settings.contrast import PLAIN, ContrastSection
from embedsmith.settings.data import DataSection, TrainSource
from embedsmith.settings.model import ModelSection
from embedsmith.settings.prompts import INSTRUCTION_FIELD
from embedsmith.settings.section import Float, Int, Names, Place, Section
from embedsmith.settings.teacher import TeacherSection


class AdapterSection(Section):
    """LoRA (Hu et al. 2021), saved in peft's format; or every weight of the model."""

    method: Literal["lora", "full"] = "lora"
    """lora, or full: all weights are trained, in float32, and saved as a model folder."""
    lora_r: Int = Field(default=8, ge=1)
    """Rank."""
    lora_alpha: Float = Field(default=32, gt=0)
    """The update is scaled by lora_alpha / lora_r."""
    lora_dropout: Float = Field(default=0.1, ge=0, lt=1)
    """Share of the adapter's inputs set to zero while training."""
    target_modules: Names | None = Field(default=None, min_length=1)
    """Names of the linear layers to adapt, or all-linear; none: query and value projections of the family."""
    init_lora_weights: Literal["gaussian", "kaiming"] = "gaussian"
    """Start of LoRA's A matrices; B starts at zero."""


class TrainingSection(Section):
    """The contrastive training run."""

    max_steps: Int | None = Field(default=None, ge=1)
    """Optimizer steps; none: as many as num_train_epochs needs."""
    num_train_epochs: Float = Field(default=1.0, gt=0)
    """Passes over the data, where max_steps is not given."""
    batch_size: Int = Field(default=64, ge=2)
    """Triplets per step; each sees the positives and negatives of all others."""
    max_tokens: Int | None = Field(default=None, ge=1)
    """Tokens that keep what backward needs at one time: bounds memory. What a batch has beyond it is computed twice,
    with the same gradients. None: as many as half of the free memory holds."""
    learning_rate: Float = Field(default=1e-3, gt=0)
    """Peak, reached after the warm-up."""
    warmup_steps: Int | None = Field(default=None, ge=0)
    """Steps of linear rise, before the cosine fall to zero; none: a tenth of the run."""
    weight_decay: Float = Field(default=1e-4, ge=0)
    """Of AdamW."""
    max_grad_norm: Float = Field(default=1.0, gt=0)
    """Gradients with a larger norm are scaled down to it."""
    temperature: Float = Field(default=0.05, gt=0)
    """Divides cosine similarities in the loss; sentence-transformers' `scale` is its inverse."""
    loss: Loss = Loss.AUTO
    """auto, info_nce (triplets and pairs), cosent or angle (scored pairs), or mntp (adapts to attention both ways)."""
    mask_rate: Float = Field(default=0.2, gt=0, le=1)
    """Share of the tokens that mntp hides."""
    mask_token: str = "_"  # noqa: S105 (no password)
    """What stands for a token that mntp hides."""
    use_hard_negatives: bool = True
    """Whether the data's negatives are candidates too."""
    hard_negative_weight: Float = Field(default=1.0, ge=0)
    """How many times a row's own hard negative counts in its denominator (SimCSE's alpha); 1: as any other."""
    matryoshka_dims: list[Annotated[Int, Field(ge=1)]] = Field(default=[])
    """Widths the first dimensions shall be good at by themselves; the loss is the mean over them and the full width.
    Empty: the full width only."""
    seed: Int = Field(default=7, ge=0)
    """Fixes adapter start, order of data and dropout."""
    save_steps: Int | None = Field(default=None, ge=1)
    """Steps between checkpoints to resume from; none: as eval_steps."""
    save_total_limit: Int = Field(default=2, ge=1)
    """How many checkpoints are kept, the last ones: where one is damaged, the one before it is taken."""
    report_to: Names = Field(default=[])
    """Trackers besides metrics.jsonl: tensorboard, wandb."""


class EvaluationSection(Section):
    """The development set, which picks the best adapter or only watches, and what of a run is kept."""

    dev: Place | None = "sample"
    """Scored pairs: a file, or `sample`; none: keep the last adapter."""
    keep: Literal["best", "last", "average"] = "best"
    """Which step's adapter the run ends with: the best on the development set, or the last, however it scores there; or
    the average of the last ones."""
    average_last: Int = Field(default=4, ge=2)
    """Of an average: how many states, those after the run's last evaluations. They stay in the run's folder."""
    dev_columns: dict[str, str] = Field(default={})
    """{sentence1: ..., sentence2: ..., score: ...} where they are named otherwise."""
    eval_steps: Int | None = Field(default=None, ge=1)
    """Steps between evaluations; none: eight times a run."""
    eval_at_start: bool = True
    """Whether the untrained state is scored too, before the first step."""


class RunConfig(Section):
    """A whole run."""

    output_dir: Place
    """The run folder; must not exist yet."""
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    adapter: AdapterSection = AdapterSection()
    training: TrainingSection = TrainingSection()
    contrast: ContrastSection = PLAIN
    teacher: TeacherSection = TeacherSection()
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _check_trackers(self) -> "RunConfig":
        known = ("tensorboard", "wandb")
        unknown = [name for name in self.training.report_to if name not in known]
        if unknown:
            raise ValueError(f"training.report_to: unknown tracker {unknown[0]!r}, known are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _check_full(self) -> "RunConfig":
        if self.adapter.method == "full":
            if self.model.precision is Precision.BF16:
                raise ValueError(
                    "adapter.method is full, which trains the weights themselves in float32, but model.precision is "
                    "bf16; set it to auto or fp32"
                )
            if self.model.quantization is not Quantization.NONE:
                raise ValueError(
                    f"adapter.method is full, but model.quantization is {self.model.quantization}: weights in few bits "
                    "cannot be trained; set it to none"
                )
            idle = [name for name in self.adapter.changed() if name != "method"]
            if idle:
                raise ValueError(f"adapter.method is full, with which {', '.join(idle)} does nothing; leave it away")
        return self

    @model_validator(mode="after")
    def _check_sharded(self) -> "RunConfig":
        needs_whole = {
            "adapter.method": ("full", self.adapter.method == "full", "all weights would move; set it to lora"),
            "model.quantization": (
                self.model.quantization,
                self.model.quantization is not Quantization.NONE,
                "weights in few bits are not cut into rows; take one of the two",
            ),
            "training.loss": ("mntp", self.training.loss is Loss.MNTP, "it needs the output matrix as a whole"),
        }
        for name, (value, is_met, why) in needs_whole.items():
            if self.model.sharded and is_met:
                raise ValueError(f"model.sharded is true, which does not go with {name}: {value}: {why}")
        return self

    @model_validator(mode="after")
    def _check_instructions(self) -> "RunConfig":
        given = [
            "model.instruction" if self.model.instruction is not None else "",
            *("data.train" for source in self.data.train if isinstance(source, TrainSource) and source.instruction),
        ]
        named = next(filter(None, given), None)
        if named and not self.model.takes_instruction:
            raise ValueError(f"{named} has an instruction, but no prompt holds {INSTRUCTION_FIELD} to put it in")
        is_symmetric = any(isinstance(source, TrainSource) and source.symmetric for source in self.data.train)
        if is_symmetric and self.model.query_prompt is None:
            raise ValueError("data.train names a symmetric source, which changes nothing without model.query_prompt")
        return self

    @model_validator(mode="after")
    def _check_average(self) -> "RunConfig":
        settings = self.evaluation
        if settings.average_last != EvaluationSection().average_last and settings.keep != "average":
            raise ValueError(
                f"evaluation.average_last is {settings.average_last}, but does nothing while evaluation.keep is "
                f"{settings.keep}; set it to average"
            )
        return self

    @model_validator(mode="after")
    def _check_teacher(self) -> "RunConfig":
        settings = self.teacher
        is_used = settings.compares or settings.embedding_weight > 0
        if settings.teacher and not is_used:
            raise ValueError(
                f"teacher.teacher is {settings.teacher!r}, but nothing asks it; "
                "set teacher.guide, teacher.distill_weight or teacher.embedding_weight"
            )
        if is_used and not settings.teacher:
            raise ValueError(
                "teacher.guide, teacher.distill_weight and teacher.embedding_weight need a teacher; "
                "name it with teacher.teacher"
            )
        asked_by = {
            "centered": "teacher",
            "margin": "guide",
            "distill_temperature": "distill_weight",
            "embedding_distance": "embedding_weight",
        }
        for name, asks in asked_by.items():
            if name in settings.changed() and not getattr(settings, asks):
                raise ValueError(
                    f"teacher.{name} is {getattr(settings, name)}, but does nothing without teacher.{asks}"
                )
        idle = [
            *(["teacher.guide"] if settings.guide else []),
            *(["training.hard_negative_weight"] if self.training.hard_negative_weight != 1 else []),
            *self.contrast.changed_ranking,
        ]
        if settings.distill_weight == 1 and idle:
            raise ValueError(
                "teacher.distill_weight is 1, which leaves nothing of the contrastive loss; "
                f"lower it, or drop {' and '.join(idle)}"
            )
        if settings.embedding_weight == 1 and (idle := self._idle_beside_embeddings()):
            raise ValueError(
                "teacher.embedding_weight is 1, which leaves nothing of any other loss, so nothing comes of "
                f"{', '.join(idle)}; lower it, or leave that away"
            )
        return self

    @model_validator(mode="after")
    def _check_hardness(self) -> "RunConfig":
        if self.contrast.hardness_mode == "hard_negatives" and self.training.hard_negative_weight == 0:
            raise ValueError(
                "contrast.hardness_mode is hard_negatives, but training.hard_negative_weight is 0, which takes a row's "
                "own negatives out; drop one of the two"
            )
        return self

    def _idle_beside_embeddings(self) -> list[str]:
        """Settings that count only where a batch's texts are compared with each other, and are not as by default."""
        of_training = ("loss", "temperature", "hard_negative_weight")
        of_teacher = ("guide", "distill_weight")
        return [
            *(f"training.{name}" for name in self.training.changed() if name in of_training),
            *self.contrast.changed_ranking,
            *(f"teacher.{name}" for name in self.teacher.changed() if name in of_teacher),
        ]

    def to_yaml(self) -> str:
        """The resolved configuration as a recipe that `load_config` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
