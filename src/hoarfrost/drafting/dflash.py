"""The DFlash drafter (arXiv 2602.06036): one pass over a block of masks gives the marginals of the next tokens; with a candidate selector
(DFlash 2, or one trained for a stock drafter), what follows each of the likeliest.

Per sequence, a `DenseStore` keeps the context's keys and values for all drafter layers. A round writes the block's own rows behind them,
attends, and forgets them again: the bonus token enters as an embedding only, and becomes context when the target has committed it.

The weights are fused when the drafter is built (see `passes`), so a drafter is a snapshot of the model it was built from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hoarfrost.cache import DenseStore
from hoarfrost.drafting.config import DFlashConfig
from hoarfrost.drafting.native_passes import NativePasses, can_run_natively
from hoarfrost.drafting.network import DFlashModel, head_logits, scale_embeddings
from hoarfrost.drafting.passes import Passes, TorchPasses
from hoarfrost.drafting.protocol import DraftState
from hoarfrost.drafting.selector import SelectorPass, new_weigher
from hoarfrost.kernels.drafter import gather_rows
from hoarfrost.kernels.linear import fastest_product
from hoarfrost.tree import Conditionals, Marginals

__all__ = ["BorrowedTarget", "DFlashConfig", "DFlashDrafter", "DFlashModel", "DFlashState"]


class BorrowedTarget(Protocol):
    """What a DFlash drafter uses of its target."""

    embed: nn.Embedding
    head: nn.Module
    weights: str  # the kinds of blocks that its matrices are in, else "float"
    name: str
    num_layers: int
    hidden_size: int
    vocab_size: int
    dtype: torch.dtype
    device: torch.device


class DFlashState:
    """The context of one sequence: keys and values of every committed row."""

    def __init__(self, store: DenseStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return self.store.length

    def copy_rows(self, start: int, stop: int) -> Tensor:
        return self.store.copy_rows(start, stop)

    def restore(self, rows: Tensor) -> None:
        self.store.restore(rows)


class DFlashDrafter:
    """Implements `Drafter`. The mask token is never guessed: its logit is set to -inf, which costs one write per row.

    `token_ids [V]`, rising: the tokens that can be guessed; None: all of the vocabulary.
    """

    def __init__(self, model: DFlashModel, target: BorrowedTarget, name: str = "dflash") -> None:
        self.config, self.name = model.config, name
        self.horizon = model.config.block_size - 1
        self.taps = model.config.target_layer_ids
        config = model.config
        self.row_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.norm.weight.dtype.itemsize
        self._target = target
        self._dtype, self._device = model.norm.weight.dtype, model.norm.weight.device
        token_ids = model.draft_token_ids()
        self.token_ids = None if token_ids is None else token_ids.cpu().numpy()
        self._mask_columns = mask_columns(self.token_ids, model.config.mask_token_id)
        with torch.no_grad():
            self._head = model.borrowed_head(target.head, fastest_product)
            runs_natively = can_run_natively(model)
            self._passes: Passes = NativePasses(model, target.weights != "float") if runs_natively else TorchPasses(model)
            self._weigher = None if model.candidate_selector is None else new_weigher(model.candidate_selector)

    def new_state(self, capacity: int = 256) -> DFlashState:
        """An empty state; `capacity` is rounded up to leave room for the block's own rows."""
        config = self.config
        return DFlashState(
            DenseStore(
                config.num_hidden_layers,
                config.num_key_value_heads,
                config.head_dim,
                dtype=self._dtype,
                device=self._device,
                capacity=capacity + config.block_size,
            )
        )

    @torch.inference_mode()
    def extend(self, states: Sequence[DraftState], features: Sequence[Tensor]) -> None:
        """Adds committed rows to the contexts: `features[i] [m_i, n_feat * H]` are the tapped outputs from `len(states[i])` on."""
        taps = torch.cat(list(features)) if len(features) > 1 else features[0]
        self._passes.extend(_stores(states), [part.shape[0] for part in features], taps)

    @torch.inference_mode()
    def propose(self, states: Sequence[DraftState], bonus_token_ids: Sequence[int]) -> Sequence[Marginals | Conditionals]:
        """Guesses at the `block_size - 1` tokens after each state's bonus token, which stands at `len(state)`: `Conditionals` if there is
        a selector, else `Marginals`. The contexts stay as they are."""
        hidden = self._passes.run(_stores(states), self._embed_blocks(bonus_token_ids))
        logits = head_logits(self.config, hidden, self._head)
        for column in self._mask_columns:
            logits.select(-1, column).fill_(float("-inf"))
        marginals = [Marginals(logits=rows, token_ids=self.token_ids) for rows in logits]
        if self._weigher is None:
            return marginals
        selector = SelectorPass(self._weigher, hidden, bonus_token_ids)
        return [Conditionals(one, selector, row) for row, one in enumerate(marginals)]

    def _embed_blocks(self, bonus_token_ids: Sequence[int]) -> Tensor:
        """Embeddings `[S * b, H]` of one block per sequence: its bonus token, then masks."""
        embed, masks = self._target.embed, [self.config.mask_token_id] * self.horizon
        token_ids = [token_id for bonus_token_id in bonus_token_ids for token_id in (bonus_token_id, *masks)]
        if type(embed) is nn.Embedding and embed.weight.is_cpu:
            return scale_embeddings(self.config, gather_rows(embed.weight, token_ids))
        return scale_embeddings(self.config, embed(torch.tensor(token_ids, device=self._device)))


def mask_columns(token_ids: NDArray[np.int64] | None, mask_token_id: int) -> list[int]:
    """Where among the columns of the logits the mask token stands: at most one place."""
    return [mask_token_id] if token_ids is None else np.flatnonzero(token_ids == mask_token_id).tolist()


def _stores(states: Sequence[DraftState]) -> list[DenseStore]:
    return [cast(DFlashState, state).store for state in states]
