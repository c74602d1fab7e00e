"""Logits processors and stopping criteria of a batch, one row's share at a time.

In stock generation the rows are in step and a processor sees them all at once. Here each row goes ahead as far as its own tree reaches, so
processors are called with one row, `[1, length]`. Those of transformers that hold something per row are cut to that row. One that is not
transformers' own might know its rows apart or remember its last call: for more than one row it is refused, unless the caller promises that
it does neither.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.generation import logits_process, stopping_criteria

from hoarfrost.errors import InvalidInput

_WITHOUT_ROWS = {
    *(
        getattr(logits_process, name)
        for name in (
            "EpsilonLogitsWarper", "EtaLogitsWarper", "ExponentialDecayLengthPenalty", "ForcedBOSTokenLogitsProcessor",
            "ForcedEOSTokenLogitsProcessor", "InfNanRemoveLogitsProcessor", "LogitNormalization", "MinLengthLogitsProcessor",
            "MinNewTokensLengthLogitsProcessor", "MinPLogitsWarper", "NoBadWordsLogitsProcessor", "NoRepeatNGramLogitsProcessor",
            "SequenceBiasLogitsProcessor", "SuppressTokensAtBeginLogitsProcessor", "SuppressTokensLogitsProcessor",
            "TemperatureLogitsWarper", "TopHLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper", "TypicalLogitsWarper",
            "WatermarkLogitsProcessor",
        )
    ),
    *(getattr(stopping_criteria, name) for name in ("MaxTimeCriteria", "StopStringCriteria")),
}  # fmt: skip


def processors_of(processors: Iterable[Any], row: int, num_rows: int, *, independent_rows: bool) -> LogitsProcessorList:
    """The processors for row `row` of `num_rows`. Raises `InvalidInput` for those that cannot be told apart by rows."""
    return LogitsProcessorList(_share_of(one, row, num_rows, independent_rows) for one in processors)


def criteria_of(criteria: Iterable[Any], num_rows: int, *, independent_rows: bool) -> StoppingCriteriaList:
    """The criteria for any one of `num_rows` rows. Raises `InvalidInput` for those that cannot be told apart by rows."""
    return StoppingCriteriaList(_share_of(one, 0, num_rows, independent_rows) for one in criteria)


def _share_of(processor: Any, row: int, num_rows: int, independent_rows: bool) -> Any:
    kind = type(processor)
    if num_rows == 1 or kind in _WITHOUT_ROWS:
        return processor
    if kind in _CUTS:
        share = copy.copy(processor)
        _CUTS[kind](share, row, num_rows)
        return share
    if independent_rows:
        return processor
    raise InvalidInput(
        f"{kind.__name__} would be called with one of the {num_rows} rows at a time, for rows are not in step under ddtree. If it treats "
        "all rows alike and remembers nothing between calls, say so with ddtree(..., independent_rows=True); if not, generate row by row."
    )


def _cut_repetition_penalty(share: Any, row: int, num_rows: int) -> None:
    if isinstance(share.prompt_ignore_length, Tensor):
        share.prompt_ignore_length = share.prompt_ignore_length[row : row + 1]


def _cut_encoder_ids(share: Any, row: int, num_rows: int) -> None:
    prompt = row * len(share.encoder_input_ids) // num_rows
    share.encoder_input_ids = share.encoder_input_ids[prompt : prompt + 1]


def _cut_encoder_ngrams(share: Any, row: int, num_rows: int) -> None:
    share.generated_ngrams = [share.generated_ngrams[row * share.batch_size // num_rows]]
    share.batch_size = 1


def _cut_prefix_constraint(share: Any, row: int, num_rows: int) -> None:
    share._prefix_allowed_tokens_fn = partial(_call_for_row, share._prefix_allowed_tokens_fn, row)


def _call_for_row(allowed_tokens: Any, row: int, _: int, ids: Tensor) -> Any:
    return allowed_tokens(row, ids)


_CUTS = {
    logits_process.RepetitionPenaltyLogitsProcessor: _cut_repetition_penalty,
    logits_process.EncoderRepetitionPenaltyLogitsProcessor: _cut_encoder_ids,
    logits_process.EncoderNoRepeatNGramLogitsProcessor: _cut_encoder_ngrams,
    logits_process.PrefixConstrainedLogitsProcessor: _cut_prefix_constraint,
}
