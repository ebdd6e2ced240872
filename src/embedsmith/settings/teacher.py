"""What another model, or several as one, says of a run's texts, and how much of the loss that is.

The formulas are in `training/loss.py`; that a teacher fits the rest of a run is looked at in `config.py`.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from embedsmith.settings.section import LIST, ONE, Float, Place, Section, as_list, one_or_list


class EmbeddingDistance(StrEnum):
    """How far a student's projected vector is from its teacher's: 1 - cosine, or the squared Euclidean distance."""

    COSINE = "cosine"
    SQUARED = "squared"


Teachers = Annotated[
    Annotated[Place, Tag(ONE)] | Annotated[list[Place], Field(min_length=1), Tag(LIST)], Discriminator(one_or_list)
]


class TeacherSection(Section):
    """Another embedding model that helps with the training; it is not trained and not needed afterwards."""

    teacher: Teachers | None = None
    """Any MODEL, or a sentence-transformers folder or hub id; several, as a list, are one whose cosines are the mean of
    theirs."""
    centered: bool | None = None
    """Whether the mean over the data's texts is taken off a teacher's vectors, so that a model whose cosines are all
    high spreads them; none: with several teachers, of which the one that spreads most would decide."""
    guide: bool = False
    """Whether candidates are left out that the teacher finds closer to the anchor than the positive (GISTEmbed)."""
    margin: Float = Field(default=0.0, ge=-2, le=2)
    """Of that comparison, in cosine: left out is what lies above the positive's similarity minus this."""
    distill_weight: Float = Field(default=0.0, ge=0, le=1)
    """Share of the loss that draws the student's similarities to the teacher's; 1: nothing else is learned from."""
    distill_temperature: Float = Field(default=0.05, gt=0)
    """Divides both models' cosines in that part."""
    embedding_weight: Float = Field(default=0.0, ge=0, le=1)
    """Share of the loss that draws each text's vector, through a learned projection, to the teacher's; 1: nothing else
    is learned from."""
    embedding_distance: EmbeddingDistance = EmbeddingDistance.COSINE
    """Of that part: cosine (1 - cosine), or squared (the squared Euclidean distance)."""

    @property
    def names(self) -> list[str]:
        """The teachers, none of them, one or several."""
        return as_list(self.teacher) or []

    @property
    def centers(self) -> bool:
        """Whether vectors are less their mean."""
        return len(self.names) > 1 if self.centered is None else self.centered

    @property
    def compares(self) -> bool:
        """Whether the teacher is asked how similar texts are, not only for their vectors."""
        return self.guide or self.distill_weight > 0
