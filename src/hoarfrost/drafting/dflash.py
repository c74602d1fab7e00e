"""SKELETON (being written): the DFlash drafter network. The signatures below are what the trainer may rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from hoarfrost.drafting.config import DFlashConfig


class DFlashModel(nn.Module):
    """The DFlash network with exactly the released tensor names (fc, hidden_norm, layers.{i}..., norm); no embedding, no head.

    Training in one pass over many anchors (leading batch dimensions are optional everywhere, written `...`):

        context = model.context_features(taps)                                  # [..., T, n_feat*H] -> h_ctx [..., T, H]
        hidden = model.block_hidden(embeddings, positions, context, context_positions, visible)   # -> [..., N, H], after the final norm
        logits = model.output_logits(hidden_of_slots_1_to_b_minus_1, head)      # multiplier and soft cap included

    with embeddings = model.scale_embeddings(target.embed(ids)).
    """

    config: DFlashConfig

    def context_features(self, taps: Tensor) -> Tensor:
        """h_ctx [..., T, H] of the concatenated target features `taps [..., T, n_feat*H]` (fc, then hidden_norm)."""
        raise NotImplementedError

    def block_hidden(
        self, block_embeddings: Tensor, block_positions: Tensor, context: Tensor, context_positions: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        """Final hidden states [..., N, H] of N block rows (any number of blocks side by side).

        block_embeddings [..., N, H]; block_positions int64 [..., N]; context [..., T, H] from `context_features`; context_positions
        int64 [..., T]; visible bool, broadcastable to [..., N, T + N]: row i may see key j, keys being context rows followed by block rows
        (None: all of them). It says what *blocks* may see (context strictly before the anchor, and the own block, whole); what a *layer*
        hides on top of that (sliding window, causality within the block) the model adds itself from the positions.
        """
        raise NotImplementedError
