"""The settings of what is learned from: its sources, and how they are mixed."""

from typing import Annotated

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from embedsmith.settings.section import (
    LIST,
    MAPPING,
    ONE,
    Float,
    Int,
    Place,
    Section,
    as_list,
    one_or_list,
    one_or_mapping,
)

Columns = Annotated[Annotated[str, Tag(ONE)] | Annotated[list[str], Tag(LIST)], Discriminator(one_or_list)]


class TrainSource(Section):
    """A source of triplets of which something is said that does not hold for the others."""

    files: Place
    """File, glob, hub dataset id, or `sample`."""
    instruction: str | None = None
    """Fills {instruction} in the prompts of its rows; a column `instruction` in the file goes before it."""
    symmetric: bool = False
    """Whether positives and negatives are queries too, as in NLI and STS data; of texts, whether they are queries."""
    columns: dict[str, Columns] = Field(default={})
    """Its column names, in the place of `data.columns`."""


Source = Annotated[Annotated[Place, Tag(ONE)] | Annotated[TrainSource, Tag(MAPPING)], Discriminator(one_or_mapping)]


class DataSection(Section):
    """The triplets, pairs, scored pairs or texts to learn from; which of them, the columns say."""

    train: Annotated[list[Source], BeforeValidator(as_list)] = Field(default=["sample"], min_length=1)
    """Files, globs, hub dataset ids, or `sample`; or {files: ..., instruction: ..., symmetric: ..., columns: ...}."""
    columns: dict[str, Columns] = Field(default={})
    """Column names where they are not the usual ones: {anchor: ..., positive: ..., negative: ..., instruction: ...},
    {sentence1: ..., sentence2: ..., score: ...} for scored pairs, or {text: ...} for texts alone; of positives and
    negatives several, as a list."""
    max_triplets: Int | None = Field(default=None, ge=1)
    """Use only this many rows, drawn at random, the same ones in every run; a smaller draw is part of a larger one.
    None: all."""
    one_source_batches: bool = False
    """Whether all rows of a batch are of one source, an entry of `train`, so that they are told from their like."""
    source_temperature: Float = Field(default=1.0, gt=0)
    """T of the share of batches that a source then gets, its number of rows to the power of 1/T. 1: by size; the larger
    it is, the more go to small sources."""

    @model_validator(mode="after")
    def _check_sources(self) -> "DataSection":
        if self.one_source_batches and len(self.train) == 1:
            raise ValueError(
                "data.one_source_batches is true, but data.train names one source; name several, each by itself "
                "(what a glob finds is one)"
            )
        if "source_temperature" in self.changed() and not self.one_source_batches:
            raise ValueError(
                f"data.source_temperature is {self.source_temperature}, but does nothing without "
                "data.one_source_batches"
            )
        return self

    @property
    def source_names(self) -> list[str]:
        """The sources without what is said of them."""
        return [source if isinstance(source, str) else source.files for source in self.train]
