"""A GGUF file -> tokens and vectors by llama.cpp alone, and that file in fewer bits by its quantiser.

What a program without embedsmith, transformers and torch does with it; the parity of an export is asked of this.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from embedsmith.support.errors import MissingExtraError, RunError

_PACKAGE = "llama_cpp"
_MOST_TOKENS = 2048  # of a batch
_ERROR = 3  # the level of its log (ggml.h)


def check_llama_cpp() -> None:
    """Raise MissingExtraError unless llama-cpp-python is installed."""
    if find_spec(_PACKAGE) is None:
        raise MissingExtraError("llama-cpp-python", extra="gguf", needed_for="Export to gguf")


class LlamaModel:
    """A GGUF file as llama-cpp-python loads it with embeddings on, keys and values in float32; closes as a context
    ends.

    Args:
        path: of the file.
        longest: most tokens that a text has.

    Raises:
        RunError: llama.cpp does not load it.
    """

    def __init__(self, path: Path, *, longest: int) -> None:
        from llama_cpp import GGML_TYPE_F32, Llama

        num_tokens = max(longest, _MOST_TOKENS)
        with _held_back() as errors:
            try:
                self._llama = Llama(
                    str(path),
                    embedding=True,
                    n_ctx=num_tokens,
                    n_batch=num_tokens,
                    n_ubatch=num_tokens,  # attention both ways wants a text in one piece
                    type_k=GGML_TYPE_F32,  # in float16, its own choice, they would hide what the file is off by
                    type_v=GGML_TYPE_F32,
                    n_threads=torch.get_num_threads(),
                    n_threads_batch=torch.get_num_threads(),
                    verbose=False,
                )
            except ValueError as error:
                raise RunError(
                    f"llama.cpp does not load what was written: {' '.join(errors) or error} Nothing was kept.\n"
                    "Please report this model; its runs still load with embedsmith."
                ) from error

    def __enter__(self) -> "LlamaModel":
        return self

    def __exit__(self, *_: object) -> None:
        self._llama.close()

    def tokenize(self, text: str, *, with_control_tokens: bool = False) -> list[int]:
        """Ids of a text with what the file says is put around it.

        Args:
            text: as it stands.
            with_control_tokens: look for control tokens in it, as llama-server does.
        """
        return self._llama.tokenize(text.encode(), special=with_control_tokens)

    def encode(self, texts: Sequence[str], *, one_by_one: bool = False) -> np.ndarray:
        """Vectors (K, D) of K texts as they stand, unit length; many texts in a batch, or each alone."""
        groups = [[text] for text in texts] if one_by_one else [list(texts)]
        return np.concatenate([np.array(self._llama.embed(group, normalize=True)) for group in groups])


def quantize_q4_k_m(source: Path, target: Path) -> None:
    """Write `target`, most of whose weights have some 4 bits, by llama.cpp's own quantiser.

    Raises:
        RunError: it fails.
    """
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    params.nthread = torch.get_num_threads()
    with _held_back() as errors:
        failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if failed:
        raise RunError(f"llama.cpp's quantiser failed: {' '.join(errors)} Nothing was kept.\nExport with --dtype q8_0.")


@contextmanager
def _held_back() -> Iterator[list[str]]:
    """Keep what llama.cpp says from the terminal; its errors are gathered."""
    import llama_cpp

    errors: list[str] = []

    @llama_cpp.llama_log_callback
    def gather(level: int, text: bytes, _: object) -> None:
        if level == _ERROR:
            errors.append(text.decode(errors="replace").strip())

    before, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    llama_cpp.llama_log_set(gather, None)
    try:
        yield errors
    finally:
        llama_cpp.llama_log_set(before, data)
