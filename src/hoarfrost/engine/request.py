"""What a user asks for: a frozen value, resolved and checked before anything is decoded for it."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace

from hoarfrost.errors import InvalidInput
from hoarfrost.sampling import SamplingParams
from hoarfrost.target import Target
from hoarfrost.target.encoding import encode_text, token_ids_of
from hoarfrost.tree import TreeConfig

Prompt = str | Many[int]


@dataclass(frozen=True)
class Request:
    """One prompt and how it is to be answered.

    Attributes:
        prompt: a text, or token ids.
        tree: what guesses are made of, which changes no token; None leaves it to the engine.
        priority: of the requests that wait, those of a higher priority are admitted first; among equals, who came first.
        timeout_seconds: how long after it was added the request ends with what it has (finish reason `timeout`), also where it still waits.
    """

    prompt: Prompt
    params: SamplingParams = field(default_factory=SamplingParams)
    tree: TreeConfig | None = None
    priority: int = 0
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        timeout = self.timeout_seconds
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0):
            raise InvalidInput(f"timeout_seconds is {timeout!r}; give more than 0 seconds, or None for no limit.")


def encode_prompt(prompt: Prompt, target: Target) -> list[int]:
    """The prompt as token ids. Raises `InvalidInput` for one that is empty, or holds what is no token of the model's."""
    ids = encode_text(target.tokenizer, prompt) if isinstance(prompt, str) else token_ids_of(prompt)
    if not ids:
        raise InvalidInput("The prompt is empty; give at least one token.")
    foreign = next((token_id for token_id in ids if not 0 <= token_id < target.vocab_size), None)
    if foreign is not None:
        raise InvalidInput(f"Token id {foreign} lies outside the model's vocabulary of {target.vocab_size} tokens.")
    return ids


def fit_to_context(params: SamplingParams, num_prompt_tokens: int, max_positions: int) -> SamplingParams:
    """The params, with no more tokens to come than the context has room for. Raises `InvalidInput` where that is too little."""
    room = max_positions - num_prompt_tokens
    if room <= 0:
        raise InvalidInput(
            f"The prompt has {num_prompt_tokens} tokens and the model's context is {max_positions}, the answer included; shorten it."
        )
    if params.min_new_tokens > room:
        raise InvalidInput(
            f"The prompt has {num_prompt_tokens} tokens and the model's context is {max_positions}, so {room} tokens can follow, and "
            f"min_new_tokens asks for {params.min_new_tokens}; shorten the prompt or lower min_new_tokens."
        )
    return params if params.max_new_tokens <= room else replace(params, max_new_tokens=room)
