"""Drafters on disk for the random models of `conftest`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import VOCAB_SIZE

from hoarfrost.drafting import DFlashConfig, DFlashModel, save_drafter


def save_random_drafter(folder: Path, **changes: Any) -> str:
    """Writes a DFlash drafter, `changes` being to its configuration, and returns its folder."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": VOCAB_SIZE,
        "mask_token_id": 3,
        "target_layer_ids": (1, 2),
        "num_target_layers": 4,
        "block_size": 6,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    save_drafter(DFlashModel(DFlashConfig(**{**settings, **changes})), folder)
    return str(folder)
