"""Masked next-token prediction: gets a decoder used to attention both ways, before it learns to embed.

Some tokens are hidden, and each is predicted from the state before it, as the model has predicted tokens all its life:

    tokens     the   cat   sleeps   $            masked   the   _   sleeps   $
    loss       -log softmax(state at "the", times the output matrix)[cat]

Published settings for Sheared-LLaMA-1.3B: a fifth of the tokens, of which 80 % become the token `_`, 10 % another one
and 10 % stay; LoRA r 16; 1,000 steps of 32 texts. Cost: one forward and backward, and the output matrix for hidden
tokens.

Reference: BehnamGhader et al. 2024, LLM2Vec (arXiv 2404.05961), section 2.1; its train_configs/mntp/Sheared-Llama.json.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from embedsmith.data.rows import Triplets
from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.model.loading.backbone import Backbone
from embedsmith.model.loading.head import Head, load_head
from embedsmith.settings.config import RunConfig
from embedsmith.support.errors import ConfigError
from embedsmith.training.budget import KeptGradients, TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.gradcache import PIECE_TOKENS

# Rows of logits at one time: over a vocabulary of 50,000, 50 MB in float32.
_LOGIT_ROWS = 256
_BECOME_MASK, _BECOME_ANOTHER = 0.8, 0.1


@dataclass(frozen=True)
class MaskedPrediction:
    """What a run of this kind minimises.

    Attributes:
        head: the model's output matrix.
        mask_id: stands for a hidden token.
        mask_rate: share of tokens hidden.
        fixed_ids: start and end tokens, which are never hidden.
        projection: nothing is projected.
    """

    head: Head
    mask_id: int
    mask_rate: float
    fixed_ids: tuple[int, ...]
    projection: None = None

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Nothing is learned besides the model's weights."""
        return []

    def text_groups(self, batch: Triplets) -> list[list[str]]:
        """Every text of the rows counts, whatever its role."""
        return batch.groups()


def make_masked_prediction(config: RunConfig, *, backbone: Backbone) -> MaskedPrediction:
    """Read the output matrix and the mask token of a model.

    Raises:
        ConfigError: the tokenizer knows no such token as one, or a setting would do nothing.
        ModelError: the model's output matrix cannot be read.
    """
    settings = config.training
    if config.model.bidirectional_layers == 0:
        raise ConfigError(
            "training.loss is mntp, which adapts a model to attention both ways, but model.bidirectional_layers is 0.\n"
            "Set it to all, in this stage and the next."
        )
    idle = {
        "teacher.teacher": config.teacher.teacher,
        "training.matryoshka_dims": settings.matryoshka_dims,
        "training.hard_negative_weight": settings.hard_negative_weight != 1,
        **{f"contrast.{name}": True for name in config.contrast.changed()},
    }
    if named := [name for name, is_set in idle.items() if is_set]:
        raise ConfigError(
            f"training.loss is mntp, with which {', '.join(named)} does nothing.\nLeave it to the next stage."
        )
    tokenizer = backbone.tokenizer
    ids = tokenizer(settings.mask_token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ConfigError(
            f"training.mask_token is {settings.mask_token!r}, which the tokenizer does not know as one token.\n"
            "Name one that it does."
        )
    fixed = tuple(token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None)
    return MaskedPrediction(load_head(backbone), ids[0], settings.mask_rate, fixed)


def predict_masked(
    packed: PackedTexts, *, embedder: Embedder, objective: MaskedPrediction, budget: TokenBudget, processes: Processes
) -> tuple[torch.Tensor, int]:
    """Add the gradients of this process's texts to the adapter; returns the mean loss of a hidden token, and tokens.

    Both are over all processes. What is hidden comes from torch's global CPU generator.
    """
    assert not packed.segments.prefixes, "a text's tokens lie side by side"
    masked_ids, hidden = mask_tokens(packed, objective=objective)
    num_hidden = processes.sum(int(hidden.sum()))
    random_state = torch.get_rng_state()
    gradients = KeptGradients(embedder)

    def add_gradients(max_tokens: int) -> torch.Tensor:
        torch.set_rng_state(random_state)
        gradients.put_back()
        total = torch.zeros((), device=embedder.device)
        for piece in packed.pieces(max_tokens=min(PIECE_TOKENS[embedder.device.type], max_tokens)):
            rows = slice(piece.first_row - packed.first_row, piece.first_row - packed.first_row + piece.num_tokens)
            states = embedder.hidden_states(piece.with_ids(masked_ids[rows]))
            loss = mntp_loss(states, piece.input_ids[0], hidden[rows], head=objective.head) / max(num_hidden, 1)
            if hidden[rows].any():
                loss.backward()
            total += loss.detach()
        return total

    with embedder.dropout(is_on=True):
        total = budget.run(add_gradients, num_tokens=packed.num_tokens)
    return processes.sum_tensor(total), processes.sum(packed.num_tokens)


def mask_tokens(packed: PackedTexts, *, objective: MaskedPrediction) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide some tokens of a packed row: (N,) ids with them hidden, and (N,) bool, which they are.

    A text's first token has no state before it, start and end tokens say nothing: they stay.
    """
    ids = packed.input_ids[0].cpu()
    may_hide = packed.position_ids[0].cpu() > 0
    for fixed in objective.fixed_ids:
        may_hide &= ids != fixed
    hidden = may_hide & (torch.rand(len(ids)) < objective.mask_rate)
    fate = torch.rand(len(ids))
    others = torch.randint(len(objective.head.weight), (len(ids),))
    masked = torch.where(hidden & (fate < _BECOME_MASK), objective.mask_id, ids)
    is_other = hidden & (fate >= _BECOME_MASK) & (fate < _BECOME_MASK + _BECOME_ANOTHER)
    masked = torch.where(is_other, others, masked)
    device = packed.input_ids.device
    return masked.to(device), hidden.to(device)


def mntp_loss(states: torch.Tensor, ids: torch.Tensor, hidden: torch.Tensor, *, head: Head) -> torch.Tensor:
    """Sum over hidden tokens of -log p(token | the state before it).

    Args:
        states: after the final norm, (N, H), of the row with tokens hidden.
        ids: the row before that, (N,) int64.
        hidden: (N,) bool, never true at a text's first token.
        head: turns states into logits.

    Returns:
        Scalar in nats. Logits are computed anew for backward, some rows at a time.
    """
    places = hidden.nonzero()[:, 0]
    before, targets = states[places - 1], ids[places]
    total = states.sum() * 0  # keeps the graph where nothing is hidden
    for rows, wanted in zip(before.split(_LOGIT_ROWS), targets.split(_LOGIT_ROWS), strict=True):
        total = total + checkpoint(_sum_of_losses(head, wanted), rows, use_reentrant=False)
    return total


def _sum_of_losses(head: Head, targets: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda rows: cross_entropy(head.logits(rows), targets, reduction="sum")
