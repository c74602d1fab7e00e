"""`model.generate(**inputs, custom_generate=ddtree(drafter))`: draft trees on a stock model, the one decoding loop behind it.

transformers prepares what it always does (generation config, logits processors, stopping criteria) and calls the object in place of its
own loop. The rows of the batch become sequences of `DecodingLoop` over a twin of the model, which stays untouched; the answers go back in
transformers' form. docs/transformers.md lists what is honoured, what differs and what is refused.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import EosTokenCriteria, MaxLengthCriteria, PreTrainedModel
from transformers.generation.utils import GenerateDecoderOnlyOutput

from hoarfrost.drafting import Drafter, load_drafter
from hoarfrost.engine import Statistics
from hoarfrost.engine.rounds import DecodingLoop
from hoarfrost.engine.sequence import Piece, Sequence
from hoarfrost.errors import InvalidInput
from hoarfrost.integrations.transformers.processors import criteria_of, processors_of
from hoarfrost.integrations.transformers.prompts import append_answers, read_prompts
from hoarfrost.integrations.transformers.rows import ProcessedChooser, Row, RowEnd
from hoarfrost.integrations.transformers.settings import dropped_arguments, plain_filters, refuse_unsupported
from hoarfrost.models import SHIPPED
from hoarfrost.sampling import Chooser, SamplingParams
from hoarfrost.sampling.params import MAX_SEED
from hoarfrost.target import Target
from hoarfrost.target.twin import name_of, packed_twin
from hoarfrost.tree import TreeConfig


def ddtree(
    drafter: str | Path | Drafter,
    *,
    budget: int | None = None,
    tree: TreeConfig | None = None,
    seed: int | None = None,
    streamer: Any = None,
    independent_rows: bool = False,
) -> TreeGeneration:
    """What `generate(custom_generate=...)` takes to decode with draft trees (DDTree, arXiv 2604.12989).

    Args:
        drafter: a folder or hub id of a DFlash checkpoint, the alias of a shipped pair, or a drafter that is loaded already.
        budget: nodes of the tree besides the root; shorthand for `tree=TreeConfig(budget=budget)`.
        tree: all limits of the tree; the engine's default where neither is given.
        seed: keys the noise of `do_sample=True`; None draws a seed from torch's generator at each call.
        streamer: gets the prompt and every token, as from stock generation; the `streamer` of `generate` serves as well.
        independent_rows: promises, for batches, that logits processors and stopping criteria of your own treat all rows alike and
            remember nothing between calls.

    Raises:
        InvalidInput: for values out of range here, and when `generate` is called for everything that cannot be honoured.
    """
    if budget is not None and tree is not None:
        raise InvalidInput(f"Both budget={budget} and tree={tree} were given; give one of them.")
    if drafter is None:
        raise InvalidInput("ddtree needs a drafter: the folder or hub id of a DFlash checkpoint, or the alias of a shipped pair.")
    if seed is not None:
        SamplingParams(seed=seed)  # checks the range
    if tree is None:
        tree = TreeConfig() if budget is None else TreeConfig(budget=budget)
    return TreeGeneration(drafter, tree, seed, streamer, independent_rows)


@dataclass(frozen=True, eq=False)
class _Request:
    """One call of `generate`, as transformers hands it over."""

    input_ids: Tensor
    processors: Any
    criteria: Any
    config: Any
    seeds: list[int]
    max_new_tokens: int
    ending_ids: frozenset[int]

    @property
    def num_rows(self) -> int:
        return self.input_ids.shape[0]

    def keeps(self, name: str) -> bool:
        """Whether `output_scores` or `output_logits` has an effect."""
        return bool(self.config.return_dict_in_generate and getattr(self.config, name))


class TreeGeneration:
    """Stands in for transformers' decoding loop; see `ddtree`. Keeps its drafter, and so the weights of the last model, between calls.

    Attributes:
        statistics: of each row of the last call, in order.
    """

    def __init__(self, drafter: str | Path | Drafter, tree: TreeConfig, seed: int | None, streamer: Any, independent_rows: bool) -> None:
        self.tree, self.seed, self.streamer, self.independent_rows = tree, seed, streamer, independent_rows
        self.statistics: list[Statistics] = []
        self._source = drafter
        self._loaded: tuple[Target, Drafter] | None = None

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **model_inputs: Any,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """Called by `generate`; `input_ids [B, L]`, the result as from stock generation."""
        frame = inspect.currentframe()
        dropped = dropped_arguments(frame.f_back if frame else None)
        streamer_of_generate = dropped.pop("streamer", None)
        refuse_unsupported(generation_config, model_inputs, dropped)
        streamer = self._pick_streamer(streamer_of_generate, input_ids.shape[0])
        prompts = read_prompts(input_ids, model_inputs.get("attention_mask"), model_inputs.get("position_ids"))
        target = Target(packed_twin(model), None, name_of(model))
        request = self._request(input_ids, logits_processor, stopping_criteria, generation_config)
        loop = DecodingLoop(target, self._drafter(target), self.tree)
        rows, sequences = [], []
        for index, prompt in enumerate(prompts):
            row, sequence = self._sequence(request, index, prompt.token_ids, loop)
            rows.append(row)
            sequences.append(sequence)
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())  # that of `generate` has been given the prompt already
        self._decode(loop, sequences, streamer)
        self.statistics = [sequence.statistics for sequence in sequences]
        return _result(request, rows, sequences)

    def _pick_streamer(self, of_generate: Any, num_rows: int) -> Any:
        if self.streamer is not None and of_generate is not None:
            raise InvalidInput("A streamer was given to ddtree and another to generate; give one.")
        streamer = self.streamer or of_generate
        if streamer is not None and num_rows > 1:
            raise InvalidInput(f"A streamer takes one row and the batch has {num_rows}; stream them one call each.")
        return streamer

    def _request(self, input_ids: Tensor, processors: Any, criteria: Any, config: Any) -> _Request:
        num_rows = input_ids.shape[0]
        lengths = [one.max_length for one in criteria if type(one) is MaxLengthCriteria]
        ends = [one.eos_token_id for one in criteria if type(one) is EosTokenCriteria]
        others = [one for one in criteria if type(one) not in (MaxLengthCriteria, EosTokenCriteria)]
        if others and num_rows > 1 and _pad_token_id(config) is None:
            raise InvalidInput("Rows may end at different lengths and there is no pad_token_id to fill them up with; give one.")
        return _Request(
            input_ids=input_ids,
            processors=processors,
            criteria=criteria_of(others, num_rows, independent_rows=self.independent_rows),
            config=config,
            seeds=self._seeds(num_rows, bool(config.do_sample)),
            max_new_tokens=max(1, min(lengths, default=config.max_length) - input_ids.shape[1]),
            ending_ids=frozenset(token_id for ids in ends for token_id in ids.tolist()),
        )

    def _seeds(self, num_rows: int, do_sample: bool) -> list[int]:
        """One seed per row, so that equal prompts get different samples."""
        if not do_sample:
            return [0] * num_rows
        first = int(torch.randint(MAX_SEED, ())) if self.seed is None else self.seed
        return [(first + row) % (MAX_SEED + 1) for row in range(num_rows)]

    def _drafter(self, target: Target) -> Drafter:
        """The drafter for `target`, loaded at the first call and again whenever another model's embedding or head is to be borrowed."""
        if not isinstance(self._source, (str, Path)):
            return self._source
        if self._loaded is None or not _borrows_from(self._loaded[0], target):
            source = self._source
            if source in SHIPPED and not Path(source).exists():
                source = SHIPPED[str(source)].drafter
            self._loaded = target, load_drafter(source, target)
        return self._loaded[1]

    def _sequence(self, request: _Request, index: int, prompt_ids: list[int], loop: DecodingLoop) -> tuple[Row, Sequence]:
        """One row as the loop's sequence, with a chooser and an end that follow transformers' processors and criteria."""
        row = Row(
            request.input_ids[index : index + 1],
            scores=[] if request.keeps("output_scores") else None,
            logits=[] if request.keeps("output_logits") else None,
        )
        end = RowEnd(row, request.ending_ids, request.criteria, request.max_new_tokens)
        keeps_nothing = row.scores is None and row.logits is None
        filters = plain_filters(request.processors, bool(request.config.do_sample)) if keeps_nothing else None
        shared: dict[str, Any] = {"seed": request.seeds[index], "max_new_tokens": request.max_new_tokens}
        if filters is not None:
            params = SamplingParams(**shared, **filters)
            chooser = Chooser(params)
        else:
            params = SamplingParams(**shared, temperature=1.0 if request.config.do_sample else 0.0)
            processors = processors_of(request.processors, index, request.num_rows, independent_rows=self.independent_rows)
            chooser = ProcessedChooser(params, processors, row, end)
        capacity = len(prompt_ids) + 64
        sequence = Sequence(
            index=index,
            prompt_ids=prompt_ids,
            params=params,
            store=loop.target.new_store(capacity),
            draft_state=loop.drafter.new_state(capacity) if loop.drafter is not None else None,
            chooser=chooser,
            stop_checker=end,
            statistics=Statistics(num_prompt_tokens=len(prompt_ids)),
        )
        return row, sequence

    @staticmethod
    def _decode(loop: DecodingLoop, sequences: list[Sequence], streamer: Any) -> None:
        def show(pieces: list[Piece]) -> None:
            for token_id in (token_id for piece in pieces for token_id in piece.token_ids):
                streamer.put(torch.tensor([token_id]))

        for sequence in sequences:
            piece = loop.prefill(sequence)
            if streamer is not None:
                show([piece])
        while active := [sequence for sequence in sequences if sequence.finish_reason is None]:
            pieces = loop.round(active)
            if streamer is not None:
                show(pieces)
        if streamer is not None:
            streamer.end()


def _borrows_from(old: Target, new: Target) -> bool:
    """Whether a drafter made for `old` serves `new`: the same embedding and head, where and as they were."""
    same_tensors = old.embed.weight is new.embed.weight and getattr(old.head, "weight", None) is getattr(new.head, "weight", None)
    return same_tensors and (old.device, old.dtype) == (new.device, new.dtype)


def _pad_token_id(config: Any) -> int | None:
    """As transformers has it: the pad token, else the first that ends a text."""
    for token in (config.pad_token_id, config.eos_token_id):
        if token is not None:
            return int(torch.as_tensor(token).flatten()[0])
    return None


def _result(request: _Request, rows: list[Row], sequences: list[Sequence]) -> Tensor | GenerateDecoderOnlyOutput:
    output = append_answers(request.input_ids, [sequence.token_ids for sequence in sequences], _pad_token_id(request.config))
    if not request.config.return_dict_in_generate:
        return output
    num_steps = output.shape[1] - request.input_ids.shape[1]
    scores = _steps([row.scores for row in rows], num_steps) if request.keeps("output_scores") else None
    logits = _steps([row.logits for row in rows], num_steps) if request.keeps("output_logits") else None
    return GenerateDecoderOnlyOutput(sequences=output, scores=scores, logits=logits)  # type: ignore[arg-type]


def _steps(kept: list[list[Tensor] | None], num_steps: int) -> tuple[Tensor, ...]:
    """What the rows kept, as one `[B, V]` per step; zeros where a row had ended."""
    rows = [row or [] for row in kept]
    blank = torch.zeros_like(rows[0][0])
    return tuple(torch.stack([row[step] if step < len(row) else blank for row in rows]) for step in range(num_steps))
