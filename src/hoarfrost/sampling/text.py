"""From token ids to text, one token at a time: the pieces concatenate to what the tokenizer makes of all ids at once.

A character may be spread over several tokens, so text is given out only once it is whole; special tokens give none. No call decodes
more than a few tokens. There are two ways, after the tokenizer's own decoder:

- byte-level BPE (GPT-2's scheme: Qwen, Llama 3, SmolLM2): a token is a run of bytes, and an incremental UTF-8 decoder takes
  them one token at a time. Exact for every sequence of ids, malformed bytes included.
- anything else (SentencePiece's scheme with or without byte fallback: Llama 2, Mistral; tiktoken): each token is decoded behind a fixed
  ordinary token, so that the decoder does not take it for the start of the text and strip its space. Tokens that end in the middle
  of a character wait for those that complete it.

Limits of the second way. Where malformed bytes follow well-formed ones in one unbroken run of byte-fallback tokens, `decode` on all
ids replaces the whole run; here the well-formed characters, shown already, stay. A run that stays malformed for `MAX_WAITING` tokens
is given out as it is. A decoder that joins a token to its predecessor according to what that is (none of today's
causal models has one) would need another way. The clean-up of spaces that WordPiece tokenizers may ask for is not applied.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tokenizers.decoders import ByteLevel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_WAITING = 16
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """The text of one output, as its tokens come."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._skipped_ids = _special_ids(tokenizer)
        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        self._stream = _ByteLevelStream(tokenizer) if isinstance(decoder, ByteLevel) else _AnyStream(tokenizer)

    def push(self, token_id: int) -> str:
        """Take the next token: the text that is whole with it, empty while a character is incomplete."""
        return "" if token_id in self._skipped_ids else self._stream.push(token_id)

    def flush(self) -> str:
        """The rest at the end of the output: an incomplete character as the tokenizer decodes it, that is as U+FFFD."""
        return self._stream.flush()


class _ByteLevelStream:
    """Tokens are runs of bytes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._bytes_of: dict[int, bytes] = {}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        token_bytes = self._bytes_of.get(token_id)
        if token_bytes is None:
            token = self._tokenizer.convert_ids_to_tokens([token_id])[0]
            token_bytes = self._bytes_of[token_id] = _token_bytes(token)
        return self._decoder.decode(token_bytes)

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class _AnyStream:
    """Tokens are decoded behind an ordinary one, and wait for each other while the text ends in an incomplete character."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._anchor: list[int] = []
        self._anchor_length = 0
        self._waiting: list[int] = []

    def push(self, token_id: int) -> str:
        self._waiting.append(token_id)
        text = self._decode()
        if text.endswith(_REPLACEMENT) and len(self._waiting) < MAX_WAITING:
            return ""
        self._settle()
        return text

    def flush(self) -> str:
        text = self._decode()
        self._settle()
        return text

    def _decode(self) -> str:
        """The text of the waiting tokens."""
        if not self._waiting:
            return ""
        return self._text_of(self._anchor + self._waiting)[self._anchor_length :]

    def _settle(self) -> None:
        """The waiting tokens are given out; from now on tokens are not at the start of the text."""
        self._waiting.clear()
        if not self._anchor:
            self._anchor = self._tokenizer.encode("a", add_special_tokens=False)[:1]
            self._anchor_length = len(self._text_of(self._anchor))

    def _text_of(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids that `decode(..., skip_special_tokens=True)` skips."""
    flagged = [token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special]
    return frozenset((*flagged, *tokenizer.all_special_ids))


def _byte_alphabet() -> Iterator[tuple[str, int]]:
    """Byte-level BPE's name of every byte: printable Latin-1 characters stand for themselves, the rest are moved to U+0100 and on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    num_moved = 0
    for byte in range(256):
        if byte in printable:
            yield chr(byte), byte
        else:
            yield chr(0x100 + num_moved), byte
            num_moved += 1


_BYTE_OF = dict(_byte_alphabet())


def _token_bytes(token: str | None) -> bytes:
    """The bytes of a byte-level token; one with a character outside the alphabet was added as text, and an unknown id has none."""
    if token is None:
        return b""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()
