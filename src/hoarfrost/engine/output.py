"""What is handed out of a request: pieces while it is decoded, a completion at its end."""

from __future__ import annotations

from dataclasses import dataclass

from hoarfrost.engine.statistics import Statistics
from hoarfrost.errors import Fault
from hoarfrost.sampling import StopChecker


@dataclass(frozen=True)
class Piece:
    """What one round adds to a stream: `num_from_tree` of `token_ids` were guessed by the drafter, and they come first.

    `text` may lag behind the tokens where a character is incomplete or a stop string may have begun. The last piece carries the finish
    reason (`stop`, `length`, `repetition`, `timeout` or `error`) and the statistics; with `error`, what went wrong.
    """

    text: str
    token_ids: list[int]
    num_from_tree: int
    finish_reason: str | None = None
    statistics: Statistics | None = None
    error: Fault | None = None


@dataclass(frozen=True)
class Completion:
    """The whole answer to one prompt; `error` says why it is cut off where the finish reason is `error`."""

    text: str
    token_ids: list[int]
    finish_reason: str
    statistics: Statistics
    error: Fault | None = None

    @classmethod
    def from_pieces(cls, pieces: list[Piece]) -> Completion:
        last = pieces[-1]
        assert last.finish_reason is not None
        assert last.statistics is not None
        token_ids = [token_id for piece in pieces for token_id in piece.token_ids]
        return cls("".join([piece.text for piece in pieces]), token_ids, last.finish_reason, last.statistics, last.error)


class Output:
    """Turns the tokens of one request into pieces, up to its end."""

    def __init__(self, stop_checker: StopChecker, statistics: Statistics) -> None:
        self.statistics = statistics
        self.finish_reason: str | None = None
        self._stop_checker = stop_checker

    def take(self, token_ids: list[int], num_accepted: int) -> Piece:
        """The piece for the tokens of one round, the first `num_accepted` of them guessed; those behind the end are dropped."""
        emission = self._stop_checker.feed(token_ids)
        self.finish_reason = emission.finish_reason
        self.statistics.num_tokens += len(emission.token_ids)
        num_from_tree = min(num_accepted, len(emission.token_ids))
        statistics = self.statistics if emission.finish_reason else None
        return Piece(emission.text, emission.token_ids, num_from_tree, emission.finish_reason, statistics)

    def end(self, finish_reason: str, error: Fault | None = None) -> Piece:
        """The last piece, of a request that cannot go on."""
        self.finish_reason = finish_reason
        return Piece("", [], 0, finish_reason, self.statistics, error)
