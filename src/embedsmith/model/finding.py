"""What one check of the doctor has found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: what was looked at.
        is_ok: whether it is as it should be.
        detail: what was seen.
        advice: what to do when it is not; empty otherwise.
    """

    check: str
    is_ok: bool
    detail: str
    advice: str = ""
