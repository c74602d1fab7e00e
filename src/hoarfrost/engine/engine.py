"""The engine: requests come and go, and one step decodes a round of all that run.

    plan = what the round does          (`scheduler.Scheduler.plan`)
    pass = the target's, over all rows  (`plan.run`: provisional rows only)
    outcomes = rows and tokens          (`outcome.accept`: nothing is changed)
    apply, learn                        (`rounds.Rounds`)

`generate`, `stream` and the faces of other libraries are loops over `step`. A request that fails ends with its own fault; nobody else's
tokens change. Any thread may call any method: one at a time goes on, a round at most keeps the others waiting, and everybody gets the
pieces of what they asked for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from typing import Any

from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.drafting import Drafter, load_drafter
from hoarfrost.drafting.opening import open_drafter
from hoarfrost.engine.guessing import Guesser
from hoarfrost.engine.limits import Limits, bytes_for
from hoarfrost.engine.output import Completion, Piece
from hoarfrost.engine.prefixes import Prefixes
from hoarfrost.engine.request import Prompt, Request, encode_prompt, fit_to_context
from hoarfrost.engine.rounds import Rounds
from hoarfrost.engine.scheduler import Scheduler, Waiting
from hoarfrost.engine.turns import Turns
from hoarfrost.errors import InvalidInput, ResourceExhausted
from hoarfrost.models import drafter_of
from hoarfrost.sampling import Chooser, SamplingParams, StopChecker
from hoarfrost.target import Target
from hoarfrost.target.encoding import encode_chat
from hoarfrost.tree import TreeConfig


def check_type(name: str, value: Any, kind: type) -> None:
    """Refuses what is neither None nor of the kind that the parameter `name` takes."""
    if value is not None and not isinstance(value, kind):
        raise InvalidInput(f"{name} is {kind.__name__}(...) or None, not {value!r:.80}.")


class Engine:
    """Decodes with one target and at most one drafter; see `load`."""

    def __init__(
        self,
        target: Target,
        drafter: Drafter | None = None,
        tree: TreeConfig | None = None,
        max_batch_size: int = 32,
        cache: IceConfig | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.target, self.drafter, self.max_batch_size, self.cache = target, drafter, max_batch_size, cache
        self.limits = (limits or Limits()).resolved(target.device)
        self.tree = tree or TreeConfig()
        self._guesser: Guesser | None = None
        self._scheduler = Scheduler()
        self._prefixes = Prefixes(self.limits.prefix_bytes or 0)
        self._rounds = Rounds(target, self._scheduler, cache, self._prefixes)
        self._turns = Turns()
        self._looped_over: set[int] = set()  # requests of `generate` and `stream`
        self._aborted: list[int] = []  # to be forgotten when the turn is over

    @classmethod
    def load(
        cls,
        model: str,
        *,
        drafter: str | None = "auto",
        dtype: str = "auto",
        device: str = "auto",
        weights: str = "auto",
        revision: str | None = None,
        tree: TreeConfig | None = None,
        max_batch_size: int = 32,
        cache: IceConfig | None = None,
        limits: Limits | None = None,
    ) -> Engine:
        """Loads `model` (a folder, a GGUF file, a hub id or the alias `smollm2`) and its drafter.

        `drafter` is a folder or hub id of a DFlash checkpoint, or an alias that has one; `"auto"` takes that of the model's alias and none
        elsewhere; `None` decodes without. `weights`: "auto" holds them as they come (a quantised GGUF file's in its blocks), "int8" in
        8-bit blocks, "float" in `dtype`. `revision` is a branch, tag or commit of a model on the hub. `cache` lets decoding attend to few
        rows of a long context; `None`: to all. `limits` says how much memory and how many requests there may be. Raises `InvalidInput` for
        anything that cannot be found, does not fit together (both before the model's weights are read) or is not served exactly.
        """
        check_batch_size(max_batch_size)
        check_type("tree", tree, TreeConfig)
        check_type("cache", cache, IceConfig)
        check_type("limits", limits, Limits)
        if drafter == "auto":
            shipped = drafter_of(model)
            drafter = None if shipped is None else str(shipped)
        opened = open_drafter(drafter) if drafter else None
        target = Target.load(
            model, dtype=dtype, device=device, weights=weights, revision=revision, check=None if opened is None else opened.check_fit
        )
        return cls(target, load_drafter(opened, target) if opened else None, tree, max_batch_size, cache, limits)

    @property
    def max_batch_size(self) -> int:
        """Requests that are decoded together; the others wait."""
        return self._max_batch_size

    @max_batch_size.setter
    def max_batch_size(self, size: int) -> None:
        check_batch_size(size)
        self._max_batch_size = size

    @property
    def guesser(self) -> Guesser:
        """Makes the trees; keeps what it learns for as long as the drafter stays the same. May be replaced by another of `new_guesser`."""
        if self._guesser is None or self._guesser.drafter is not self.drafter:
            self._guesser = self.new_guesser()
            self._prefixes.clear()  # the rows of another drafter
        return self._guesser

    @guesser.setter
    def guesser(self, guesser: Guesser) -> None:
        self._guesser = guesser

    def new_guesser(self) -> Guesser:
        """A guesser that has learnt nothing yet."""
        return Guesser(self.target, self.drafter)

    @property
    def tokenizer(self) -> Any:
        return self.target.tokenizer

    def chat(self, messages: str | list[dict[str, str]], *, thinking: bool = False) -> list[int]:
        """Token ids of a conversation in the model's chat template, up to where the assistant's next turn begins.

        `thinking` asks templates that know `enable_thinking` (Qwen3's) for a thinking phase; the released DFlash drafters were trained
        without one.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        with self._turns:  # tokenizers are not for many threads at once
            return encode_chat(self.tokenizer, messages, self.target.name, thinking=thinking)

    def add(self, request: Request, *, chooser: Chooser | None = None, stop_checker: StopChecker | None = None) -> int:
        """Queues a request for the coming steps and gives its id. Raises `InvalidInput` where it cannot be served as it is, and
        `ResourceExhausted` where too many wait already.

        A face that chooses tokens or ends texts in its own way brings a `chooser` and a `stop_checker`; how long the text may become is
        then the latter's to say.
        """
        with self._turns:
            waiting = self._resolve(request, chooser, stop_checker)
            most = self.limits.num_waiting
            if most is not None and self._scheduler.num_waiting >= most:
                raise ResourceExhausted(f"{most} requests wait already, as many as may; send this one again later.")
            return self._scheduler.add(waiting)

    def step(self) -> list[tuple[int, Piece]]:
        """One round of all that run, those that wait being admitted as there is room: the pieces that came, in no particular order.

        A request is over with the piece that has a finish reason; with `error`, the piece says what went wrong. Nothing comes where there
        is nothing to do, or only prompts were read. The requests of `generate` and `stream` take part, their pieces go there.
        """
        return self._next_pieces(None)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing left for `step` to do: no request waits, runs, or has pieces that it would hand out."""
        is_done = not (self._scheduler.running or self._scheduler.num_waiting)
        return is_done and all(request_id in self._looped_over for request_id, _ in self._rounds.pieces)

    def abort(self, request_id: int) -> None:
        """Ends a request at once: all that it holds is given back, and no piece of it comes any more. One that is over is left in peace."""
        self._aborted.append(request_id)
        if not self._turns.is_mine:  # else a stream was forgotten in the midst of a round of this very thread
            with self._turns:
                self._forget_aborted()

    def _forget_aborted(self) -> None:
        while self._aborted:
            request_id = self._aborted.pop()
            self._scheduler.remove(request_id)
            self._looped_over.discard(request_id)
            self._rounds.pieces = deque(one for one in self._rounds.pieces if one[0] != request_id)

    def check_integrity(self) -> None:
        """Raises `AssertionError` where the books do not balance: rows and tokens of all that run, requests that somebody waits for."""
        with self._turns:
            for sequence in self._scheduler.running.values():
                sequence.check_integrity()
            self._prefixes.check_integrity()
            known = {request_id for request_id, _ in self._rounds.pieces}
            lost = [one for one in self._looped_over if one not in self._scheduler and one not in known]
            assert not lost, f"requests {lost} are waited for and not here"

    def generate(
        self, prompts: str | Many[Prompt], params: SamplingParams | Many[SamplingParams] | None = None, *, tree: TreeConfig | None = None
    ) -> list[Completion]:
        """Decodes all prompts (texts or token ids) and returns their completions in order. One params for all, or one each.

        Raises `InvalidInput` for a prompt that cannot be served, before any is decoded. Where decoding one fails, its completion has the
        finish reason `error` and says why; a single prompt raises the error.
        """
        if isinstance(prompts, Mapping):
            raise InvalidInput(
                "Prompts are texts or lists of token ids, not what a tokenizer returns or other mappings; give its input_ids: "
                'generate([tokenizer("Hi")["input_ids"]]).'
            )
        check_type("tree", tree, TreeConfig)
        many: list[Prompt] = [prompts] if isinstance(prompts, str) else list(prompts)
        if any(isinstance(prompt, int) for prompt in many):
            raise InvalidInput("A prompt of token ids stands in a list of its own: generate([[1, 2, 3]]), not generate([1, 2, 3]).")
        if isinstance(params, Mapping) or (params is not None and not isinstance(params, (SamplingParams, Many))):
            raise InvalidInput(f"params is SamplingParams(...), or a list with one for each prompt, not {params!r:.80}.")
        each = [params or SamplingParams()] * len(many) if params is None or isinstance(params, SamplingParams) else list(params)
        for one in each:
            check_type("params", one, SamplingParams)
        if len(each) != len(many):
            raise InvalidInput(f"{len(many)} prompts came with {len(each)} sampling params; give one for all or one for each.")
        with self._turns:
            requests = [self._resolve(Request(prompt, one, tree)) for prompt, one in zip(many, each, strict=True)]
        pieces: list[list[Piece]] = [[] for _ in many]
        for index, piece in self._loop(requests):
            pieces[index].append(piece)
        completions = [Completion.from_pieces(one) for one in pieces]
        if len(completions) == 1 and completions[0].error is not None:
            raise completions[0].error
        return completions

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, *, tree: TreeConfig | None = None) -> Iterator[Piece]:
        """Decodes one prompt and yields a piece per round; the last one carries the finish reason and the statistics.

        A stream that is closed, or forgotten, ends its request. Raises what went wrong where decoding fails.
        """
        check_type("tree", tree, TreeConfig)
        check_type("params", params, SamplingParams)
        with self._turns:
            request = self._resolve(Request(prompt, params or SamplingParams(), tree))
        return self._stream(request)

    def _stream(self, request: Waiting) -> Iterator[Piece]:
        for _, piece in self._loop([request]):
            if piece.error is not None:
                raise piece.error
            yield piece

    def _loop(self, requests: Many[Waiting]) -> Iterator[tuple[int, Piece]]:
        """Adds requests and steps until all are over: pieces with the index of their request. Leaving the loop early aborts the rest."""
        with self._turns:
            indices = {self._scheduler.add(request): index for index, request in enumerate(requests)}
            self._looped_over.update(indices)
        try:
            while indices:
                for request_id, piece in self._next_pieces(indices):
                    index = indices[request_id]
                    if piece.finish_reason is not None:
                        del indices[request_id]
                    yield index, piece
        finally:
            for request_id in indices:
                self.abort(request_id)

    def _next_pieces(self, request_ids: dict[int, int] | None) -> list[tuple[int, Piece]]:
        """The pieces at hand of these requests, or (None) of those that nobody loops over; without any, those of one round."""
        with self._turns:
            self._forget_aborted()
            pieces = self._take_pieces(request_ids)
            if not pieces:
                self._rounds.decode(self.guesser, self.max_batch_size, self.limits.num_bytes or 0)
                pieces = self._take_pieces(request_ids)
            return pieces

    def _take_pieces(self, request_ids: dict[int, int] | None) -> list[tuple[int, Piece]]:
        taken: list[tuple[int, Piece]] = []
        left: deque[tuple[int, Piece]] = deque()
        for request_id, piece in self._rounds.pieces:
            is_wanted = request_id not in self._looped_over if request_ids is None else request_id in request_ids
            (taken if is_wanted else left).append((request_id, piece))
            if is_wanted and piece.finish_reason is not None:
                self._looped_over.discard(request_id)
        self._rounds.pieces = left
        return taken

    def _resolve(self, request: Request, chooser: Chooser | None = None, stop_checker: StopChecker | None = None) -> Waiting:
        """A request with all that was left open, checked."""
        tree = request.tree or self.tree
        if tree.budget and self.drafter is None and not tree.retrieval:
            raise InvalidInput(f"A tree budget of {tree.budget} needs a drafter or retrieval, and there is neither; use a budget of 0.")
        prompt_ids = encode_prompt(request.prompt, self.target)
        params = request.params
        if stop_checker is None:
            params = fit_to_context(params, len(prompt_ids), self.target.max_positions)
        guesser = self.guesser
        guesser.prepare(tree)
        num_rows = min(len(prompt_ids) + params.max_new_tokens, self.target.max_positions)
        num_bytes = bytes_for(num_rows, self.target, guesser.drafter if tree.budget else None, self.cache)
        if num_bytes > (most := self.limits.num_bytes or 0):
            raise InvalidInput(
                f"Keys and values of {num_rows:,} tokens take {num_bytes:,} bytes, and {most:,} are there for all requests; shorten the "
                "prompt, lower max_new_tokens or raise the limit."
            )
        deadline = None if request.timeout_seconds is None else time.monotonic() + request.timeout_seconds
        return Waiting(prompt_ids, params, tree, request.priority, num_bytes, deadline, chooser, stop_checker)


def check_batch_size(size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidInput(f"max_batch_size is {size!r}; at least one request must be decoded at a time.")
