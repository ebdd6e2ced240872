"""A packed row through all decoder layers of a frozen model with LoRA, with a backward written by hand.

    input_ids (1, N) -> residual stream x (N, H) float32
      per layer   x -> norm -> qkv -> attention -> out -> + x -> norm -> up -> activation -> down -> + x
    -> final norm -> (N, H), or (S, H) for the end of each segment only

The base is frozen, so backward forms no weight gradients, and stops at the lowest layer with an adapter. Saved per
token and layer: both norms' values, q, k, v and the MLP's inner rows, in the backbone's precision; everything else is
computed again inside the kernels. With `ends_only` the last layer computes queries, output and MLP for S rows only.
Cost: 2 P N operations forward, 2 P N backward, P the parameters outside the embedding.

Relations: equal to the plain path (transformers' own layers with `packed_attention`); see tests/model/layers/fused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedModel

from embedsmith.model.layers.attention import takes_varlen
from embedsmith.model.layers.fused.choice import choose_kernels
from embedsmith.model.layers.fused.forward import Forward, groups_of, lowest_adapted
from embedsmith.model.layers.fused.kernels import Kernels
from embedsmith.model.layers.fused.layout import longest_static, read_layout, rotary_tables
from embedsmith.model.layers.fused.recording import CudaRecorder, Pass, Recorder, Recordings
from embedsmith.model.layers.segments import PackedTexts


class FusedDecoder:
    """The decoder layers of `model`, fused; `why_not_fused(model)` must be None.

    Args:
        model: frozen; its linear layers share memory with the fused ones from here on.
        kernels: None: the fastest that work on the model's device.
        num_bidirectional: in so many of the last layers a token sees later ones too.
        recorder: what records runs, to repeat them; None: CUDA graphs on a GPU, nothing elsewhere.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        kernels: Kernels | None = None,
        num_bidirectional: int = 0,
        recorder: Recorder | None = None,
    ) -> None:
        self.model = model
        config = model.config
        widths = (config.hidden_size, config.intermediate_size, model.layers[0].self_attn.head_dim)
        self.kernels = kernels or choose_kernels(model.device, widths=widths)
        self.layout = read_layout(model, kernels=self.kernels, num_bidirectional=num_bidirectional)
        self._rotary: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._grow_tables(256)
        if recorder is None and model.device.type == "cuda" and self._can_be_recorded():
            recorder = CudaRecorder(model.device)
        self.recordings = Recordings(recorder, device=model.device) if recorder else None

    def __call__(self, packed: PackedTexts, *, ends_only: bool = False, num_exact: int = 0) -> torch.Tensor:
        """Hidden states after the final norm, float32: (N, H), or with `ends_only` (S, H).

        Args:
            packed: the texts.
            ends_only: only each segment's last token is wanted.
            num_exact: this many of the first layers compute in float32 whatever the model's precision; without graph.
        """
        longest = packed.segments.longest
        assert longest <= longest_static(self.model.config), "a longer text would turn the others differently"
        if longest > self._num_positions:
            self._grow_tables(1 << longest.bit_length())  # as long as a `RowShape` of such texts, too
        parameters = self._trained_parameters() if torch.is_grad_enabled() else []
        assert not parameters or num_exact == 0, "layers of another precision have no backward"

        def make(row: PackedTexts) -> Forward:
            return Forward(self.layout, row, kernels=self.kernels, rotary=self._rotary, ends_only=ends_only)

        recorded = None
        if self.recordings and num_exact == 0:
            recorded = self.recordings.find(
                packed,
                state=self._state(),
                make=make,
                parameters=parameters,
                ends_only=ends_only,
                num_operations=packed.num_tokens * self._operations_per_token,
                kept_bytes=packed.num_tokens * self.saved_bytes_per_token,
            )
        if parameters:
            run = self.recordings.begin(recorded, packed) if self.recordings and recorded else make(packed)
            return _Autograd.apply(run, *parameters)
        if recorded:
            return recorded(packed)
        return make(packed).run(first_saved=len(self.layout.layers), num_exact=num_exact)

    @property
    def saved_bytes_per_token(self) -> int:
        """What a forward keeps of one token for backward, all layers together."""
        model = self.model
        width = 0
        for layer in self.layout.layers[lowest_adapted(self.layout.layers) :]:
            heads = [group.num_columns for group in (layer.qkv, layer.q, layer.kv) if group]
            num_norms = (1 if layer.is_parallel else 2) + sum(1 for norm in (layer.out_norm, layer.down_norm) if norm)
            width += sum(heads) + layer.up.num_columns + num_norms * model.config.hidden_size
            width += self.layout.num_heads * self.layout.head_dim if layer.out.is_adapted else 0
        return width * self.layout.dtype.itemsize

    @contextmanager
    def plain_layers(self) -> Iterator[None]:
        """Run a block in which transformers' own layers work; outside, their weights may lie here alone."""
        groups = [group for layer in self.layout.layers for group in groups_of(layer)]
        for group in groups:
            group.fill_layers()
        try:
            yield
        finally:
            for group in groups:
                group.empty_layers()

    def _trained_parameters(self) -> list[torch.nn.Parameter]:
        groups = (group for layer in self.layout.layers for group in groups_of(layer))
        return [parameter for group in groups for parameter in group.parameters() if parameter.requires_grad]

    def _can_be_recorded(self) -> bool:
        """Whether nothing that is computed depends on the texts' lengths but through numbers on the GPU."""
        layout = self.layout
        query = torch.empty((0, layout.num_heads, layout.head_dim), dtype=layout.dtype, device=self.model.device)
        return layout.softcap is None and takes_varlen(query)

    def _state(self) -> tuple:
        """What a run depends on besides the row: where the adapter's weights lie, their shapes, dropout."""
        return tuple(
            (weight.data_ptr(), weight.shape, weight.requires_grad, number)
            for layer in self.layout.layers
            for group in groups_of(layer)
            for weight, number in group.state()
        )

    @cached_property
    def _operations_per_token(self) -> int:
        """Of a forward's products with the frozen weights."""
        return 2 * sum(group.num_weights for layer in self.layout.layers for group in groups_of(layer))

    def _grow_tables(self, num_positions: int) -> None:
        kinds = {layer.rotary for layer in self.layout.layers}
        self._rotary = {kind: rotary_tables(self.model, num_positions, kind=kind) for kind in kinds}
        self._num_positions = num_positions


class _Autograd(torch.autograd.Function):
    """Hands the hidden states to autograd, and their gradient back to `Forward`."""

    @staticmethod
    def forward(ctx: Any, run: Forward | Pass, *parameters: torch.nn.Parameter) -> torch.Tensor:
        ctx.run, ctx.parameters = run, parameters
        return run.forward() if isinstance(run, Pass) else run.run(first_saved=run.lowest_adapted)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = ctx.run.backward(gradient)
        if isinstance(ctx.run, Pass):
            return (None, *gradients)
        return (None, *(gradients.get(parameter) for parameter in ctx.parameters))
