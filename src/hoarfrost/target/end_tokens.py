"""Which tokens end a text.

What the model's generation config says counts; where it says nothing, its config.json; where that says nothing either, the tokenizer's
end token. One thing is added: where only special tokens are named, and the tokenizer's end token, with which the chat template closes
every turn, is not among them, it ends a text too. So it is with models whose generation config is still that of the base model they were
tuned from; they would answer, and then go on to write both sides of the conversation. vLLM and mlx-vlm do the same; stock transformers
does not. `SamplingParams(ignore_eos=True)` with `stop_token_ids` has it any other way.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from hoarfrost.errors import InvalidInput


def end_token_ids(model: PreTrainedModel, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a text, none of them twice. Raises `InvalidInput` for ids that cannot be tokens of the model."""
    vocab_size = int(model.config.vocab_size)
    named = first_named(model, vocab_size)
    own = getattr(tokenizer, "eos_token_id", None)
    if not isinstance(own, int) or not 0 <= own < vocab_size:
        return named
    return (*named, own) if not named or (own not in named and closes_turns_beside(named, tokenizer)) else named


def first_named(model: PreTrainedModel, vocab_size: int) -> tuple[int, ...]:
    for file, config in (("generation_config.json", model.generation_config), ("config.json", model.config)):
        value = getattr(config, "eos_token_id", None)
        if value is not None:
            return checked_ids(value, file, vocab_size)
    return ()


def checked_ids(value: Any, file: str, vocab_size: int) -> tuple[int, ...]:
    """One id or a list of them as a tuple."""
    ids = value if isinstance(value, (list, tuple)) else [value]
    if not ids or not all(type(token_id) is int and 0 <= token_id < vocab_size for token_id in ids):
        raise InvalidInput(
            f"The eos_token_id in the model's {file} is {str(value)[:80]}; it must be an id below {vocab_size}, or a list of such ids. "
            "Mend it, or take the entry out to leave it to the tokenizer."
        )
    return tuple(dict.fromkeys(ids))


def closes_turns_beside(named: tuple[int, ...], tokenizer: Any) -> bool:
    """Whether the chat template writes the tokenizer's end token and `named` are, like that one, special tokens of the tokenizer."""
    template = getattr(tokenizer, "chat_template", None)
    templates = list(template.values()) if isinstance(template, dict) else [template]
    writes_it = any(isinstance(text, str) and (tokenizer.eos_token in text or "eos_token" in text) for text in templates)
    special = {token_id for token_id, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    return writes_it and set(named) <= special
