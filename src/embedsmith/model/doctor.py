"""The doctor: does this model turn text into tokens and vectors as it should?

Each finding says what was seen and, when wrong, what to do.
"""

from dataclasses import dataclass

from embedsmith.model.embedder import Embedder
from embedsmith.model.finding import Finding
from embedsmith.model.token_checks import EXAMPLE, check_tokens, tokenize
from embedsmith.model.vector_checks import check_vectors
from embedsmith.support.errors import ModelError


@dataclass(frozen=True)
class Diagnosis:
    """All findings on a model, and how one text becomes tokens: (id, token) pairs."""

    model: str
    text: str
    tokens: list[tuple[int, str]]
    findings: list[Finding]

    @property
    def is_healthy(self) -> bool:
        """Whether every check passed."""
        return all(finding.is_ok for finding in self.findings)

    def raise_if_wrong(self) -> None:
        """Raise ModelError naming what is wrong, if anything is."""
        wrong = [f"  {f.check}: {f.detail}\n    {f.advice}" for f in self.findings if not f.is_ok]
        if wrong:
            head = f"The model '{self.model}' cannot be trusted as it is:"
            raise ModelError("\n".join([head, *wrong, f"See everything with: embedsmith doctor {self.model}"]))


def examine(embedder: Embedder, *, text: str | None = None) -> Diagnosis:
    """Run every check on an embedder; `text` is the example to show, a short sentence by default."""
    text = text or EXAMPLE
    ids = tokenize(embedder, [text]).ids[0].tolist()
    return Diagnosis(
        model=embedder.backbone.name,
        text=text,
        tokens=list(zip(ids, embedder.backbone.tokenizer.convert_ids_to_tokens(ids), strict=True)),
        findings=[*check_tokens(embedder, text), *check_vectors(embedder, text)],
    )
