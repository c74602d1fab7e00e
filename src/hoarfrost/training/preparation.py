"""From settings to what a run trains on: the drafter's shape, the token sequences, and their split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hoarfrost.drafting.config import DFlashConfig, default_tap_ids
from hoarfrost.engine import Engine
from hoarfrost.errors import InvalidInput
from hoarfrost.target import Target
from hoarfrost.training.data import TrainingPrompt, TrainingSequence, read_prompts
from hoarfrost.training.response_file import generate_responses
from hoarfrost.training.responses import Request, Responder
from hoarfrost.training.settings import DrafterTrainingConfig, TrainingConfig

MASK_TOKENS = ("<|mask|>", "<|MASK|>", "<mask>", "[MASK]")


@dataclass(frozen=True)
class TrainingData:
    """Sequences to train on and to validate with; `num_dropped` counts prompts that were too long and responses too short to learn from."""

    train: tuple[TrainingSequence, ...]
    held_out: tuple[TrainingSequence, ...]
    num_dropped: int

    @property
    def num_response_tokens(self) -> int:
        return sum(len(one.token_ids) - one.num_prompt_tokens for one in self.train + self.held_out)


def drafter_config(settings: DrafterTrainingConfig, target: Target) -> DFlashConfig:
    """A drafter as wide as the target. Raises `InvalidInput` for taps or a mask token that the target does not have."""
    source = target.model.config
    return DFlashConfig(
        hidden_size=source.hidden_size,
        intermediate_size=source.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=source.num_attention_heads,
        num_key_value_heads=source.num_key_value_heads,
        head_dim=target.head_dim,
        vocab_size=target.vocab_size,
        mask_token_id=mask_token_id(settings, target),
        draft_vocab_size=settings.draft_vocab_size if 0 < settings.draft_vocab_size < target.vocab_size - 1 else None,
        target_layer_ids=tap_ids(settings, target.num_layers),
        num_target_layers=target.num_layers,
        block_size=settings.block_size,
        max_position_embeddings=source.max_position_embeddings,
        rms_norm_eps=source.rms_norm_eps,
        rope_parameters=dict(source.rope_parameters),
    )


def tap_ids(settings: DrafterTrainingConfig, num_layers: int) -> tuple[int, ...]:
    given = settings.target_layer_ids
    ids = tuple(sorted(set(default_tap_ids(num_layers, settings.num_taps) if given is None else given)))
    if not ids or ids[0] < 0 or ids[-1] > num_layers - 2 or (given is not None and len(ids) < len(given)):
        raise InvalidInput(
            f"target_layer_ids {list(given or ids)} do not fit a target of {num_layers} layers; give different ids "
            f"from 0 to {num_layers - 2} (the last layer's output is none of them)."
        )
    return ids


def mask_token_id(settings: DrafterTrainingConfig, target: Target) -> int:
    """The id that stands for tokens to be guessed: as given, else the tokenizer's mask token, else the first row it does not use."""
    found = settings.mask_token_id
    if found is None:
        vocabulary = target.tokenizer.get_vocab()
        found = next((vocabulary[name] for name in MASK_TOKENS if name in vocabulary), len(target.tokenizer))
        if found >= target.vocab_size:
            raise InvalidInput(
                f"The tokenizer of {target.name} has no mask token and the embedding no unused row; "
                "give mask_token_id, a token that no text uses."
            )
    if not 0 <= found < target.vocab_size:
        raise InvalidInput(f"mask_token_id is {found}; the target's tokens are numbered 0 to {target.vocab_size - 1}.")
    if found in target.eos_token_ids or found == getattr(target.tokenizer, "pad_token_id", None):
        raise InvalidInput(f"mask_token_id {found} is an end or padding token of {target.name}; take a token that no text uses.")
    return found


def choose_prompts(settings: TrainingConfig, target: Target) -> tuple[list[TrainingPrompt], int]:
    """The prompts to train on, at most `max_prompts` of them, and the number of those left out because they are too long."""
    prompts = read_prompts(settings.data, target.tokenizer, target.vocab_size)
    longest = min(settings.max_prompt_tokens, settings.sequence_length - 2)
    fitting = [prompt for prompt in prompts if len(prompt.token_ids) <= longest]
    if len(fitting) < 2:
        raise InvalidInput(
            f"Only {len(fitting)} of {len(prompts)} prompts have at most {longest} tokens, and 2 are needed, one of them for validation; "
            "raise max_prompt_tokens (and sequence_length), or give more data."
        )
    num_dropped = len(prompts) - len(fitting)
    if settings.max_prompts is not None and len(fitting) > settings.max_prompts:
        chosen = np.random.default_rng(settings.seed).choice(len(fitting), settings.max_prompts, replace=False)
        fitting = [fitting[index] for index in np.sort(chosen)]
    return fitting, num_dropped


def prepare_data(settings: TrainingConfig, target: Target, prompts: Sequence[TrainingPrompt], num_dropped: int = 0) -> TrainingData:
    """Has the prompts answered and holds some sequences out; `num_dropped` records were left out before."""
    sequences = answered(settings, target, prompts)
    kept = [one for one in sequences if len(one.token_ids) - one.num_prompt_tokens >= 2]
    if len(kept) < 2:
        raise InvalidInput(
            f"Only {len(kept)} of {len(sequences)} responses have 2 tokens or more, and 2 such responses are needed; give other prompts."
        )
    num_held_out = min(max(1, round(settings.held_out_share * len(kept))), len(kept) - 1)
    order = np.random.default_rng(settings.seed).permutation(len(kept))
    return TrainingData(
        train=tuple(kept[index] for index in order[num_held_out:]),
        held_out=tuple(kept[index] for index in order[:num_held_out]),
        num_dropped=num_dropped + len(sequences) - len(kept),
    )


def answered(settings: TrainingConfig, target: Target, prompts: Sequence[TrainingPrompt]) -> list[TrainingSequence]:
    """Prompts with responses: those in tokens as given, texts as given unless they are to be regenerated, the rest from the target."""
    requests, given = [], {}
    for index, prompt in enumerate(prompts):
        if isinstance(prompt.response, tuple):
            given[index] = prompt.response
        elif prompt.response is not None and not settings.regenerate:
            given[index] = encode_response(prompt.response, target)
        else:
            requests.append(Request(index, prompt.token_ids, settings.temperatures[index % len(settings.temperatures)]))
    responses = generate_responses(
        partial(new_responder, settings),
        requests,
        settings.out / "responses.jsonl",
        batch_size=settings.generation_batch,
        seed=settings.seed,
    )
    given.update({request.index: response.token_ids for request, response in zip(requests, responses, strict=True)})
    return [
        TrainingSequence((prompt.token_ids + given[index])[: settings.sequence_length], len(prompt.token_ids))
        for index, prompt in enumerate(prompts)
    ]


def new_responder(settings: TrainingConfig) -> Responder:
    """The engine on the target as it is served: in the same type, but with its fastest layers."""
    size = settings.generation_batch
    engine = Engine.load(settings.target, drafter=None, dtype=settings.dtype, device=settings.device, max_batch_size=size)
    return Responder(engine, settings.max_response_tokens, settings.seed)


def encode_response(text: str, target: Target) -> tuple[int, ...]:
    """A response in tokens, with the token that ends a turn."""
    tokenizer: Any = target.tokenizer
    ending = target.eos_token_ids[:1] if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return (*tokenizer.encode(text, add_special_tokens=False), *ending)
