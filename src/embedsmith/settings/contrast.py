"""What InfoNCE compares a row with beside its candidates, what it leaves out, and what weighs more: named terms.

Their formulas are in `training/directions.py` and `training/loss.py`. The defaults are the plain loss.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from embedsmith.settings.section import Float, Int, Section, as_list


class Direction(StrEnum):
    """What is compared with what in the denominator of a row: its anchor, or its positive, with a role's texts.

    Candidates are the positives and the hard negatives of all rows. Of two texts of one side, those of one row are not
    compared. sentence-transformers has them as query_to_doc, doc_to_query, query_to_query and doc_to_doc.
    """

    ANCHOR_TO_CANDIDATE = "anchor_to_candidate"
    POSITIVE_TO_ANCHOR = "positive_to_anchor"
    ANCHOR_TO_ANCHOR = "anchor_to_anchor"
    POSITIVE_TO_CANDIDATE = "positive_to_candidate"


_WITH_POSITIVE = {Direction.ANCHOR_TO_CANDIDATE, Direction.POSITIVE_TO_ANCHOR}


class ContrastSection(Section):
    """The terms of InfoNCE: what a row is compared with, what is left out, what weighs more."""

    directions: Annotated[list[Direction], BeforeValidator(as_list)] = Field(default=[Direction.ANCHOR_TO_CANDIDATE])
    """What is compared: anchor_to_candidate (always), positive_to_anchor, anchor_to_anchor, positive_to_candidate; all
    four are GTE's loss."""
    partition_mode: Literal["joint", "per_direction"] = "joint"
    """joint: one denominator holds all directions; per_direction: each has one of its own, and the losses are averaged
    (anchor_to_candidate and positive_to_anchor: the symmetric loss)."""
    false_negative_margin: Float | None = Field(default=None, ge=-2, le=2)
    """Leaves out what the model itself finds closer than the row's positive by more than this, in cosine (Qwen3
    Embedding: 0.1); none: nothing is."""
    hardness_mode: Literal["in_batch_negatives", "hard_negatives", "all_negatives"] | None = None
    """Which of an anchor's negatives weigh more the closer they are: in_batch_negatives (other rows' positives and
    negatives), hard_negatives (its own), all_negatives; none: all weigh alike."""
    hardness_strength: Float = Field(default=5, gt=0)
    """How much more: a negative counts exp(strength x cosine) times."""
    hardness_form: Literal["penalty", "importance"] = "penalty"
    """penalty: as it stands, and without gradient (LLaVE, EmbeddingGemma); importance: divided by its mean over the
    anchor's negatives, and with gradient (Robinson et al.)."""
    spread_out_weight: Float = Field(default=0, ge=0)
    """Of the spread-out regulariser (GOR) that is added to the loss."""
    spread_out_moments: list[Annotated[Int, Field(ge=1, le=2)]] = Field(default=[1, 2], min_length=1)
    """Which moments of the cosines it draws to those of random directions: [1, 2] (Zhang et al.), or [2]
    (EmbeddingGemma)."""

    @model_validator(mode="after")
    def _check_directions(self) -> "ContrastSection":
        if Direction.ANCHOR_TO_CANDIDATE not in self.directions:
            raise ValueError("contrast.directions lacks anchor_to_candidate, which holds the pair that is learned")
        if len(set(self.directions)) < len(self.directions):
            raise ValueError("contrast.directions names a direction twice")
        if self.partition_mode == "per_direction":
            if len(self.directions) == 1:
                raise ValueError("contrast.partition_mode is per_direction, but contrast.directions has one alone")
            if without := [name for name in self.directions if name not in _WITH_POSITIVE]:
                raise ValueError(
                    f"contrast.partition_mode is per_direction, but {without[0]} does not hold the positive, so it "
                    "is no loss by itself; take joint"
                )
        return self

    @model_validator(mode="after")
    def _check_idle(self) -> "ContrastSection":
        changed = self.changed()
        for name, needed in (
            ("hardness_strength", "hardness_mode"),
            ("hardness_form", "hardness_mode"),
            ("spread_out_moments", "spread_out_weight"),
        ):
            if name in changed and not getattr(self, needed):
                raise ValueError(
                    f"contrast.{name} is {getattr(self, name)}, but does nothing without contrast.{needed}"
                )
        if len(set(self.spread_out_moments)) < len(self.spread_out_moments):
            raise ValueError("contrast.spread_out_moments names a moment twice")
        return self

    @property
    def changed_ranking(self) -> list[str]:
        """Settings that are not as by default and say how rows are told apart: all but the regulariser's."""
        return [f"contrast.{name}" for name in self.changed() if not name.startswith("spread_out")]


PLAIN = ContrastSection()
"""The loss without any further term."""
