"""Sends every prompt to every peer in turn, one at work at a time, and keeps what they answer.

First Hoarfrost decodes the prompt plainly, untimed: that says how many tokens everybody is asked for, and which. Then all are timed; who
begins changes from prompt to prompt. A peer that fails is left out from then on, and the reason is kept.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from peers import HOARFROST, Peer, PeerFailure

from hoarfrost.evaluation.common.journal import Outcome
from hoarfrost.evaluation.decode.benchmark import first_difference
from hoarfrost.evaluation.decode.peers import PeerRecord
from hoarfrost.evaluation.prompts.sets import Prompt

TIMEOUT_SECONDS = 900.0
NUM_WARM_UP_TOKENS = 32
SETTLE_SECONDS = 0.02  # some thread pools spin on for a while after their work; the next peer should not feel it


class Worker(Protocol):
    """Whatever answers requests; see `worker_process.WorkerProcess`."""

    def ask(self, request: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]: ...


class Comparison:
    """`failures` has a reason for every peer that failed; the others in `peers` are still measured."""

    def __init__(self, workers: Mapping[str, Worker], peers: Sequence[Peer], max_new_tokens: int, failures: dict[str, str]) -> None:
        self.workers, self.peers, self.max_new_tokens, self.failures = workers, list(peers), max_new_tokens, failures
        self._is_warm = False

    def measure(self, prompt: Prompt, index: int) -> Outcome[PeerRecord]:
        """All turns of one prompt; a second turn follows Hoarfrost's plain answer. `index` turns the order of the peers."""
        messages: list[dict[str, str]] = []
        records: list[PeerRecord] = []
        for turn, text in enumerate(prompt.turns):
            messages.append({"role": "user", "content": text})
            request = {"messages": messages, "max_new_tokens": self.max_new_tokens}
            reference = self.workers[HOARFROST].ask(request, TIMEOUT_SECONDS)
            if "does_not_fit" in reference:
                return Outcome(prompt.set_name, prompt.prompt_id, records, len(prompt.turns) - turn)
            turn_id = f"{prompt.prompt_id}/{turn + 1}" if len(prompt.turns) > 1 else prompt.prompt_id
            records.extend(self._measure_turn(prompt.set_name, turn_id, reference, index))
            messages.append({"role": "assistant", "content": reference["text"]})
        return Outcome(prompt.set_name, prompt.prompt_id, records)

    def _measure_turn(self, set_name: str, turn_id: str, reference: dict[str, Any], index: int) -> list[PeerRecord]:
        expected = reference["token_ids"]
        if not expected:
            return []
        if not self._is_warm:
            self._ask_all(reference["prompt_ids"], NUM_WARM_UP_TOKENS, 0)
            self._is_warm = True
        answers = self._ask_all(reference["prompt_ids"], len(expected), index)
        return [make_record(set_name, turn_id, peer.name, answers[peer.name], expected) for peer in self.peers]

    def _ask_all(self, prompt_ids: list[int], num_tokens: int, index: int) -> dict[str, dict[str, Any]]:
        """The answers of all peers, asked in an order of its own for every `index`; who fails is left out from here on."""
        answers = {}
        for peer in random.Random(index).sample(self.peers, len(self.peers)):
            request = {"prompt_ids": prompt_ids, "max_new_tokens": num_tokens, "mode": peer.mode}
            try:
                answers[peer.name] = self.workers[peer.worker].ask(request, TIMEOUT_SECONDS)
            except PeerFailure as failure:
                self.failures[peer.name] = str(failure)
            time.sleep(SETTLE_SECONDS)
        self.peers = [peer for peer in self.peers if peer.name in answers]
        return answers


def make_record(set_name: str, turn_id: str, peer: str, answer: dict[str, Any], expected: list[int]) -> PeerRecord:
    difference = first_difference(answer["token_ids"], expected)
    return PeerRecord(
        set=set_name,
        prompt_id=turn_id,
        peer=peer,
        tokens=len(answer["token_ids"]),
        num_first=answer["num_first"],
        seconds=answer["seconds"],
        prefill_seconds=answer["prefill_seconds"],
        agrees=difference is None,
        first_difference=difference,
    )
