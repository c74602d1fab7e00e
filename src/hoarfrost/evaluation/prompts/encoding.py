"""How words become the token ids that a model decodes from: in its chat template, or as plain text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hoarfrost.errors import InvalidInput
from hoarfrost.target.encoding import encode_text, render_chat

if TYPE_CHECKING:
    from hoarfrost.engine import Engine

Message = dict[str, str]
Encode = Callable[[str], list[int]]
PLACEHOLDER = "\N{SNOWFLAKE}"


def encode_messages(engine: Engine, messages: list[Message], chat: bool | None = None, *, thinking: bool = False) -> list[int]:
    """Returns the prompt's token ids. `chat=None` takes the chat template where the tokenizer has one, as instruct models expect;
    `thinking` is what `Engine.chat` makes of it.

    As plain text the messages are joined by blank lines and their roles are dropped. Raises `InvalidInput` if `chat` is true and there is
    no template.
    """
    if chat or (chat is None and engine.tokenizer.chat_template is not None):
        return engine.chat(messages, thinking=thinking)
    return encode_text(engine.tokenizer, "\n\n".join(message["content"] for message in messages))


def encoder(tokenizer: Any) -> Encode:
    """Text to token ids, nothing added."""
    return lambda text: encode_text(tokenizer, text, add_special_tokens=False, verbose=False)


@dataclass(frozen=True)
class Frame:
    """What stands before and after the user's words: a chat template taken apart, or next to nothing for plain text."""

    opening_ids: tuple[int, ...]
    closing: str


def make_frame(tokenizer: Any, chat: bool | None = None) -> Frame:
    """`chat=None` takes the chat template where there is one. Raises `InvalidInput` if `chat` is true and there is none."""
    if chat and tokenizer.chat_template is None:
        raise InvalidInput("The model has no chat template; leave --chat out.")
    if tokenizer.chat_template is None or chat is False:
        return Frame(tuple(tokenizer("")["input_ids"]), "\n")
    messages = [{"role": "user", "content": PLACEHOLDER}]
    text = render_chat(tokenizer, messages, "the model")
    opening, _, closing = text.partition(PLACEHOLDER)
    return Frame(tuple(encoder(tokenizer)(opening)), closing)
