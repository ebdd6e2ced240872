"""One run of a packed row through the fused layers, and its backward; see `decoder.py` for the whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from embedsmith.model.layers.fused.branches import Stream, normed_rows
from embedsmith.model.layers.fused.kernels import AttentionShape, Kernels, NormState
from embedsmith.model.layers.fused.layout import Layer, Layout
from embedsmith.model.layers.fused.linear import Gradients, LinearGroup, Update
from embedsmith.model.layers.fused.rows import empty_rows_like
from embedsmith.model.layers.fused.torch_kernels import norm_gradient, normalize
from embedsmith.model.layers.segments import PackedTexts

Heads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass
class Saved:
    """What one layer keeps for backward."""

    norm: NormState
    rows: torch.Tensor | None  # (S,) the rows that go on after attention; None: all
    out_norm: NormState | None
    heads: Heads  # q, k, v before rotary, views of `buffers`
    buffers: tuple[torch.Tensor, ...]  # (qkv,) or (q, kv)
    head_norms: tuple[NormState, NormState] | None
    attended: torch.Tensor | None
    mlp_norm: NormState | None
    down_norm: NormState | None
    inner: torch.Tensor  # before the activation
    updates: dict[str, list[Update]] = field(default_factory=dict)


class Forward:
    """One run through the layers, and its backward.

    Args:
        layout: the layers.
        packed: the row.
        kernels: what computes between the products.
        rotary: cosines and sines, (positions, rotated width / 2) float32 each, for at least the longest text; by
            `Layer.rotary`.
        ends_only: only each segment's last token is wanted.
    """

    def __init__(
        self,
        layout: Layout,
        packed: PackedTexts,
        *,
        kernels: Kernels,
        rotary: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        ends_only: bool,
    ) -> None:
        self.kernels = kernels
        self.stream = Stream(kernels, alpha=layout.residual_multiplier)
        self.layout = layout
        self.packed = packed
        self.rotary = rotary
        self.ends = packed.segments.ends if ends_only else None
        self.saved: list[Saved | None] = []
        self.final: NormState | None = None

    @property
    def lowest_adapted(self) -> int:
        """The first layer with an adapter; nothing below it needs a gradient."""
        return lowest_adapted(self.layout.layers)

    # ---- forward --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def run(self, *, first_saved: int, num_exact: int = 0) -> torch.Tensor:
        """Compute the hidden states; layers from `first_saved` on keep what backward needs."""
        x = self.layout.embed_tokens(self.packed.input_ids[0]).float() * self.layout.embedding_multiplier
        pending: tuple[torch.Tensor, ...] = ()  # what the next norm adds to the stream
        last = len(self.layout.layers) - 1
        for index, layer in enumerate(self.layout.layers):
            rows = self.ends if index == last else None
            dtype = torch.float32 if index < num_exact else self.layout.dtype
            if any(update.dtype != dtype for update in pending):
                self.stream.add(x, pending)
                pending = ()
            x, pending, saved = self._layer(layer, x, pending, dtype=dtype, rows=rows, keep=index >= first_saved)
            self.saved.append(saved)
        self.stream.add(x, pending)
        hidden, state = normalize(x, norm=self.layout.final_norm, dtype=torch.float32)
        if first_saved <= last:
            self.final = state
        return hidden

    def _layer(
        self,
        layer: Layer,
        x: torch.Tensor,
        pending: tuple[torch.Tensor, ...],
        *,
        dtype: torch.dtype,
        rows: torch.Tensor | None,
        keep: bool,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], Saved | None]:
        updates: dict[str, list[Update]] = {}
        with self.kernels.together():
            h, norm_state = self.stream.enter(x, pending, norm=layer.norm, dtype=dtype, keep=keep)
            buffers = self._project_heads(layer, h, rows, updates)
        q, k, v = self._split_heads(buffers, rows)
        head_states = None
        if layer.head_norms:
            head_states = (
                self.stream.norm_heads(q, layer.head_norms[0]),
                self.stream.norm_heads(k, layer.head_norms[1]),
            )
        attended = self.kernels.attention(q, k, v, shape=self._shape(layer, rows))
        if rows is not None:
            x, h = x[rows], h[rows]
        with self.kernels.together():
            pending, updates["out"], out_state = self.stream.leave(
                x, attended, group=layer.out, norm=layer.out_norm, rows=rows, keep=keep
            )
            mlp_state = None
            if not layer.is_parallel:
                h, mlp_state = self.stream.enter(x, pending, norm=layer.mlp_norm, dtype=dtype, keep=keep)
                pending = ()
            inner, activated, updates["up"] = layer.up.activate(
                h, activation=self.layout.activation, rows=rows, keep=keep
            )
            mlp_pending, updates["down"], down_state = self.stream.leave(
                x, activated, group=layer.down, norm=layer.down_norm, rows=rows, keep=keep
            )
        pending = (*pending, *mlp_pending)
        if not keep:
            return x, pending, None
        assert norm_state is not None and inner is not None
        return (
            x,
            pending,
            Saved(
                norm=norm_state,
                rows=rows,
                out_norm=out_state,
                heads=(q, k, v),
                buffers=buffers,
                head_norms=head_states,
                attended=attended if updates["out"] else None,
                mlp_norm=mlp_state,
                down_norm=down_state,
                inner=inner,
                updates=updates,
            ),
        )

    def _project_heads(
        self, layer: Layer, h: torch.Tensor, rows: torch.Tensor | None, updates: dict[str, list[Update]]
    ) -> tuple[torch.Tensor, ...]:
        if layer.qkv:
            qkv, updates["qkv"] = layer.qkv(h)
            return (qkv,)
        assert layer.q and layer.kv
        self.kernels.run()
        q, updates["q"] = layer.q(h if rows is None else h[rows], rows=rows)
        kv, updates["kv"] = layer.kv(h)
        return q, kv

    def _split_heads(self, buffers: tuple[torch.Tensor, ...], rows: torch.Tensor | None) -> Heads:
        """Views of the buffers; where the last layer has all in one, its few queries are a copy."""
        layout = self.layout
        width, kv_width = layout.num_heads * layout.head_dim, layout.num_kv_heads * layout.head_dim
        if len(buffers) == 1:
            q, k, v = buffers[0].split([width, kv_width, kv_width], dim=1)
            q = q if rows is None else q[rows]
        else:
            q, (k, v) = buffers[0], buffers[1].split(kv_width, dim=1)
        return q, k, v

    def _shape(self, layer: Layer, rows: torch.Tensor | None) -> AttentionShape:
        layout = self.layout
        cos, sin = self.rotary[layer.rotary]
        return AttentionShape(
            segments=self.packed.segments,
            num_heads=layout.num_heads,
            num_kv_heads=layout.num_kv_heads,
            head_dim=layout.head_dim,
            scaling=layout.scaling,
            window=layer.window,
            ends_only=rows is not None,
            is_causal=layer.is_causal,
            softcap=layout.softcap,
            cos=cos,
            sin=sin,
        )

    # ---- backward -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def backward(self, gradient: torch.Tensor) -> Gradients:
        """Gradients of the adapters' parameters at the hidden states' gradient."""
        assert self.final is not None, "backward has run already, and what it needs is gone"
        gradients: Gradients = {}
        dx = norm_gradient(gradient, state=self.final, norm=self.layout.final_norm)
        self.final = None
        dy = (self.layout.residual_multiplier * dx).to(self.layout.dtype)
        lowest = self.lowest_adapted
        for index in range(len(self.layout.layers) - 1, lowest - 1, -1):
            saved = self.saved.pop()
            assert saved is not None
            dx, dy = self._layer_backward(
                self.layout.layers[index], saved, dx, dy, gradients=gradients, is_lowest=index == lowest
            )
        return gradients

    def _layer_backward(
        self,
        layer: Layer,
        saved: Saved,
        dx: torch.Tensor,
        dy: torch.Tensor,
        *,
        gradients: Gradients,
        is_lowest: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """dx (n, H) float32: gradient of the residual stream; dy: the same times its multiplier, as rows."""
        updates = saved.updates
        inner = saved.inner
        with self.kernels.together():
            layer.down.backward_activation(
                self.stream.leave_backward(dy, saved.down_norm, layer.down_norm),
                x=inner,
                activation=self.layout.activation,
                updates=updates["down"],
                gradients=gradients,
            )
            norm, state = (layer.norm, saved.norm) if layer.is_parallel else (layer.mlp_norm, saved.mlp_norm)
            assert state is not None
            mlp_input = normed_rows(state, norm) if updates["up"] else None
            if mlp_input is not None and layer.is_parallel and saved.rows is not None:
                mlp_input = mlp_input[saved.rows]
            dh_mlp = layer.up.backward(inner, x=mlp_input, updates=updates["up"], gradients=gradients)
            assert dh_mlp is not None
            if not layer.is_parallel:
                dy = self.stream.enter_backward((dh_mlp,), state, norm, dx=dx)
            if is_lowest and not any(updates[name] for name in updates if name not in ("up", "down")):
                return dx, dy

            dattended = layer.out.backward(
                self.stream.leave_backward(dy, saved.out_norm, layer.out_norm),
                x=saved.attended,
                updates=updates["out"],
                gradients=gradients,
            )
        assert dattended is not None
        dbuffers = self._attention_backward(layer, saved, dattended)
        with self.kernels.together():
            dh = self._heads_backward(layer, saved, dbuffers, gradients=gradients, needs_dx=not is_lowest)
            if dh is None:
                return dx, dy
            if saved.rows is not None:
                self.kernels.run()
                dx = torch.zeros(dh.shape, device=dx.device).index_copy_(0, saved.rows, dx)
                dh_mlp = torch.zeros_like(dh).index_copy_(0, saved.rows, dh_mlp) if layer.is_parallel else dh_mlp
            branches = (dh, dh_mlp) if layer.is_parallel else (dh,)
            return dx, self.stream.enter_backward(branches, saved.norm, layer.norm, dx=dx)

    def _attention_backward(self, layer: Layer, saved: Saved, dattended: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of the buffers that hold queries, keys and values before their norms."""
        dbuffers = tuple(empty_rows_like(buffer) for buffer in saved.buffers)
        dheads = self._split_heads(dbuffers, saved.rows)
        shape = self._shape(layer, saved.rows)
        self.kernels.attention_backward(*saved.heads, dattended, shape=shape, into=dheads)
        if saved.head_norms and layer.head_norms:
            for dhead, state, norm in zip(dheads, saved.head_norms, layer.head_norms, strict=False):
                self.stream.norm_heads_backward(dhead, state, norm)
        if saved.rows is not None and len(dbuffers) == 1:  # the few queries' gradients go where they came from
            dqueries = dbuffers[0][:, : dheads[0].shape[1]]
            dqueries.zero_()
            dqueries[saved.rows] = dheads[0]
        return dbuffers

    def _heads_backward(
        self,
        layer: Layer,
        saved: Saved,
        dbuffers: tuple[torch.Tensor, ...],
        *,
        gradients: Gradients,
        needs_dx: bool,
    ) -> torch.Tensor | None:
        updates = saved.updates
        is_adapted = any(updates.get(name) for name in ("qkv", "q", "kv"))
        h = normed_rows(saved.norm, layer.norm) if is_adapted else None
        if layer.qkv:
            return layer.qkv.backward(dbuffers[0], x=h, updates=updates["qkv"], gradients=gradients, needs_dx=needs_dx)
        assert layer.q and layer.kv
        rows = saved.rows
        h_rows = h[rows] if h is not None and rows is not None else h
        dh_rows = layer.q.backward(dbuffers[0], x=h_rows, updates=updates["q"], gradients=gradients, needs_dx=needs_dx)
        dh = layer.kv.backward(dbuffers[1], x=h, updates=updates["kv"], gradients=gradients, needs_dx=needs_dx)
        if dh is None or dh_rows is None:
            return None
        self.kernels.run()
        return dh.add_(dh_rows) if rows is None else dh.index_add_(0, rows, dh_rows)


def groups_of(layer: Layer) -> list[LinearGroup]:
    """The products of a layer."""
    return [group for group in (layer.qkv, layer.q, layer.kv, layer.out, layer.up, layer.down) if group]


def lowest_adapted(layers: Sequence[Layer]) -> int:
    """The first layer with an adapter, or the number of layers."""
    adapted = (i for i, layer in enumerate(layers) if any(group.is_adapted for group in groups_of(layer)))
    return next(adapted, len(layers))
