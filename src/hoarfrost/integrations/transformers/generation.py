"""`model.generate(**inputs, custom_generate=ddtree(drafter))`: draft trees on a stock model, the one engine behind it.

transformers prepares what it always does (generation config, logits processors, stopping criteria) and calls the object in place of its
own loop. The rows of the batch become requests of an engine over a twin of the model, which stays untouched; the answers go back in
transformers' form. docs/transformers.md lists what is honoured, what differs and what is refused.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import EosTokenCriteria, MaxLengthCriteria, PreTrainedModel
from transformers.generation.utils import GenerateDecoderOnlyOutput

from hoarfrost.drafting import Drafter, load_drafter
from hoarfrost.engine import Engine, Limits, Request, Statistics
from hoarfrost.engine.guessing import Guesser
from hoarfrost.errors import InvalidInput
from hoarfrost.integrations.transformers.processors import criteria_of, processors_of
from hoarfrost.integrations.transformers.prompts import read_prompts
from hoarfrost.integrations.transformers.results import as_output, pad_token_id
from hoarfrost.integrations.transformers.rows import ProcessedChooser, Row, RowEnd
from hoarfrost.integrations.transformers.settings import dropped_arguments, plain_filters, refuse_unsupported
from hoarfrost.models import SHIPPED, drafter_of
from hoarfrost.sampling import Chooser, SamplingParams
from hoarfrost.sampling.params import MAX_SEED
from hoarfrost.target import Target
from hoarfrost.target.twin import name_of, packed_twin
from hoarfrost.tree import TreeConfig


def ddtree(
    drafter: str | Path | Drafter | None,
    *,
    budget: int | Literal["auto"] | None = None,
    tree: TreeConfig | None = None,
    seed: int | None = None,
    streamer: Any = None,
    independent_rows: bool = False,
) -> TreeGeneration:
    """What `generate(custom_generate=...)` takes to decode with draft trees (DDTree, arXiv 2604.12989).

    Args:
        drafter: a folder or hub id of a DFlash checkpoint, an alias, or a drafter that is loaded already. With
            None, the text so far is the only source of guesses.
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
    if seed is not None:
        SamplingParams(seed=seed)  # checks the range
    if tree is None:
        tree = TreeConfig() if budget is None else TreeConfig(budget=budget)
    if drafter is None and tree.budget and not tree.retrieval:
        raise InvalidInput(f"A tree budget of {tree.budget} needs a drafter or retrieval, and there is neither; use a budget of 0.")
    return TreeGeneration(drafter, tree, seed, streamer, independent_rows)


@dataclass(frozen=True, eq=False)
class _Call:
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


class TreeGeneration:
    """Stands in for transformers' decoding loop; see `ddtree`. Keeps its drafter, and so the weights of the last model, between calls.

    Attributes:
        statistics: of each row of the last call, in order.
    """

    def __init__(
        self, drafter: str | Path | Drafter | None, tree: TreeConfig, seed: int | None, streamer: Any, independent_rows: bool
    ) -> None:
        self.tree, self.seed, self.streamer, self.independent_rows = tree, seed, streamer, independent_rows
        self.statistics: list[Statistics] = []
        self._source = drafter
        self._guesser: Guesser | None = None

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
        call = self._read_call(input_ids, logits_processor, stopping_criteria, generation_config)
        guesser = self._guesser_for(target)
        engine = Engine(target, guesser.drafter, self.tree, limits=Limits(prefix_bytes=0))
        engine.guesser = guesser
        rows = [self._add(engine, call, index, prompt_ids) for index, prompt_ids in enumerate(prompts)]
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())  # that of `generate` has been given the prompt already
        answers, self.statistics = _decode(engine, len(rows), streamer)
        return as_output(input_ids, rows, answers, generation_config)

    def _pick_streamer(self, of_generate: Any, num_rows: int) -> Any:
        if self.streamer is not None and of_generate is not None:
            raise InvalidInput("A streamer was given to ddtree and another to generate; give one.")
        streamer = self.streamer or of_generate
        if streamer is not None and num_rows > 1:
            raise InvalidInput(f"A streamer takes one row and the batch has {num_rows}; stream them one call each.")
        return streamer

    def _read_call(self, input_ids: Tensor, processors: Any, criteria: Any, config: Any) -> _Call:
        num_rows = input_ids.shape[0]
        lengths = [one.max_length for one in criteria if type(one) is MaxLengthCriteria]
        ends = [one.eos_token_id for one in criteria if type(one) is EosTokenCriteria]
        others = [one for one in criteria if type(one) not in (MaxLengthCriteria, EosTokenCriteria)]
        if others and num_rows > 1 and pad_token_id(config) is None:
            raise InvalidInput("Rows may end at different lengths and there is no pad_token_id to fill them up with; give one.")
        return _Call(
            input_ids=input_ids,
            processors=processors,
            criteria=criteria_of(others, num_rows, independent_rows=self.independent_rows),
            config=config,
            seeds=self._seeds(num_rows, bool(config.do_sample)),
            max_new_tokens=max(1, min(lengths, default=config.max_length) - input_ids.shape[1]),
            ending_ids=frozenset(token_id for ids in ends for token_id in ids.flatten().tolist()),
        )

    def _seeds(self, num_rows: int, do_sample: bool) -> list[int]:
        """One seed per row, so that equal prompts get different samples."""
        if not do_sample:
            return [0] * num_rows
        first = int(torch.randint(MAX_SEED, ())) if self.seed is None else self.seed
        return [(first + row) % (MAX_SEED + 1) for row in range(num_rows)]

    def _guesser_for(self, target: Target) -> Guesser:
        """The guesser for the model behind `target`, this call's twin. It is kept, with its drafter and all it has learnt, for as long as
        calls come for that model: the drafter borrows its embedding and head."""
        if self._guesser is None or not _is_same_model(self._guesser.target, target):
            self._guesser = Guesser(target, self._load_drafter(target))
        self._guesser.target = target
        return self._guesser

    def _load_drafter(self, target: Target) -> Drafter | None:
        source = self._source
        if isinstance(source, (str, Path)):
            folder: str | Path | None = drafter_of(str(source)) if str(source) in SHIPPED else source
            return None if folder is None else load_drafter(folder, target)
        deepest = max(source.taps, default=0) if source is not None else 0
        if source is not None and deepest >= target.num_layers:
            raise InvalidInput(f"The drafter {source.name} reads layer {deepest} and {target.name} has {target.num_layers} layers.")
        return source

    def _add(self, engine: Engine, call: _Call, index: int, prompt_ids: list[int]) -> Row:
        """One row as a request of the engine, with a chooser and an end that follow transformers' processors and criteria."""
        config = call.config
        row = Row(
            call.input_ids[index : index + 1],
            keeps_scores=bool(config.return_dict_in_generate and config.output_scores),
            keeps_logits=bool(config.return_dict_in_generate and config.output_logits),
        )
        end = RowEnd(row, call.ending_ids, call.criteria, call.max_new_tokens)
        filters = None if row.keeps_any else plain_filters(call.processors, bool(config.do_sample))
        shared: dict[str, Any] = {"seed": call.seeds[index], "max_new_tokens": call.max_new_tokens}
        if filters is not None:
            params = SamplingParams(**shared, **filters)
            chooser = Chooser(params)
        else:
            params = SamplingParams(**shared, temperature=1.0 if config.do_sample else 0.0)
            processors = processors_of(call.processors, index, call.num_rows, independent_rows=self.independent_rows)
            chooser = ProcessedChooser(params, processors, row, end)
        engine.add(Request(prompt_ids, params), chooser=chooser, stop_checker=end)
        return row


def _decode(engine: Engine, num_rows: int, streamer: Any) -> tuple[list[list[int]], list[Statistics]]:
    """Steps until all rows are at their ends: their tokens and statistics, in the order in which they were added. What fails is raised."""
    answers: dict[int, list[int]] = {}
    statistics: dict[int, Statistics] = {}
    while len(statistics) < num_rows:
        for request_id, piece in engine.step():
            if piece.error is not None:
                raise piece.error.__cause__ or piece.error
            answers.setdefault(request_id, []).extend(piece.token_ids)
            if piece.statistics is not None:
                statistics[request_id] = piece.statistics
            if streamer is not None:
                for token_id in piece.token_ids:
                    streamer.put(torch.tensor([token_id]))
    if streamer is not None:
        streamer.end()
    return [answers[one] for one in sorted(answers)], [statistics[one] for one in sorted(statistics)]


def _is_same_model(old: Target, new: Target) -> bool:
    """Whether two twins are of one model, whose embedding and head are where and as they were."""
    same_tensors = old.embed.weight is new.embed.weight and getattr(old.head, "weight", None) is getattr(new.head, "weight", None)
    return same_tensors and (old.device, old.dtype) == (new.device, new.dtype)
