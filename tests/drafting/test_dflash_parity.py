"""Parity with transformers' own DFlash class (the Muse Glimmer assistant): the same weights under two other names, the same results.

Its sliding window counts the farthest visible distance (inclusive), the released convention the first invisible one: they differ by one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drafting.drafter_models import CONFIG, VARIANTS, BorrowedParts, random_model, random_taps, without_mask_token
from torch import Tensor
from transformers import MuseGlimmerAssistantConfig, MuseGlimmerAssistantModel
from transformers.cache_utils import DFlashCache

from hoarfrost.drafting import DFlashConfig, DFlashDrafter, DFlashModel

SAME_AS_TRANSFORMERS = ("full", "one head", "sliding both ways", "window within the block", "linear", "llama3", "yarn")
RENAMED = {"fc.weight": "encoder.fc.weight", "hidden_norm.weight": "encoder.output_norm_enc.weight"}


def transformers_twin(model: DFlashModel) -> MuseGlimmerAssistantModel:
    config = model.config
    window = config.sliding_window
    theirs = MuseGlimmerAssistantModel(
        MuseGlimmerAssistantConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters=dict(config.rope_parameters),
            max_position_embeddings=config.max_position_embeddings,
            layer_types=list(config.layer_types),
            sliding_window=window - 1 if window else 2048,
            block_size=config.block_size,
            mask_token_id=config.mask_token_id,
            target_layer_ids=list(config.target_layer_ids),
            attn_implementation="sdpa",
        )
    )
    theirs.load_state_dict({RENAMED.get(name, name): tensor for name, tensor in model.state_dict().items()})
    return theirs.eval()


def block_embeddings(target: BorrowedParts, config: DFlashConfig, bonus_token_id: int) -> Tensor:
    return target.embed(torch.tensor([[bonus_token_id] + [config.mask_token_id] * (config.block_size - 1)]))


@pytest.mark.parametrize("variant", SAME_AS_TRANSFORMERS)
@torch.no_grad()
def test_logits_equal_transformers_over_rounds(variant: str) -> None:
    config = VARIANTS[variant]
    model, target = random_model(config), BorrowedParts()
    theirs, drafter = transformers_twin(model), DFlashDrafter(model, target)
    state, taps = drafter.new_state(), random_taps(0, config)
    for bonus, num_rows in enumerate((7, 1, 6, 12)):
        new = random_taps(num_rows, config)
        taps = torch.cat((taps, new))
        drafter.extend([state], [new])
        ours = drafter.propose([state], [bonus])[0].logits
        cache = DFlashCache(config=theirs.config)  # fresh: its masks want one, and everything is context again
        cache.set_previous_accepted_tokens(taps.shape[0])
        hidden = theirs(
            noise_embeds=block_embeddings(target, config, bonus), context_hidden_states=taps[None], past_key_values=cache
        ).last_hidden_state
        expected = target.head(hidden[0, 1:])
        torch.testing.assert_close(without_mask_token(ours, config), without_mask_token(expected, config), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_cached_rounds_equal_transformers_cached_rounds() -> None:
    """As transformers' candidate generator does it: context and block go in together, the block is cropped before the next round."""
    model, target = random_model(CONFIG), BorrowedParts()
    theirs, drafter = transformers_twin(model), DFlashDrafter(model, target)
    state, cache = drafter.new_state(), DFlashCache(config=transformers_twin(model).config)
    for bonus, num_rows in enumerate((9, 1, 4, 2)):
        new = random_taps(num_rows)
        positions = torch.arange(len(state), len(state) + num_rows + CONFIG.block_size)[None]
        cache.set_previous_accepted_tokens(num_rows)
        if bonus:
            cache.crop(-CONFIG.block_size)
        hidden = theirs(
            noise_embeds=block_embeddings(target, CONFIG, bonus),
            context_hidden_states=new[None],
            position_ids=positions,
            past_key_values=cache,
        ).last_hidden_state
        drafter.extend([state], [new])
        ours = drafter.propose([state], [bonus])[0].logits
        expected = target.head(hidden[0, 1:])
        torch.testing.assert_close(without_mask_token(ours, CONFIG), without_mask_token(expected, CONFIG), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_hidden_states_of_the_training_view_equal_transformers() -> None:
    config = replace(CONFIG, num_hidden_layers=2, layer_types=())
    model, target, taps = random_model(config), BorrowedParts(), random_taps(11)
    block, positions = block_embeddings(target, config, 3), torch.arange(11 + config.block_size)
    ours = model.block_hidden(block[0], positions[11:], model.context_features(taps), positions[:11])
    theirs = transformers_twin(model)
    cache = DFlashCache(config=theirs.config)
    cache.set_previous_accepted_tokens(11)
    expected = theirs(noise_embeds=block, context_hidden_states=taps[None], past_key_values=cache).last_hidden_state[0]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
