"""Where an output ends, and what of it may be shown before that is known.

Tokens are taken one at a time, whatever the size of the pieces they arrive in, so the outcome does not depend on how many tokens a
round of decoding accepted. Text that may turn out to begin a stop string is held back until it is known not to.

An output ends with the first of these:
    "stop"        an end-of-sequence or stop id, which stays in the token ids but not in the text, or a stop string, which is cut
                  from the text while the token ids keep the token that completed it;
    "repetition"  the output repeats itself (`RepetitionDetector`);
    "length"      `max_new_tokens`.
Of several stop strings the one that is complete first counts, the longest if several are complete at the same character. Among the
first `min_new_tokens` tokens only "length" ends an output: a stop string completed there is ordinary text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hoarfrost.sampling.params import SamplingParams

MAX_PERIOD = 32
MIN_REPEATED_TOKENS = 12
_NUM_COPIES = 3


class TextStream(Protocol):
    """What `StopChecker` needs of a detokenizer: the text that each token completes, and at the end whatever is left."""

    def push(self, token_id: int) -> str: ...

    def flush(self) -> str: ...


@dataclass(frozen=True)
class Emission:
    """What may be shown after some tokens: the tokens that count, the text that is certain, and why the output ended, if it did."""

    token_ids: list[int]
    text: str
    finish_reason: str | None


class StopChecker:
    """Follows one output to its end; nothing past the first stop ever leaves it.

    Attributes:
        num_tokens: tokens taken so far.
        finish_reason: why the output ended, None while it goes on.
    """

    def __init__(self, params: SamplingParams, eos_token_ids: Iterable[int], detokenizer: TextStream) -> None:
        self.num_tokens = 0
        self.finish_reason: str | None = None
        self._params = params
        self._ending_ids = params.ending_ids(eos_token_ids)
        self._detokenizer = detokenizer
        self._stop_text = _StopText(params.stop)
        self._repetition = RepetitionDetector() if params.stop_on_repetition else None

    def feed(self, token_ids: Sequence[int]) -> Emission:
        """Take the next tokens of the output; those after its end are dropped."""
        texts: list[str] = []
        for token_id in token_ids:
            if self.finish_reason is not None:
                break
            texts.append(self._take(token_id))
        return Emission(list(token_ids[: len(texts)]), "".join(texts), self.finish_reason)

    def close(self, finish_reason: str) -> Emission:
        """End the output from outside (the context is full, the caller gave up): the text held back so far, and the reason."""
        text = self._finish(finish_reason) if self.finish_reason is None else ""
        return Emission([], text, self.finish_reason)

    def _take(self, token_id: int) -> str:
        """Take one token: the text that may be shown now."""
        self.num_tokens += 1
        if self._may_stop and token_id in self._ending_ids:
            return self._finish("stop")
        text, is_stopped = self._stop_text.push(self._detokenizer.push(token_id), self._may_stop)
        if is_stopped:
            self.finish_reason = "stop"
        elif self._repetition is not None and self._repetition.push(token_id) and self._may_stop:
            text += self._finish("repetition")
        elif self.num_tokens == self._params.max_new_tokens:
            text += self._finish("length")
        return text

    @property
    def _may_stop(self) -> bool:
        return self.num_tokens > self._params.min_new_tokens

    def _finish(self, finish_reason: str) -> str:
        """End the output: the text still held back, unless what the detokenizer still held completes a stop string after all."""
        text, is_stopped = self._stop_text.push(self._detokenizer.flush(), self._may_stop)
        self.finish_reason = "stop" if is_stopped else finish_reason
        return text if is_stopped else text + self._stop_text.held


class RepetitionDetector:
    """Notices when an output has come to repeat itself: an n-gram of at most `MAX_PERIOD` tokens stands for the third time in a row.

    The repeats together must make at least `MIN_REPEATED_TOKENS` tokens, so an n-gram shorter than four stands more often than thrice.
    For every period n it counts for how long each token has equalled the one n before it: constant work and memory per token.
    """

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=MAX_PERIOD)  # latest first
        self._num_equal: dict[int, int] = {}
        """Per period n: the last so many tokens equal those n before them; no entry for none."""

    def push(self, token_id: int) -> bool:
        """Take one token: whether the output now ends in a repetition."""
        before = self._num_equal
        equal = self._num_equal = {n: before.get(n, 0) + 1 for n, past in enumerate(self._recent, start=1) if past == token_id}
        self._recent.appendleft(token_id)
        return any(count >= max(_NUM_COPIES * n, MIN_REPEATED_TOKENS) - n for n, count in equal.items())


class _StopText:
    """Passes text through up to the first stop string; `held` is the text that may yet turn out to begin one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.held = ""
        self._stop = stop

    def push(self, text: str, may_stop: bool) -> tuple[str, bool]:
        """Take more text: (the text that is certain to be shown, whether a stop string is complete); after True the rest is dropped."""
        if not self._stop or not text:
            return text, False
        num_known, text = len(self.held), self.held + text
        if may_stop:
            found = [(end, start) for start, end in (_find_from(text, string, num_known) for string in self._stop) if start >= 0]
            if found:
                return text[: min(found)[1]], True
        start = min(_start_of_beginning(text, string) for string in self._stop)
        self.held = text[start:]
        return text[:start], False


def _find_from(text: str, string: str, num_known: int) -> tuple[int, int]:
    """(start, end) of the first occurrence that ends after the first `num_known` characters; start is -1 if there is none."""
    start = text.find(string, max(0, num_known - len(string) + 1))
    return start, start + len(string)


def _start_of_beginning(text: str, string: str) -> int:
    """Where the longest end of the text starts that is a beginning of the string, but not the whole of it."""
    start = text.find(string[0], max(0, len(text) - len(string) + 1))
    while start >= 0 and not string.startswith(text[start:]):
        start = text.find(string[0], start + 1)
    return start if start >= 0 else len(text)
