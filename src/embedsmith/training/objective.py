"""Configuration + kind of data (+ teacher) -> what a run minimises, as a function of a batch's embeddings.

    batch --text_groups--> texts of each role --embedder--> embeddings (K, D) --loss_of(batch)--> scalar

Made once per run; a setting that would do nothing on the data is refused then. A loss of several widths (Matryoshka) or
with a teacher needs the embeddings of one batch only, so every one of them works through `gradcache.contrastive_step`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch

from embedsmith.data.rows import Triplets
from embedsmith.data.table import TripletTable
from embedsmith.model.teacher import Teacher, load_teachers
from embedsmith.model.widths import shorten
from embedsmith.settings.choices import Loss
from embedsmith.settings.config import RunConfig, TrainingSection
from embedsmith.settings.contrast import PLAIN, ContrastSection
from embedsmith.settings.teacher import TeacherSection
from embedsmith.support.errors import ConfigError
from embedsmith.training.directions import Comparisons, compare, count_columns
from embedsmith.training.gradcache import LossFunction
from embedsmith.training.loss import distillation, embedding_distillation, guided_exclusion, info_nce, spread_out
from embedsmith.training.ranking import angle, cosent
from embedsmith.training.row_blocks import mean_over_rows

Term = Callable[[list[torch.Tensor]], torch.Tensor]
"""Embeddings of a batch's groups, at one width -> scalar loss."""


@dataclass(frozen=True)
class Objective:
    """What a run minimises.

    Attributes:
        loss: `auto` where it does not matter, as only a teacher's vectors are learned from.
        training: temperature, weights, use of negatives.
        guidance: what the teacher is asked for.
        widths: the loss is the mean over these; the last one is D.
        teacher: None without one.
        contrast: the terms of InfoNCE, and its regulariser.
        projection: (T, D), from the embeddings to the teacher's: learned with the adapter, kept nowhere but in
            checkpoints. NaN until `projection.start_projection`; None where nothing is projected.
    """

    loss: Loss
    training: TrainingSection
    guidance: TeacherSection
    widths: tuple[int, ...]
    teacher: Teacher | None = None
    contrast: ContrastSection = PLAIN
    projection: torch.nn.Parameter | None = None

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What is learned besides the model's weights."""
        return [] if self.projection is None else [self.projection]

    def text_groups(self, batch: Triplets) -> list[list[str]]:
        """The batch's texts by role: B anchors, B positives, the M negatives of all rows; of scored pairs the two sides
        and none; of texts these and none."""
        return batch.groups(with_negatives=self.training.use_hard_negatives)

    def loss_of(self, batch: Triplets) -> LossFunction:
        """The batch's loss as a function of the embeddings (K, D) of all its groups, one behind the other."""
        groups = self.text_groups(batch)
        sizes = [len(group) for group in groups]
        terms = self._terms(batch, groups)

        def loss_of(embeddings: torch.Tensor) -> torch.Tensor:
            losses = []
            for dim in self.widths:
                cut = list(shorten(embeddings, dim=dim).split(sizes))
                losses += [weight * term(cut) for weight, term in terms]
            return torch.stack(losses).sum() / len(self.widths)

        return loss_of

    def teacher_vectors(self, batch: Triplets) -> torch.Tensor | None:
        """The teacher's vectors (K, T) of all groups' texts, one behind the other; None without one."""
        if self.teacher is None:
            return None
        groups = self.text_groups(batch)
        return self.teacher.embed(
            list(chain(*groups)), are_queries=batch.are_queries(with_negatives=self.training.use_hard_negatives)
        )

    def _terms(self, batch: Triplets, groups: list[list[str]]) -> list[tuple[float, Term]]:
        """What is added up, each with its weight; the losses' weights sum to 1, the regulariser comes on top."""
        vectors, weight = self.teacher_vectors(batch), self.guidance.embedding_weight
        terms: list[tuple[float, Term]] = []
        if weight < 1:
            compared = self._ranking(batch) if batch.scores is not None else self._contrast(batch, vectors)
            terms.append((1 - weight, compared))
        if weight > 0:
            assert vectors is not None
            terms.append((weight, self._lesson(vectors)))
        if self.contrast.spread_out_weight > 0:
            terms.append((self.contrast.spread_out_weight, self._spread_out))
        return terms

    def _spread_out(self, cut: list[torch.Tensor]) -> torch.Tensor:
        anchor, positive, _negative = cut
        moments = self.contrast.spread_out_moments
        return spread_out(anchor, moments=moments) + spread_out(positive, moments=moments)

    def _ranking(self, batch: Triplets) -> Term:
        rank = angle if self.loss is Loss.ANGLE else cosent

        def term(cut: list[torch.Tensor]) -> torch.Tensor:
            first, second, _none = cut
            scores = torch.as_tensor(batch.scores, device=first.device)
            return rank(first, second, scores, temperature=self.training.temperature)

        return term

    def _lesson(self, vectors: torch.Tensor) -> Term:
        def term(cut: list[torch.Tensor]) -> torch.Tensor:
            assert self.projection is not None
            students = torch.cat(cut)
            seen = self.projection[:, : students.shape[1]]  # a shortened vector goes through the map's first columns
            return embedding_distillation(students, vectors, seen, distance=self.guidance.embedding_distance)

        return term

    def _contrast(self, batch: Triplets, vectors: torch.Tensor | None) -> Term:
        roles = batch.negative_rows if self.training.use_hard_negatives else []
        num_columns = count_columns(self.contrast.directions, num_rows=len(batch), num_negatives=len(roles))
        sizes = (len(batch), len(batch), len(roles))
        taught = None if vectors is None or not self.guidance.compares else list(vectors.split(sizes))

        def term(cut: list[torch.Tensor]) -> torch.Tensor:
            rows = torch.tensor(roles, device=cut[0].device)

            def loss_of(block: slice) -> torch.Tensor:
                found = None if taught is None else self._compare(taught, rows=rows, block=block)
                return self._loss_of_rows(cut, found, rows=rows, block=block)

            return mean_over_rows(loss_of, num_rows=len(batch), num_columns=num_columns)

        return term

    def _loss_of_rows(
        self, cut: list[torch.Tensor], taught: Comparisons | None, *, rows: torch.Tensor, block: slice
    ) -> torch.Tensor:
        """InfoNCE of some rows among all, drawn to what the teacher finds where `info_nce` compares."""
        anchor, positive, negative = cut
        guidance = self.guidance
        excluded = None
        if taught is not None and guidance.guide:
            excluded = guided_exclusion(taught.cosines, margin=guidance.margin, block=block)
        loss = info_nce(
            anchor,
            positive,
            negative if len(rows) else None,
            negative_rows=rows if len(rows) else None,
            temperature=self.training.temperature,
            hard_negative_weight=self.training.hard_negative_weight,
            excluded=excluded,
            terms=self.contrast,
            block=block,
        )
        if taught is None or not guidance.distill_weight:
            return loss
        lesson = distillation(
            anchor[block],
            torch.cat([positive, negative]),
            taught.cosines[:, : taught.num_candidates],
            temperature=guidance.distill_temperature,
        )
        return torch.lerp(loss, lesson, guidance.distill_weight)

    def _compare(self, vectors: list[torch.Tensor], *, rows: torch.Tensor, block: slice) -> Comparisons:
        """What the teacher finds where `info_nce` compares."""
        anchor, positive, negative = vectors
        return compare(
            anchor,
            positive,
            negative if len(rows) else None,
            directions=self.contrast.directions,
            negative_rows=rows if len(rows) else None,
            block=block,
        )


def make_objective(config: RunConfig, *, data: TripletTable, dim: int, device: torch.device) -> Objective:
    """The objective of a run; loads the teacher, if there is one.

    Args:
        config: the run.
        data: what it trains on.
        dim: embedding width D of the model.
        device: where its embeddings are.

    Raises:
        ConfigError: the loss, the weight of negatives, the teacher or a width does not fit the data or the model.
        ModelError, MissingExtraError: the teacher cannot be loaded.
    """
    loss = _choose_loss(config, data=data)
    widths = _choose_widths(config.training.matryoshka_dims, dim=dim)
    names = config.teacher.names
    teacher = load_teachers(names, centers=config.teacher.centers, device=device) if names else None
    projection = None
    if teacher is not None and config.teacher.embedding_weight:
        projection = torch.nn.Parameter(torch.full((teacher.dim, dim), torch.nan, device=device))
    return Objective(loss, config.training, config.teacher, widths, teacher, config.contrast, projection)


def _choose_loss(config: RunConfig, *, data: TripletTable) -> Loss:
    """The loss that `auto` means for this data; ConfigError where a setting does not fit it, naming both."""
    settings = config.training
    holds = f"data.train ({', '.join(config.data.source_names)}) holds {data.kind}"
    if data.has_texts and config.teacher.embedding_weight != 1:
        raise ConfigError(
            f"{holds}, one a row, and a text without a partner can be learned from by a teacher's vectors alone.\n"
            "Name a teacher.teacher and set teacher.embedding_weight to 1, or train on triplets or pairs.\n"
            "To adapt a model to attention both ways set training.loss to mntp."
        )
    if config.teacher.embedding_weight == 1:
        return Loss.AUTO
    fitting = (Loss.COSENT, Loss.ANGLE) if data.has_scores else (Loss.INFO_NCE,)
    loss = fitting[0] if settings.loss is Loss.AUTO else settings.loss
    if loss not in fitting:
        raise ConfigError(
            f"training.loss is {loss}, but {holds}.\nThe losses for {data.kind} are: auto, {', '.join(fitting)}."
        )
    if settings.hard_negative_weight != 1 and not (data.has_negatives and settings.use_hard_negatives):
        reason = holds if not data.has_negatives else "training.use_hard_negatives is false"
        raise ConfigError(
            f"training.hard_negative_weight is {settings.hard_negative_weight}, but {reason}, so there is nothing to "
            "weigh.\nLeave it at 1."
        )
    _check_contrast(config, data=data, holds=holds)
    if config.teacher.compares and data.has_scores:
        raise ConfigError(
            f"teacher.guide and teacher.distill_weight take triplets or pairs, but {holds}: their scores say "
            "already what a teacher would.\nTrain on triplets or pairs, or with teacher.embedding_weight alone."
        )
    return loss


def _check_contrast(config: RunConfig, *, data: TripletTable, holds: str) -> None:
    settings = config.contrast
    if data.has_scores and settings.changed():
        names = ", ".join(f"contrast.{name}" for name in settings.changed())
        raise ConfigError(f"{names}: set for the loss of triplets and pairs, but {holds}.\nLeave it as it is.")
    if settings.hardness_mode != "hard_negatives":
        return
    _, most = data.negatives_per_row if config.training.use_hard_negatives else (0, 0)
    # Weights with a mean of 1 are 1 where there is one of them.
    needed = 2 if settings.hardness_form == "importance" else 1
    if most < needed:
        reason = holds if config.training.use_hard_negatives else "training.use_hard_negatives is false"
        raise ConfigError(
            f"contrast.hardness_mode is hard_negatives, but {reason}, and {settings.hardness_form} needs rows with "
            f"{needed} negative{'s' * (needed > 1)} to weigh.\nTake in_batch_negatives or all_negatives, or none."
        )


def _choose_widths(dims: list[int], *, dim: int) -> tuple[int, ...]:
    """All widths in ascending order, the full one among them."""
    if dims and max(dims) > dim:
        raise ConfigError(
            f"training.matryoshka_dims names {max(dims)}, but the model's embeddings have {dim} dimensions.\n"
            f"Name widths below {dim}; the full one is always trained."
        )
    if dims and min(dims) == dim:
        raise ConfigError(
            f"training.matryoshka_dims names only {dim}, the full width, which is always trained.\n"
            "Name smaller ones, or none."
        )
    return tuple(sorted({*dims, dim}))
