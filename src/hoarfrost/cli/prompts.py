"""Prompts as a command gets them: an argument, standard input, a file with one or with many."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from hoarfrost.engine import Engine
    from hoarfrost.evaluation.prompts.encoding import Message


def read_prompt(prompt: str | None, prompt_file: Path | None) -> str:
    """The prompt from the command line or (`-`) standard input, behind that of the file, if any. Raises `InvalidInput` if there is none."""
    if prompt is None and prompt_file is None:
        raise InvalidInput("Give a prompt: as text, as - for standard input, or with --prompt-file FILE.")
    parts = []
    if prompt_file is not None:
        parts.append(read_text_file(prompt_file))
    if prompt is not None:
        parts.append(read_standard_input() if prompt == "-" else prompt)
    return "\n\n".join(parts)


def read_text_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 (byte {error.start}); convert it first"
        raise InvalidInput(f"The prompt file {path} cannot be read: {reason}.") from None


def read_standard_input() -> str:
    """All of standard input, which must be UTF-8 whatever the locale says. Raises `InvalidInput` if it is closed or anything else."""
    if sys.stdin is None:
        raise InvalidInput("Standard input is closed; give the prompt as text, or with --prompt-file FILE.")
    try:
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # type: ignore[union-attr]
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Standard input is not UTF-8 (byte {error.start}); convert the prompt to UTF-8 first.") from None
    except OSError as error:
        raise InvalidInput(f"Standard input cannot be read ({error.strerror}); give the prompt as text.") from None


def encode_prompt(
    engine: Engine, prompt: str | list[Message], system: str | None, chat: bool | None, *, thinking: bool = False
) -> list[int]:
    """The token ids of a text or a conversation, behind a system message if there is one."""
    from hoarfrost.evaluation.prompts.encoding import encode_messages

    needs_template = {"--system": system is not None, "--thinking": thinking}
    for option, is_given in needs_template.items():
        if is_given and chat is False:
            raise InvalidInput(f"{option} needs the chat template; leave out --no-chat, or write what it would say into the prompt.")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    return encode_messages(engine, messages, True if any(needs_template.values()) else chat, thinking=thinking)


def read_prompts(path: Path) -> list[str | list[Message]]:
    """Many prompts: one on each line, or (`.jsonl`) in objects with `prompt`, a text, or `messages`, a conversation.

    Empty lines are left out. Raises `InvalidInput` for what is no such file, and for one without a prompt.
    """
    lines = enumerate(read_text_file(path).split("\n"), 1)
    parse = parse_line if path.suffix.lower() in (".jsonl", ".ndjson") else lambda line, _: line.rstrip("\r")
    prompts = [parse(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not prompts:
        raise InvalidInput(f"{path} holds no prompt; put one on each line.")
    return prompts


def parse_line(line: str, where: str) -> str | list[Message]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{where} is no JSON ({error}).") from None
    found = (record.get("prompt") or record.get("messages")) if isinstance(record, dict) else None
    if isinstance(found, str) or (isinstance(found, list) and all(is_message(one) for one in found)):
        return found
    raise InvalidInput(f'{where} has neither "prompt", a text, nor "messages", a list of objects with a role and a content.')


def is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def unescape(text: str) -> str:
    """`\\n`, `\\t`, `\\r` and `\\\\` as the characters they stand for: a shell passes them on as they are written."""
    return re.sub(r"\\([ntr\\])", lambda found: ESCAPES[found[1]], text)
