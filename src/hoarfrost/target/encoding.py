"""Texts and conversations as token ids. What a tokenizer or a chat template makes of bad input is turned into a sentence.

Chat templates come with the model and are programs (Jinja, in a sandbox): they may refuse a conversation on purpose, or be broken.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from hoarfrost.errors import InvalidInput, check_unicode
from hoarfrost.model_files import reason


def encode_text(tokenizer: Any, text: str, **options: Any) -> list[int]:
    """Token ids of a plain text. Raises `InvalidInput` if it is no Unicode."""
    ids: list[int] = tokenizer(check_unicode(text, "The prompt"), **options)["input_ids"]
    return ids


def encode_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], name: str, *, thinking: bool = False) -> list[int]:
    """Token ids of a conversation in the chat template of the model `name`, up to where the assistant's next turn begins.

    Raises `InvalidInput` if there is no template, if the messages are none, or if the template does not take them.
    """
    ids: list[int] = _apply_template(tokenizer, messages, name, thinking, return_dict=False)
    return ids


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], name: str, *, thinking: bool = False) -> str:
    """The text that `encode_chat` encodes, special tokens written out."""
    text: str = _apply_template(tokenizer, messages, name, thinking, tokenize=False)
    return text


def _apply_template(tokenizer: Any, messages: Sequence[Mapping[str, Any]], name: str, thinking: bool, **options: Any) -> Any:
    if tokenizer.chat_template is None:
        raise InvalidInput(f"{name} has no chat template; give the prompt as plain text instead.")
    for message in check_messages(messages):
        for key, part in message.items():
            if isinstance(part, str):
                check_unicode(part, f"The {key} of a message")
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=thinking, **options)
    except Exception as error:  # a template can raise anything
        raise InvalidInput(
            f"The chat template of {name} does not take this conversation ({type(error).__name__}: {reason(error)}); change it, or "
            "give the prompt as plain text (--no-chat)."
        ) from None


def token_ids_of(prompt: Any) -> list[int]:
    """A prompt that is no text, as a list of ids. Raises `InvalidInput` if it holds anything but whole numbers."""
    if isinstance(prompt, Mapping):
        raise InvalidInput(f"A prompt is a text or a list of token ids, not {str(prompt)[:80]}; messages go through Engine.chat first.")
    try:
        return [operator.index(token_id) for token_id in prompt]
    except TypeError:
        raise InvalidInput(f"A prompt is a text or a list of token ids, which are whole numbers, not {str(prompt)[:80]}.") from None


def check_messages(messages: Any) -> Sequence[Mapping[str, Any]]:
    """Raises `InvalidInput` unless `messages` is a list of objects with a role."""
    well_formed = isinstance(messages, Sequence) and not isinstance(messages, str) and len(messages) > 0
    if not well_formed or not all(isinstance(message, Mapping) and isinstance(message.get("role"), str) for message in messages):
        raise InvalidInput(f"A conversation is a list of messages like {{'role': 'user', 'content': 'Hi'}}, not {str(messages)[:80]!r}.")
    return messages  # type: ignore[no-any-return]
