"""Rounds: those that wait are admitted, a plan is made and run, and its outcomes are applied.

What fails for one sequence ends that one, with its fault: a store that cannot be made, a pass that fails because of it, rows that cannot be
stored, a token that cannot be chosen. The others go on as if it had not been there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence as Many

import torch
from torch import Tensor

from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.drafting import Drafter
from hoarfrost.engine.guessing import Guesser
from hoarfrost.engine.outcome import Outcome, accept, best_tokens
from hoarfrost.engine.output import Output, Piece
from hoarfrost.engine.plan import Part, Pass, Plan, run, run_one_by_one
from hoarfrost.engine.prefixes import Prefixes, digests_of
from hoarfrost.engine.scheduler import Scheduler, Waiting, chunk_rows_of
from hoarfrost.engine.sequence import PendingFeatures, Sequence
from hoarfrost.engine.statistics import StageClock, Statistics
from hoarfrost.errors import ModelFault, as_fault
from hoarfrost.sampling import Chooser, Detokenizer, StopChecker
from hoarfrost.target import Target

logger = logging.getLogger("hoarfrost")

SPARE_ROWS = 64  # of a new store, behind the prompt


class Rounds:
    """Decodes the requests of a scheduler, round by round."""

    def __init__(self, target: Target, scheduler: Scheduler, cache: IceConfig | None, prefixes: Prefixes) -> None:
        self.target, self.scheduler, self.cache, self.prefixes = target, scheduler, cache, prefixes
        self.pieces: deque[tuple[int, Piece]] = deque()
        """What came of the rounds, until somebody takes it."""

    def _admit(self, request_id: int, request: Waiting, drafter: Drafter | None) -> None:
        """Begins a sequence."""
        params, eos_token_ids = request.params, self.target.eos_token_ids
        stop_checker = request.stop_checker or StopChecker(params, eos_token_ids, Detokenizer(self.target.tokenizer))
        output = Output(stop_checker, Statistics(num_prompt_tokens=len(request.prompt_ids)))
        capacity = len(request.prompt_ids) + SPARE_ROWS
        try:
            sequence = Sequence(
                id=request_id,
                prompt_ids=request.prompt_ids,
                params=params,
                tree=request.tree,
                store=self.target.new_store(capacity, self.cache),
                draft_state=drafter.new_state(capacity) if drafter is not None and request.tree.budget else None,
                chooser=request.chooser or Chooser(params, eos_token_ids),
                output=output,
                num_bytes=request.num_bytes,
                digests=digests_of(request.prompt_ids, self._chunk_rows) if self.prefixes.max_bytes else [],
            )
            self.prefixes.restore(sequence)
            self.scheduler.running[request_id] = sequence
        except Exception as error:  # memory, most likely
            self.pieces.append((request_id, output.end("error", as_fault(error))))

    @property
    def _chunk_rows(self) -> int:
        return chunk_rows_of(self.target, self.cache)

    @torch.inference_mode()
    def decode(self, guesser: Guesser, max_batch_size: int, max_bytes: int) -> None:
        """One round, of as many requests as there may be."""
        for request_id in self.scheduler.overdue(time.monotonic()):
            self._expire(request_id)
        for request_id, request in self.scheduler.admissible(max_batch_size, max_bytes):
            self._admit(request_id, request, guesser.drafter)
        if not self.scheduler.running:
            return
        clock = StageClock()
        try:
            plan, passed = self._run(self.scheduler.plan(guesser, self._chunk_rows, clock))
            best = best_tokens(plan, passed.logits) if passed.logits is not None else None
            clock.lap("verify")
            outcomes = accept(plan, passed.logits, best)
            clock.lap("walk")
            self._apply(plan, outcomes, passed.features, guesser)
            clock.lap("host")
            guesser.learn(plan, outcomes, best, clock)
            record_times(plan, clock)
        except BaseException:
            self._end_what_is_torn()
            raise

    def _run(self, plan: Plan) -> tuple[Plan, Pass]:
        """The pass; where it fails, a pass for each sequence, and the end of those that fail again."""
        try:
            return plan, run(plan, self.target)
        except Exception:  # whose it is will show
            plan, passed, failed = run_one_by_one(plan, self.target)
            for sequence, error in failed:
                self._fail(sequence, error)
            return plan, passed

    def _apply(self, plan: Plan, outcomes: Many[Outcome], features: Tensor | None, guesser: Guesser) -> None:
        """Takes in the outcomes: the only place that changes sequences, stores and requests."""
        start = 0
        for part, outcome in zip(plan.parts, outcomes, strict=True):
            if outcome.fault is not None:
                self._fail(part.sequence, outcome.fault)
            else:
                try:
                    self._apply_one(part, outcome, features, start, guesser)
                except Exception as error:  # a store or a stop rule: what is torn belongs to this sequence
                    self._fail(part.sequence, error)
            start += part.num_rows

    def _apply_one(self, part: Part, outcome: Outcome, features: Tensor | None, start: int, guesser: Guesser) -> None:
        """Keeps the accepted rows in the store and their features (of the pass, from `start` on) for the drafter; hands out tokens."""
        sequence, rows, token_ids = part.sequence, outcome.rows, outcome.token_ids
        sequence.store.commit(rows)
        sequence.distrusts_guesses = not rows
        if rows and features is not None and sequence.draft_state is not None:
            sequence.pending_features.append(PendingFeatures(features, start, rows))
            if part.chunk is not None:
                guesser.read_prompt(sequence)
        if part.chunk is not None:
            self.prefixes.keep(sequence, self._chunk_rows)
        if not token_ids:
            return
        if part.chunk is None:
            sequence.output.statistics.record_walk(len(token_ids))
        else:
            sequence.store.start_decoding()
        piece = sequence.output.take(token_ids, len(token_ids) - 1)
        sequence.token_ids.extend(piece.token_ids)
        self.pieces.append((sequence.id, piece))
        if piece.finish_reason is not None:
            self.scheduler.remove(sequence.id)

    def _expire(self, request_id: int) -> None:
        """Ends a request whose time is up with what it has, be that nothing."""
        sequence = self.scheduler.running.get(request_id)
        finish_reason, no_statistics = "timeout", Statistics(num_prompt_tokens=0)
        self.pieces.append((request_id, sequence.output.end(finish_reason) if sequence else Piece("", [], 0, finish_reason, no_statistics)))
        self.scheduler.remove(request_id)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """Ends one request with its fault; what it holds is dropped, also by the error, whose frames would keep it alive."""
        fault = as_fault(error)
        if fault is not error:
            logger.warning("Request %d ended: %s", sequence.id, fault, exc_info=error)
        error.with_traceback(None)
        self.scheduler.remove(sequence.id)
        self.pieces.append((sequence.id, sequence.output.end("error", fault)))

    def _end_what_is_torn(self) -> None:
        """After an interruption in the midst of a round: whoever's rows and tokens no longer belong together ends; the others go on."""
        for sequence in list(self.scheduler.running.values()):
            try:
                sequence.check_integrity()
            except AssertionError:
                self._fail(sequence, ModelFault("a round was interrupted while rows of this request were stored; send it again."))


def record_times(plan: Plan, clock: StageClock) -> None:
    """Books a round's time: as a whole to those that decode, in proportion to their rows to those that read."""
    seconds, num_rows = sum(clock.seconds.values()), sum([part.num_rows for part in plan.parts])
    for part in plan.parts:
        if part.chunk is None:
            part.sequence.output.statistics.record_times(clock.seconds)
        else:
            part.sequence.output.statistics.prefill_seconds += seconds * part.num_rows / num_rows
