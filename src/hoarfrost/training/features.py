"""What the drafter reads of the target: the outputs of the tapped decoder layers. `feature_store` keeps them.

The decoder stack is run only as deep as the deepest tap. On a CPU one sequence at a time: of 350 rows a layer's products run at the speed
of 2,000, its features depend on nothing else, and a resumed run repeats them exactly. An accelerator reads a batch at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hoarfrost.errors import InvalidInput
from hoarfrost.target import Target
from hoarfrost.target.description import describe
from hoarfrost.target.loading import load_weights, pick_device, pick_dtype, use_fused_norms


def load_frozen_target(name: str, *, dtype: str, device: str) -> Target:
    """The target with its stock attention and plain linear layers: gradients pass its head, and large batches suit it best.

    Raises `InvalidInput` for what cannot be found, is not supported, or has a dtype that cannot be trained with.
    """
    place = pick_device(device)
    chosen = pick_dtype(dtype, place)
    if chosen == torch.float16:
        raise InvalidInput("A drafter cannot be trained with a float16 target, whose gradients vanish; use dtype 'bfloat16' or 'float32'.")
    described = describe(name)
    model: Any
    if described.gguf is not None:
        model = described.gguf.load(chosen, place, keep_blocks=False, attention="sdpa")
    else:
        model = load_weights(described.source, described.config, chosen, "sdpa")
        model = model.eval().requires_grad_(False).to(place)
    use_fused_norms(model)
    return Target(model, described.load_tokenizer(), name)


@torch.no_grad()
def tapped_features(target: Target, sequences: Sequence[Sequence[int]], taps: Sequence[int]) -> list[Tensor]:
    """Outputs of the decoder layers `taps` side by side, `[T, len(taps) * H]` for each sequence of T tokens; layer l's output is
    transformers' `hidden_states[l + 1]`.

    Several sequences are padded at their ends, which no causal layer looks at. cuDNN's attention is left out: it plans anew for every
    length, which took longer than all else (H100, 1.9 ms a layer).
    """
    decoder: Any = target.model.base_model
    token_ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    for row, sequence in zip(token_ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    positions = torch.arange(token_ids.shape[1], device=target.device)[None]
    hidden = decoder.embed_tokens(torch.from_numpy(token_ids).to(target.device, non_blocking=True))
    rotary = decoder.rotary_emb(hidden, position_ids=positions)
    tapped: dict[int, Tensor] = {}
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        for index, layer in enumerate(decoder.layers[: max(taps) + 1]):
            hidden = layer(hidden, attention_mask=None, position_embeddings=rotary, position_ids=positions)
            if index in taps:
                tapped[index] = hidden
    features = torch.cat([tapped[index] for index in taps], dim=-1)
    return [features[row, : len(sequence)] for row, sequence in enumerate(sequences)]
