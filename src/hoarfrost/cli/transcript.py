"""What was decoded, as it comes: text to stdout, and in the end one line or one JSON object on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from hoarfrost.engine import Piece, Statistics


@dataclass
class Transcript:
    """What a stream has given so far."""

    began: float = field(default_factory=time.perf_counter)
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    num_from_tree: int = 0
    finish_reason: str = "interrupted"
    statistics: Statistics | None = None

    def take(self, pieces: Iterable[Piece], echo: bool) -> bool:
        """Takes in the pieces as they come, echoing their text to stdout; says whether the stream came to its end."""
        try:
            for piece in pieces:
                self.add(piece)
                if echo:
                    typer.echo(piece.text, nl=False)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            return False
        return True

    def add(self, piece: Piece) -> None:
        self.texts.append(piece.text)
        self.token_ids.extend(piece.token_ids)
        self.num_from_tree += piece.num_from_tree
        if piece.finish_reason is not None:
            self.finish_reason, self.statistics = piece.finish_reason, piece.statistics

    def summary(self) -> str:
        """One line on what was decoded and how fast."""
        if self.statistics is None:
            seconds = time.perf_counter() - self.began
            return f"interrupted after {len(self.token_ids)} tokens in {seconds:.2f} s, {self.num_from_tree} of them from the tree"
        figures = self.statistics
        return (
            f"{figures.num_tokens} tokens in {figures.decode_seconds:.2f} s: {figures.tokens_per_second:.1f} tokens/s, "
            f"{figures.tau:.2f} tokens a round (tau), {figures.num_rounds} rounds of {figures.ms_per_round:.1f} ms, {self.num_from_tree} "
            f"tokens from the tree; prompt of {figures.num_prompt_tokens} tokens in {figures.prefill_seconds:.2f} s; "
            f"ended by {self.finish_reason}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "text": "".join(self.texts),
            "token_ids": self.token_ids,
            "num_from_tree": self.num_from_tree,
            "finish_reason": self.finish_reason,
            "statistics": None if self.statistics is None else statistics_to_json(self.statistics),
        }


def statistics_to_json(statistics: Statistics) -> dict[str, Any]:
    derived = {name: getattr(statistics, name) for name in ("tau", "tokens_per_second", "ms_per_round")}
    return {**asdict(statistics), **derived}
