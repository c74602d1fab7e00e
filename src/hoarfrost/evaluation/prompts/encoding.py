"""How a conversation becomes the token ids that a model decodes from: in its chat template, or as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hoarfrost.engine import Engine

Message = dict[str, str]


def encode_messages(engine: Engine, messages: list[Message], chat: bool | None = None) -> list[int]:
    """Returns the prompt's token ids. `chat=None` takes the chat template where the tokenizer has one, as instruct models expect.

    As plain text the messages are joined by blank lines and their roles are dropped. Raises `InvalidInput` if `chat` is true and there is
    no template.
    """
    if chat or (chat is None and engine.tokenizer.chat_template is not None):
        return engine.chat(messages)
    ids: list[int] = engine.tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"]
    return ids
