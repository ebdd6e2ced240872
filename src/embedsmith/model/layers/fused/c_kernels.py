"""The kernels of kernels.c under the `Kernels` interface; tensors go by address. `build.py` builds them."""

import ctypes
from contextlib import AbstractContextManager
from typing import Any

import torch

from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.fused.kernels import Activation, AttentionShape, Norm, NormState
from embedsmith.model.layers.fused.loops import Argument, RowLoops
from embedsmith.model.layers.fused.rows import empty_rows, empty_rows_like

_KINDS = {"silu": 0, "gelu": 1}
_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "f32"}
_PANEL = 64  # columns of a panel of weights


class _Dropout(ctypes.Structure):
    """`dropout_t`."""

    _fields_ = [
        ("seed0", ctypes.c_uint32),
        ("seed1", ctypes.c_uint32),
        ("threshold", ctypes.c_uint32),
        ("keep_scale", ctypes.c_float),
        ("rows", ctypes.c_void_p),
        ("first_row", ctypes.c_int64),
    ]


class _Attention(ctypes.Structure):
    """`attention_t`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("cu_seqlens", "members", "bounds", "prefixes")),
        *((name, ctypes.c_int64) for name in ("num_jobs", "num_shared", "longest_prefix", "longest")),
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "dim", "rotary_dim", "window")),
        ("ends_only", ctypes.c_int32),
        ("is_causal", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("softcap", ctypes.c_float),
        ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p),
    ]


class CKernels:
    """Compiled loops for CPU tensors in bfloat16 or float32."""

    name = "C"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._loops = RowLoops(library)
        self._lanes = int(library.lanes())  # floats of a vector
        # Where there are tile instructions (AMX), oneDNN's products are several times faster than plain vectors.
        has_tiles = torch.cpu.get_capabilities().get("amx_bf16", False)
        self.products = CProducts(self._loops) if library.has_products() and not has_tiles else None

    def bind_threads(self) -> bool:
        """Give each of OpenMP's waiting threads a core of its own; whether that was done: see kernels.c."""
        return bool(self._library.bind_threads(ctypes.c_int64(torch.get_num_threads())))

    def together(self) -> AbstractContextManager[None]:
        """As `Kernels.together`."""
        return self._loops.together()

    def run(self) -> None:
        """As `Kernels.run`."""
        self._loops.run()

    def add_norm(
        self, x: torch.Tensor, updates: tuple[torch.Tensor, ...], *, alpha: float, norm: Norm, dtype: torch.dtype,
        keep: bool,
    ) -> tuple[torch.Tensor, NormState | None]:  # fmt: skip
        """As `Kernels.add_norm`."""
        h = empty_rows(*x.shape, dtype=dtype)
        state = NormState(empty_rows_like(h), torch.empty(len(x))) if keep else None
        first, second = (*updates, None, None)[:2]
        normed, scale = (state.normed, state.scale) if state else (None, None)
        self._loops.call(
            "add_norm", dtype, x, first, second, alpha, norm.weight, norm.bias, norm.eps, norm.is_centered, h, normed,
            scale, x.shape[1], rows=len(x),
        )  # fmt: skip
        return h, state

    def norm_backward(
        self,
        gradients: tuple[torch.Tensor, ...],
        *,
        state: NormState,
        norm: Norm,
        dx: torch.Tensor,
        alpha: float,
    ) -> torch.Tensor:
        """As `Kernels.norm_backward`."""
        first, second = (*gradients, None)[:2]
        out = empty_rows_like(state.normed)
        self._loops.call(
            "norm_backward", out.dtype, first, second, state.normed, state.scale, norm.weight, norm.is_centered, dx,
            out, alpha, dx.shape[1], rows=len(dx),
        )  # fmt: skip
        return out

    def activate(self, x: torch.Tensor, *, activation: Activation) -> torch.Tensor:
        """As `Kernels.activate`."""
        width = x.shape[1] // (2 if activation.is_gated else 1)
        out = empty_rows(len(x), width, dtype=x.dtype)
        self._loops.call("activation", x.dtype, x, out, *_kind(activation), width, rows=len(x))
        return out

    def activate_backward(self, x: torch.Tensor, dy: torch.Tensor, *, activation: Activation) -> None:
        """As `Kernels.activate_backward`."""
        self._loops.call("activation_backward", x.dtype, x, dy, *_kind(activation), dy.shape[1], rows=len(x))

    def project(self, x: torch.Tensor, w: torch.Tensor, *, mask: DropoutMask, scale: float) -> torch.Tensor:
        """As `Kernels.project`."""
        u = torch.empty(len(x), len(w))
        is_wide = len(w) % self._lanes == 0
        self._loops.call(
            "project_wide" if is_wide else "project", x.dtype, x, x.stride(0), (w.t() if is_wide else w).contiguous(),
            _dropout(mask), scale, u, *w.shape, rows=len(x),
        )  # fmt: skip
        return u

    def expand_add(self, u: torch.Tensor, w: torch.Tensor, *, y: torch.Tensor, mask: DropoutMask, scale: float) -> None:
        """As `Kernels.expand_add`."""
        self._loops.call(
            "expand_add", y.dtype, u, w.contiguous(), _dropout(mask), scale, y, y.stride(0), *w.shape, rows=len(y)
        )

    def outer(self, u: torch.Tensor, x: torch.Tensor, *, mask: DropoutMask, scale: float) -> torch.Tensor:
        """As `Kernels.outer`."""
        out = torch.empty(u.shape[1], x.shape[1])
        self._loops.call_outer(
            "outer", x.dtype, u, x, x.stride(0), _dropout(mask), scale, out, *out.shape, rows=len(x),
            parts=-(-x.shape[1] // (2 * self._lanes)),
        )  # fmt: skip
        return out

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, shape: AttentionShape) -> torch.Tensor:
        """As `Kernels.attention`."""
        assert k.stride(0) == v.stride(0)
        self.run()
        out = empty_rows(*q.shape, dtype=q.dtype)
        _call(
            self._library,
            "attention",
            q.dtype,
            _attention(shape),
            q,
            q.stride(0),
            k,
            v,
            k.stride(0),
            out,
            out.stride(0),
        )
        return out

    def attention_backward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        dy: torch.Tensor,
        *,
        shape: AttentionShape,
        into: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> None:
        """As `Kernels.attention_backward`."""
        assert [tensor.stride() for tensor in into] == [tensor.stride() for tensor in (q, k, v)]
        self.run()
        _call(
            self._library, "attention_backward", q.dtype, _attention(shape), q, q.stride(0), k, v, k.stride(0), dy,
            dy.stride(0), *into,
        )  # fmt: skip


class CProducts:
    """`Products` of products.h, for processors that multiply bfloat16 and have no tile instructions."""

    def __init__(self, loops: RowLoops) -> None:
        self._loops = loops

    def multiply(
        self, x: torch.Tensor, panels: torch.Tensor, bias: torch.Tensor | None, *, num_out: int
    ) -> torch.Tensor:
        """As `Products.multiply`."""
        y = empty_rows(len(x), num_out, dtype=x.dtype)
        self._call("plain_product", x, panels, bias, y, x.shape[1], num_out, rows=len(x), num_columns=num_out)
        return y

    def add(
        self, x: torch.Tensor, panels: torch.Tensor, bias: torch.Tensor | None, *, into: torch.Tensor, alpha: float
    ) -> None:
        """As `Products.add`."""
        num_out = into.shape[1]
        self._call("add_product", x, panels, bias, into, alpha, x.shape[1], num_out, rows=len(x), num_columns=num_out)

    def activate(
        self,
        x: torch.Tensor,
        panels: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        num_out: int,
        activation: Activation,
        keep: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """As `Products.activate`."""
        before = empty_rows(len(x), num_out, dtype=x.dtype) if keep else None
        after = empty_rows(len(x), num_out // (2 if activation.is_gated else 1), dtype=x.dtype)
        self._call(
            "product_activation", x, panels, bias, before, after, *_kind(activation), x.shape[1], after.shape[1],
            rows=len(x), num_columns=num_out,
        )  # fmt: skip
        return before, after

    def activate_backward(
        self, dy: torch.Tensor, panels: torch.Tensor, *, x: torch.Tensor, activation: Activation
    ) -> None:
        """As `Products.activate_backward`."""
        width = x.shape[1] // (2 if activation.is_gated else 1)
        self._call(
            "product_activation_backward", dy, panels, x, *_kind(activation), dy.shape[1], width, rows=len(x),
            num_columns=width,
        )  # fmt: skip

    def _call(self, name: str, x: torch.Tensor, *others: Argument, rows: int, num_columns: int) -> None:
        tensors = [x, *(other for other in others if isinstance(other, torch.Tensor))]
        assert x.dtype is torch.bfloat16 and all(tensor.is_contiguous() for tensor in tensors)
        self._loops.call(name, None, x, *others, rows=rows, parts=-(-num_columns // _PANEL))


def _call(library: ctypes.CDLL, name: str, dtype: torch.dtype, *arguments: object) -> None:
    converted: list[Any] = []
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            assert argument.stride(-1) == 1
            converted.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, int):
            converted.append(ctypes.c_int64(argument))
        elif isinstance(argument, ctypes.Structure):
            converted.append(ctypes.byref(argument))
        else:
            converted.append(argument)
    getattr(library, f"{name}_{_SUFFIX[dtype]}")(*converted)


def _kind(activation: Activation) -> tuple[int, bool]:
    return _KINDS[activation.kind], activation.is_gated


def _dropout(mask: DropoutMask) -> _Dropout:
    rows = mask.rows.data_ptr() if mask.rows is not None else None
    dropout = _Dropout(*mask.seed, mask.threshold, mask.keep_scale, rows, mask.first_row)
    dropout.rows_owner = mask.rows  # lives as long as the address is used
    return dropout


def _attention(shape: AttentionShape) -> _Attention:
    segments, jobs = shape.segments, shape.segments.jobs
    return _Attention(
        cu_seqlens=segments.cu_seqlens.data_ptr(),
        members=jobs and jobs.members.data_ptr(),
        bounds=jobs and jobs.bounds.data_ptr(),
        prefixes=jobs and jobs.prefixes.data_ptr(),
        num_jobs=len(jobs.prefixes) if jobs else len(segments.lengths),
        num_shared=jobs.num_shared if jobs else 0,
        longest_prefix=max(segments.prefix_lengths),
        longest=segments.longest,
        heads=shape.num_heads,
        kv_heads=shape.num_kv_heads,
        dim=shape.head_dim,
        rotary_dim=2 * shape.cos.shape[1],
        window=shape.window or 0,
        ends_only=shape.ends_only,
        is_causal=shape.is_causal,
        scale=shape.scaling,
        softcap=shape.softcap or 0.0,
        cos=shape.cos.data_ptr(),
        sin=shape.sin.data_ptr(),
    )
