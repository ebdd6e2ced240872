"""A GGUF file's header, looked at before anything is made of it: whole, within its file, and of a kind that is read.

The `gguf` package takes what would lie behind a file's end for nothing. So it would go for years through an array that
claims 2^60 values, and through arrays inside arrays as deep as somebody likes. Here both are refused.
"""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFReader, GGUFValueType
from gguf.quants import dequantize
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from embedsmith.support import files
from embedsmith.support.errors import ModelError

SETTINGS_KEY = "embedsmith.settings"
"""In the metadata of our own files: what `embedding.json` holds."""
_MOST_VALUES = 2**24
"""Of one array: a vocabulary has some hundred thousand entries."""


class _Reader(GGUFReader):
    """A reader that does not go beyond the file."""

    def __setattr__(self, name: str, value: Any) -> None:
        # A vocabulary is read in a million slices, which take four times as long of a memmap as of the array behind it.
        super().__setattr__(name, np.asarray(value) if name == "data" else value)

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"it has {len(self.data):,} bytes, and names a part that ends at {end:,}")
        return super()._get(offset, dtype, count, override_order)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type == GGUFValueType.ARRAY:
            kind, length = self._get(orig_offs, np.uint32)[0], self._get(orig_offs + 4, np.uint64)[0]
            if kind == GGUFValueType.ARRAY or length > _MOST_VALUES:
                what = "arrays" if kind == GGUFValueType.ARRAY else f"{length:,} values"
                raise ValueError(f"an array of {what} stands in its metadata")
        return super()._get_field_parts(orig_offs, raw_type)


class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        num_tensors: how many it holds.
        settings: of an embedding, as our own files hold them; None: it is another tool's.

    Args:
        path: of the file.

    Raises:
        ModelError: it is damaged, cut short or no GGUF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            files.check_can_end(path)
            with np.errstate(over="raise"):
                self._reader = reader = _Reader(path)
            self.num_tensors = len(reader.tensors)
            self.settings = _text(reader, SETTINGS_KEY)
            self._architecture = _text(reader, "general.architecture")
            self._num_parts = int(_value(reader, "split.count") or 1)
            self._unread = {tensor.tensor_type.name for tensor in reader.tensors if not _can_read(tensor)}
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
            raise ModelError(
                f"The file {path} is damaged, cut short, or no GGUF file: {error}\nDownload it again."
            ) from error

    def check_can_convert(self) -> None:
        """Raise ModelError with the reason why the file cannot be converted, if there is one that is known by now."""
        if self._num_parts > 1:
            raise ModelError(
                f"The file {self.path} is one of {self._num_parts} parts of a model.\n"
                "Join them into one file: llama-gguf-split --merge FIRST_PART WHOLE.gguf"
            )
        # transformers files Mistral's under llama; the names it compares with have no dashes or underscores to agree
        # on.
        known = {re.sub("[-_]", "", name) for name in GGUF_SUPPORTED_ARCHITECTURES}
        if re.sub("[-_]", "", self._architecture or "") not in known:
            raise ModelError(
                f"The architecture '{self._architecture}' of {self.path} is not read from GGUF by transformers.\n"
                "Use the model's folder or hub id with safetensors weights instead."
            )
        if self._unread:
            raise ModelError(
                f"Weights of {self.path} are in a number format that cannot be read: "
                f"{', '.join(sorted(self._unread))}.\n"
                "Use a file in another format, such as Q8_0, Q4_K_M or F16."
            )

    @contextmanager
    def is_read_once(self) -> Iterator[None]:
        """Run a block in which transformers takes this header, which it would read four times more, and makes the map
        of tensors' names once, which it would for every module."""
        others = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
        gguf.GGUFReader = lambda path: self._reader if str(path) == str(self.path) else _Reader(path)
        gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
        try:
            yield
        finally:
            for name, other in others.items():
                setattr(gguf, name, other)


def _value(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    return field.contents() if field else None


def _text(reader: GGUFReader, name: str) -> str | None:
    value = _value(reader, name)
    if not isinstance(value, str | None):
        raise ValueError(f"{name} is no text")
    return value


def _can_read(tensor: Any) -> bool:
    try:
        dequantize(tensor.data[:1], tensor.tensor_type)
    except NotImplementedError:
        return False
    return True
