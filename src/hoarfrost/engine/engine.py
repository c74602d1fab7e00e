"""The engine: loads a target and its drafter, and turns prompts into completions or streams.

Prompts are decoded in one packed batch of at most `max_batch_size`; when one ends, the next takes its place. Nothing here decides what a
token is: that is the loop's business, and it does not depend on who shares the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Any

from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.drafting import Drafter, load_drafter
from hoarfrost.engine.guessing import Guesser
from hoarfrost.engine.rounds import DecodingLoop
from hoarfrost.engine.sequence import Completion, Piece, Sequence
from hoarfrost.engine.statistics import Statistics
from hoarfrost.errors import InvalidInput
from hoarfrost.models import SHIPPED
from hoarfrost.sampling import Chooser, Detokenizer, SamplingParams, StopChecker
from hoarfrost.target import Target
from hoarfrost.target.encoding import encode_chat, encode_text, token_ids_of
from hoarfrost.tree import TreeConfig

Prompt = str | Many[int]


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
    ) -> None:
        self.target, self.drafter, self.max_batch_size, self.cache = target, drafter, max_batch_size, cache
        self.tree = tree or TreeConfig()
        self._guesser: Guesser | None = None

    @classmethod
    def load(
        cls,
        model: str,
        *,
        drafter: str | None = "auto",
        dtype: str = "auto",
        device: str = "auto",
        weights: str = "auto",
        tree: TreeConfig | None = None,
        max_batch_size: int = 32,
        cache: IceConfig | None = None,
    ) -> Engine:
        """Loads `model` (a folder, a GGUF file, a hub id or the alias of a shipped pair) and its drafter.

        `drafter` is a folder or hub id of a DFlash checkpoint; `"auto"` takes the shipped one of an alias and none elsewhere; `None`
        decodes without. `weights`: "auto" holds them as they come (a quantised GGUF file's in its blocks), "int8" in 8-bit blocks, "float"
        in `dtype`. `cache` lets decoding attend to few rows of a long context; `None`: to all. Raises `InvalidInput` for anything
        that cannot be found, does not fit together or is not served exactly.
        """
        check_type("tree", tree, TreeConfig)
        check_type("cache", cache, IceConfig)
        target = Target.load(model, dtype=dtype, device=device, weights=weights)
        if drafter == "auto":
            drafter = str(SHIPPED[model].drafter) if model in SHIPPED else None
        return cls(target, load_drafter(drafter, target) if drafter else None, tree, max_batch_size, cache)

    @property
    def guesser(self) -> Guesser:
        """Makes the trees; keeps what it learns for as long as the drafter stays the same. May be replaced by another of `new_guesser`."""
        if self._guesser is None or self._guesser.drafter is not self.drafter:
            self._guesser = self.new_guesser()
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
        return encode_chat(self.tokenizer, messages, self.target.name, thinking=thinking)

    def generate(
        self, prompts: str | Many[Prompt], params: SamplingParams | Many[SamplingParams] | None = None, *, tree: TreeConfig | None = None
    ) -> list[Completion]:
        """Decodes all prompts (texts or token ids) and returns their completions in order. One params for all, or one each."""
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
        texts: list[list[str]] = [[] for _ in many]
        ids: list[list[int]] = [[] for _ in many]
        completions: dict[int, Completion] = {}
        for index, piece in self._run(many, each, tree):
            texts[index].append(piece.text)
            ids[index].extend(piece.token_ids)
            if piece.finish_reason and piece.statistics:
                completions[index] = Completion("".join(texts[index]), ids[index], piece.finish_reason, piece.statistics)
        return [completions[index] for index in range(len(many))]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, *, tree: TreeConfig | None = None) -> Iterator[Piece]:
        """Decodes one prompt and yields a piece per round; the last one carries the finish reason and the statistics."""
        check_type("tree", tree, TreeConfig)
        check_type("params", params, SamplingParams)
        return (piece for _, piece in self._run([prompt], [params or SamplingParams()], tree))

    def _run(self, prompts: Many[Prompt], params: Many[SamplingParams], tree: TreeConfig | None) -> Iterator[tuple[int, Piece]]:
        config = tree or self.tree
        if config.budget and self.drafter is None and not config.retrieval:
            raise InvalidInput(f"A tree budget of {config.budget} needs a drafter or retrieval, and there is neither; use a budget of 0.")
        loop = DecodingLoop(self.guesser, config)
        # Every prompt is checked before the first is decoded.
        waiting = deque((index, self._encode(prompt), param) for index, (prompt, param) in enumerate(zip(prompts, params, strict=True)))
        active: list[Sequence] = []
        while waiting or active:
            while waiting and len(active) < self.max_batch_size:
                sequence = self._admit(*waiting.popleft(), drafting=loop.drafter is not None)
                yield sequence.index, loop.prefill(sequence)
                if sequence.finish_reason is None:
                    active.append(sequence)
            if active:
                pieces = loop.round(active)
                yield from zip([sequence.index for sequence in active], pieces, strict=True)
                active = [sequence for sequence in active if sequence.finish_reason is None]

    def _encode(self, prompt: Prompt) -> list[int]:
        ids = encode_text(self.tokenizer, prompt) if isinstance(prompt, str) else token_ids_of(prompt)
        if not ids:
            raise InvalidInput("The prompt is empty; give at least one token.")
        foreign = next((token_id for token_id in ids if not 0 <= token_id < self.target.vocab_size), None)
        if foreign is not None:
            raise InvalidInput(f"Token id {foreign} lies outside the model's vocabulary of {self.target.vocab_size} tokens.")
        if len(ids) >= self.target.max_positions:
            raise InvalidInput(
                f"The prompt has {len(ids)} tokens and the model's context is {self.target.max_positions}, the answer included; shorten it."
            )
        return ids

    def _admit(self, index: int, prompt_ids: list[int], params: SamplingParams, *, drafting: bool) -> Sequence:
        room = self.target.max_positions - len(prompt_ids)
        params = replace(params, max_new_tokens=min(params.max_new_tokens, room))
        capacity = len(prompt_ids) + 64
        return Sequence(
            index=index,
            prompt_ids=prompt_ids,
            params=params,
            store=self.target.new_store(capacity, self.cache),
            draft_state=self.drafter.new_state(capacity) if self.drafter is not None and drafting else None,
            chooser=Chooser(params, self.target.eos_token_ids),
            stop_checker=StopChecker(params, self.target.eos_token_ids, Detokenizer(self.tokenizer)),
            statistics=Statistics(num_prompt_tokens=len(prompt_ids)),
        )
