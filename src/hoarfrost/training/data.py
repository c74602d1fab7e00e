"""Training files: JSON lines or JSON lists of prompts, conversations or token arrays, read into token ids of the target.

A record is one of
    {"prompt": TEXT}                        also "question", "problem", "instruction" (with "input") or "text"; "response": TEXT may follow
    {"messages": [{"role", "content"}...]}  a last message of the assistant is the response
    {"prompt_ids": [INT...]}                tokens as the target reads them, chat template included; "response_ids": [INT...] may follow
Texts and messages go through the target's chat template where its tokenizer has one. Only the last turn of a conversation is trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoarfrost.errors import InvalidInput, check_unicode
from hoarfrost.target.encoding import encode_chat, encode_text

PROMPT_FIELDS = ("prompt", "question", "problem", "instruction", "text")
EXPECTED = (
    f"expected an object with one of {', '.join(map(repr, PROMPT_FIELDS))} (text, optionally with 'response'), "
    "or 'messages' (a list of role and content), or 'prompt_ids' (token ids, optionally with 'response_ids')"
)


@dataclass(frozen=True)
class TrainingPrompt:
    """A prompt in tokens, and the response that its file gave: text, tokens, or none."""

    token_ids: tuple[int, ...]
    response: str | tuple[int, ...] | None = None


@dataclass(frozen=True)
class TrainingSequence:
    """A prompt followed by its response; the tokens from `num_prompt_tokens` on are what the drafter learns to guess."""

    token_ids: tuple[int, ...]
    num_prompt_tokens: int


def read_prompts(paths: Iterable[Path], tokenizer: Any, vocab_size: int) -> list[TrainingPrompt]:
    """Reads all records of `paths` in order. Raises `InvalidInput` that names the file, the line and what was expected there."""
    prompts: list[TrainingPrompt] = []
    for path in paths:
        before = len(prompts)
        for where, record in read_records(path):
            prompts.append(parse_record(record, where, tokenizer, vocab_size))
        if len(prompts) == before:
            raise InvalidInput(f"{path} holds no records; expected JSON lines or a JSON list.")
    return prompts


def read_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields (place for messages, parsed record) of a `.json` list or of JSON lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"The training file {path} cannot be read ({error.strerror}); give a .jsonl or .json file.") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The training file {path} is not UTF-8 text (byte {error.start}); give a .jsonl or .json file.") from None
    if text.lstrip().startswith("["):
        try:
            yield from ((f"{path}, record {number}", record) for number, record in enumerate(json.loads(text), start=1))
        except json.JSONDecodeError as error:
            raise InvalidInput(f"{path}, line {error.lineno}: no valid JSON ({error.msg}); expected one JSON list of objects.") from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInput(f"{path}, line {number}: no valid JSON ({error.msg}); expected one JSON object a line.") from None
            yield f"{path}, line {number}", record


def parse_record(record: Any, where: str, tokenizer: Any, vocab_size: int) -> TrainingPrompt:
    if not isinstance(record, dict):
        raise InvalidInput(f"{where}: found {type(record).__name__}; {EXPECTED}.")
    if "prompt_ids" in record:
        given = record.get("response_ids")
        return TrainingPrompt(
            token_list(record["prompt_ids"], where, "prompt_ids", vocab_size),
            None if given is None else token_list(given, where, "response_ids", vocab_size),
        )
    if "messages" in record:
        messages, response = split_messages(record["messages"], where)
    else:
        messages, response = [{"role": "user", "content": prompt_text(record, where)}], record.get("response")
        if response is not None and not isinstance(response, str):
            raise InvalidInput(f"{where}: 'response' is {type(response).__name__}; expected text.")
    try:
        return TrainingPrompt(encode_prompt(messages, tokenizer), None if response is None else check_unicode(response, "The response"))
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None


def prompt_text(record: dict[str, Any], where: str) -> str:
    field = next((name for name in PROMPT_FIELDS if name in record), None)
    if field is None:
        raise InvalidInput(f"{where}: no prompt among the fields {', '.join(map(repr, record))}; {EXPECTED}.")
    parts = [record[field]]
    if field == "instruction" and record.get("input"):
        parts.append(record["input"])
    if not all(isinstance(part, str) and part.strip() for part in parts):
        raise InvalidInput(f"{where}: {field!r} is empty or no text; {EXPECTED}.")
    return "\n".join(parts)


def split_messages(messages: Any, where: str) -> tuple[list[dict[str, str]], str | None]:
    """Separates the last answer of the assistant, if the conversation ends with one."""
    well_formed = isinstance(messages, list) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str) for one in messages
    )
    if not well_formed:
        raise InvalidInput(f"{where}: 'messages' must be a list of objects with the texts 'role' and 'content'.")
    kept = [{"role": one["role"], "content": one["content"]} for one in messages]
    response = kept.pop()["content"] if kept and kept[-1]["role"] == "assistant" else None
    if not kept:
        raise InvalidInput(f"{where}: 'messages' holds no message before the assistant's answer.")
    return kept, response


def encode_prompt(messages: list[dict[str, str]], tokenizer: Any) -> tuple[int, ...]:
    if tokenizer.chat_template is None:
        return tuple(encode_text(tokenizer, "\n".join(message["content"] for message in messages)))
    return tuple(encode_chat(tokenizer, messages, "the target"))


def token_list(value: Any, where: str, field: str, vocab_size: int) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(one) is int and 0 <= one < vocab_size for one in value):
        raise InvalidInput(f"{where}: {field!r} must be a list of token ids from 0 to {vocab_size - 1}, at least one.")
    return tuple(value)
