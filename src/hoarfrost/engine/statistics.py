"""What decoding one prompt cost and how far the guesses reached."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

STAGES = ("draft", "build", "verify", "walk", "host")
"""The drafter's pass, its selector and the reading of its candidates; growing trees; the target's pass and the reading of the likeliest
tokens; walking and learning; planning, committing and handing out."""


@dataclass
class Statistics:
    """Counts and times of one prompt.

    `num_cached_tokens` of the prompt were read before, and their keys and values copied.
    `decode_seconds` covers the rounds behind the first token: reading the prompt (by the drafter too) and the first token are in
    `prefill_seconds`. A round that reads prompts while others decode counts among their `decode_seconds` as a whole, and each prompt's
    `prefill_seconds` as far as its rows go. In a batch the times are those of the rounds that the prompt took part in, shared with its
    neighbours.
    On an accelerator work is queued, so a stage that only queues is short and the next one that needs a result waits for it.
    """

    num_prompt_tokens: int
    num_cached_tokens: int = 0
    num_tokens: int = 0
    num_rounds: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    accepted_histogram: list[int] = field(default_factory=list)
    """Entry i: rounds whose walk ended with i tokens, the bonus counted and nothing cut at a stop."""

    @property
    def tau(self) -> float:
        """Mean tokens emitted per pass of the target after the first token, the bonus counted."""
        return (self.num_tokens - 1) / self.num_rounds if self.num_rounds else 0.0

    @property
    def tokens_per_second(self) -> float:
        return (self.num_tokens - 1) / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def ms_per_round(self) -> float:
        return 1000 * self.decode_seconds / self.num_rounds if self.num_rounds else 0.0

    def record_walk(self, num_tokens: int) -> None:
        """Counts one round whose walk ended with `num_tokens` tokens."""
        self.num_rounds += 1
        self.accepted_histogram.extend([0] * (num_tokens + 1 - len(self.accepted_histogram)))
        self.accepted_histogram[num_tokens] += 1

    def record_times(self, stage_seconds: dict[str, float]) -> None:
        for stage, seconds in stage_seconds.items():
            self.stage_seconds[stage] += seconds
            self.decode_seconds += seconds


class StageClock:
    """Splits the time of a round: `lap(stage)` books what has passed since the last lap, `lap_apart` also in `apart`, which `total` leaves
    out."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.apart = 0.0
        self._last = time.perf_counter()

    @property
    def total(self) -> float:
        return sum(self.seconds.values()) - self.apart

    def lap(self, stage: str) -> float:
        now = time.perf_counter()
        passed = now - self._last
        self.seconds[stage] += passed
        self._last = now
        return passed

    def lap_apart(self, stage: str) -> None:
        self.apart += self.lap(stage)
