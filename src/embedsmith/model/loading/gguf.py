"""A GGUF file -> a folder of safetensors and its tokenizer, as transformers loads it; made once, kept in the cache.

The folder's name holds the digest of the file's content, so another file is never taken for it. Weights in 2 to 8 bits
come out as the numbers they stand for, in float32; figures are those of the quantised weights.
"""

import hashlib
import logging
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase
from transformers import __version__ as transformers_version

from embedsmith.model.loading.checkpoint_files import SETTINGS_FILE, find_file
from embedsmith.model.loading.configuration import reason_of
from embedsmith.model.loading.gguf_header import GgufHeader
from embedsmith.model.loading.weight_files import check_proportions
from embedsmith.support import files
from embedsmith.support.errors import ModelError

SUFFIX = ".gguf"
# Part of the folder's name: another way of converting is another folder.
_CONVERTER = "2"
# Holds the fingerprint of the other files.
_MADE = "converted.sha256"
_WORD = re.compile(
    r"[\u2581\u0120]([a-z]{4,})"
)  # a vocabulary's entry for a word behind a space, as either kind writes it
_NUM_WORDS, _LEAST_SHARE_WHOLE = 200, 0.5
_ON_HUB = re.compile(r"([\w.-]+/[\w.-]+):(.+)")
_HOW = f"Give the path of a {SUFFIX} file, or of one on the hub: owner/name:file{SUFFIX}"

logger = logging.getLogger(__name__)


def is_gguf(model: str) -> bool:
    """Whether MODEL names a GGUF file."""
    return model.lower().endswith(SUFFIX) and not Path(model).is_dir()


def find_gguf(model: str) -> "GgufFile":
    """The file that MODEL names, local or on the hub (`owner/name:file.gguf`).

    Raises:
        ModelError: there is none.
    """
    path = Path(files.expand_home(model))
    if not path.is_file():
        on_hub = _ON_HUB.fullmatch(model)
        found = find_file(on_hub[1], on_hub[2]) if on_hub else None
        if not found:
            raise ModelError(f"There is no file '{model}'.\n{_HOW}")
        path = found
    return GgufFile([path], name=path.stem)


class GgufFile:
    """One GGUF file, whole or in pieces.

    Args:
        pieces: in order; one is the file itself.
        name: begins the name of the folder it converts to.
    """

    def __init__(self, pieces: Sequence[Path], *, name: str) -> None:
        self.pieces = pieces
        self.name = name

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, in hexadecimal; half a second a gigabyte."""
        digest = hashlib.sha256()
        for piece in self.pieces:
            with piece.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    @property
    def folder(self) -> Path:
        """Where it is converted to."""
        return files.cache_root() / "models" / f"{self.name}-{self.sha256[:16]}-{_CONVERTER}"

    def convert(self, *, anew: bool = False) -> Path:
        """The folder, made if it is not there or `anew`.

        Raises:
            ModelError: the file is damaged, one of several, or of an architecture or number format that cannot be read.
            OSError: the cache folder cannot be written.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.folder}.lock"):
            if anew or not (self.folder / _MADE).exists():
                logger.info("converting %s to %s (once)", self.name, self.folder)
                with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".joining.") as temporary:
                    whole = self.pieces[0]
                    if len(self.pieces) > 1:
                        whole = _join(self.pieces, Path(temporary) / f"{self.name}{SUFFIX}")
                    _convert(whole, self.folder)
        return self.folder

    def is_whole(self) -> bool:
        """Whether the folder's files are still as they were made."""
        try:
            return (self.folder / _MADE).read_text(encoding="utf-8") == _fingerprint(self.folder)
        except OSError:
            return False


def mark_made(folder: Path) -> None:
    """Note how the files of a converted folder are, for `GgufFile.is_whole`."""
    files.write_text(folder / _MADE, _fingerprint(folder))


def _fingerprint(folder: Path) -> str:
    return files.fingerprint(sorted(path for path in folder.iterdir() if path.name != _MADE))


def _join(pieces: Sequence[Path], path: Path) -> Path:
    with path.open("wb") as whole:
        for piece in pieces:
            with piece.open("rb") as file:
                shutil.copyfileobj(file, whole, 1 << 20)
    return path


def _convert(path: Path, folder: Path) -> None:
    header = GgufHeader(path)
    header.check_can_convert()
    source: dict[str, Any] = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    try:
        # Several progress bars are kept back, for a few seconds of work.
        with header.is_read_once(), redirect_stderr(StringIO()):
            config = AutoConfig.from_pretrained(**source, trust_remote_code=False)
            check_proportions(
                config, num_tensors=header.num_tensors, size_bytes=path.stat().st_size, names=(str(path), "its weights")
            )
            model, report = AutoModel.from_pretrained(
                **source, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
    except ModelError:
        raise
    except Exception as error:  # metadata may hold anything
        raise ModelError(
            f"The file {path} cannot be converted: {reason_of(error)}\nUse another file of this model."
        ) from error
    if report["missing_keys"]:
        raise ModelError(
            f"The file {path} is incomplete: {', '.join(sorted(report['missing_keys'])[:5])} are missing.\n"
            "Download it again."
        )
    _check_words(tokenizer, path)
    # transformers refuses to save a model that came from GGUF although its weights are plain tensors by now.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    with files.atomic_folder(folder) as temporary, redirect_stderr(StringIO()):
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if header.settings:
            files.write_text(temporary / SETTINGS_FILE, header.settings)
        mark_made(temporary)


def _check_words(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Refuse a tokenizer that takes its own words apart, as some transformers read Gemma's: without any merges."""
    words = {match[1]: number for entry, number in tokenizer.get_vocab().items() if (match := _WORD.fullmatch(entry))}
    tried = sorted(words, key=lambda word: words[word])[:_NUM_WORDS]
    num_whole = sum(tokenizer(f"a {word}", add_special_tokens=False).input_ids[-1] == words[word] for word in tried)
    if num_whole < _LEAST_SHARE_WHOLE * len(tried):
        raise ModelError(
            f"transformers {transformers_version} does not read the tokenizer of {path} right: of {len(tried)} words "
            f"that are tokens there, {len(tried) - num_whole} are taken apart.\n"
            "Another version may: pip install -U transformers"
        )
