"""From one row of logits to one token: filters as in transformers, then argmax of scaled logits plus position-keyed noise.

Shapes: a row is [V] in any float dtype on any device; arithmetic is in float32, or in float64 if the logits are (cumulative
probabilities always are).
Only rows that are asked for are touched. With a filter the row is brought to the host, cut down to a short prefix of its order, and
noise is drawn for the kept ids alone; without one, the whole row gets noise on its own device.

Filters apply in transformers' order: temperature, top_k, top_p, min_p. Each keeps a prefix of the tokens sorted by logit, best first
and lower id first among equals, so what is kept is a function of the logits alone. Ties: top_k keeps all that equal the k-th logit
and min_p all that equal its threshold, as transformers does; top_p stops inside a group of equals, where transformers leaves the
choice to the sort and this module takes the lower ids.

This module applies no penalties and no bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from hoarfrost import kernels
from hoarfrost.errors import ModelFault
from hoarfrost.sampling.noise import gumbel_noise, gumbel_noise_range
from hoarfrost.sampling.params import SamplingParams
from hoarfrost.tree.marginals import top_on_host

Floats = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]

_FIRST_PREFIX = 64
_PREFIX_GROWTH = 8
_NUM_LANES = 32
_MAX_WIDENED = 2**22  # logits in half precision are widened for comparison, so many at a time


class Chooser:
    """Chooses the tokens of one request: a pure function of (params, logits, position), with no state between calls."""

    def __init__(self, params: SamplingParams, eos_token_ids: Iterable[int] = ()) -> None:
        """`eos_token_ids` and the stop ids are banned before `params.min_new_tokens` tokens exist (`SamplingParams.ending_ids`)."""
        self.params = params
        self._suppressed = torch.tensor(sorted(params.ending_ids(eos_token_ids)), dtype=torch.int64)

    def is_greedy(self, num_generated: int) -> bool:
        """Whether `choose` is the plain argmax, from here on: the choices of rows are then `best_rows`."""
        return self.params.is_greedy and not self._suppresses(num_generated)

    def takes_all(self, num_generated: int) -> bool:
        """Whether `choose` is, from here on, the argmax of all logits over the temperature plus their noise."""
        return not self.params.is_greedy and self.params.keeps_all and not self._suppresses(num_generated)

    def choose(self, logits_row: torch.Tensor, position: int, num_generated: int) -> int:
        """The token for absolute `position`, `num_generated` tokens having been generated before it.

        Args:
            logits_row: [V], any float dtype and device; left unchanged.

        Raises:
            ModelFault: the largest logit is NaN or infinite, or every token is banned.
        """
        if self._suppresses(num_generated):
            logits_row = self._without_suppressed(logits_row)
        params = self.params
        if params.is_greedy:
            return choose_greedy_rows(logits_row[None])[0]
        if params.keeps_all:
            return self._choose_of_all(logits_row, position)
        scaled, token_ids = _kept(logits_row, params)
        scores = scaled + gumbel_noise(params.seed, position, torch.from_numpy(token_ids)).numpy()
        return int(token_ids[scores == scores.max()].min())

    def _choose_of_all(self, logits_row: torch.Tensor, position: int) -> int:
        """`choose` without filters, on the row's own device, in the arithmetic of `_scaled`."""
        if kernels.can_read(logits_row[None]):
            _, [[token_id]] = kernels.best_with_noise(logits_row[None], self.params.temperature, self.params.seed, position, 1)
            if token_id < 0:
                raise not_finite()
            return int(token_id)
        values = _widened(logits_row)
        scores = (values - values.max()) / self.params.temperature
        noise = gumbel_noise_range(self.params.seed, position, scores.shape[0], scores.device)
        return choose_greedy_rows(scores.add_(noise)[None])[0]

    def _suppresses(self, num_generated: int) -> bool:
        return num_generated < self.params.min_new_tokens and self._suppressed.numel() > 0

    def _without_suppressed(self, logits_row: torch.Tensor) -> torch.Tensor:
        """A copy of the row in which the suppressed ids cannot be chosen; ids beyond the row have nothing to suppress."""
        token_ids = self._suppressed[self._suppressed < logits_row.shape[0]].to(logits_row.device)
        return logits_row.index_fill(0, token_ids, -math.inf)


class BestTokens(NamedTuple):
    """The likeliest tokens of n rows, best first, the lowest id first among equals: token_ids int64 [n, k]; log_probs float32 [n, k], if
    somebody wants to know them."""

    token_ids: Ids
    log_probs: npt.NDArray[np.float32] | None = None


def choose_greedy_rows(logits: torch.Tensor) -> list[int]:
    """The likeliest token of every row, the lowest id among equals: logits [n, V] -> n ids.

    Raises:
        ModelFault: a row's largest logit is NaN or infinite.
    """
    chosen: list[int] = best_rows(logits).tolist()
    if min(chosen, default=0) < 0:
        raise not_finite()
    return chosen


def best_rows(logits: torch.Tensor) -> Ids:
    """The likeliest token of every row, the lowest id among equals: logits [n, V] -> int64 [n], with one transfer from the device; -1
    where the largest logit is NaN or infinite."""
    if kernels.can_read(logits):
        token_ids = kernels.best_tokens(logits)
    elif logits.device.type == "cpu" and logits.dtype != torch.float64:
        parts = torch.split(logits, max(1, _MAX_WIDENED // logits.shape[1]))
        token_ids = np.concatenate([kernels.best_tokens(part.float()) for part in parts])
    else:
        best = logits.argmax(dim=-1, keepdim=True)  # NaN counts as the largest value, so looking at the winner finds it
        token_ids = torch.where(logits.gather(-1, best).isfinite(), best, -1)[:, 0].cpu().numpy()
    return token_ids


def likeliest_rows(logits: torch.Tensor, k: int) -> BestTokens:
    """The `k` likeliest tokens of every row [n, V], with one transfer from the device; the first one as of `best_rows`."""
    log_probs, token_ids = top_on_host([logits], k)
    if logits.dtype == torch.float64 or not math.isfinite(log_probs[:, 0].sum()):  # float64 may tell apart what float32 does not
        token_ids[:, 0] = best_rows(logits)
    return BestTokens(token_ids, log_probs)


def probabilities(logits_row: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The distribution that `Chooser.choose` samples: logits [V] -> float32 [V] on the same device, 0 where a filter drops a token.

    For tests and tools: it is not on the path of decoding.
    """
    result = np.zeros(logits_row.shape[0], dtype=np.float32)
    if params.is_greedy:
        result[choose_greedy_rows(logits_row[None])[0]] = 1
    else:
        scaled, token_ids = _kept(logits_row, params)
        weights = _weights(scaled)
        result[token_ids] = weights / weights.sum()
    return torch.from_numpy(result).to(logits_row.device)


def _kept(logits_row: torch.Tensor, params: SamplingParams) -> tuple[Floats, Ids]:
    """What the filters keep: (scaled logits, token ids), best first, lower id first among equals."""
    values = _host_values(logits_row)
    if params.top_k is None:
        return _kept_of_prefixes(values, params)
    token_ids = _best(values, params.top_k)
    pool = values[token_ids]
    scaled = _scaled(pool[pool >= pool[: params.top_k][-1]], params.temperature)
    num_kept = _num_kept(scaled, float(_weights(scaled).sum()), params)
    return scaled[:num_kept], token_ids[:num_kept]


def _kept_of_prefixes(values: Floats, params: SamplingParams) -> tuple[Floats, Ids]:
    """`_kept` without top_k: looks at a prefix of the order, and at a longer one until the cut falls inside it.

    The outcome is that of a full sort, because a prefix never ends within a group of equals and the sums run in the same order.
    """
    total_weight = _total_weight(values, params.temperature) if params.top_p < 1 else math.inf
    num_wanted = _FIRST_PREFIX
    while True:
        token_ids = _best(values, num_wanted)
        scaled = _scaled(values[token_ids], params.temperature)
        num_kept = _num_kept(scaled, total_weight, params)
        if num_kept < len(token_ids) or _takes_all(values, num_wanted):
            return scaled[:num_kept], token_ids[:num_kept]
        num_wanted *= _PREFIX_GROWTH


def _num_kept(scaled: Floats, total_weight: float, params: SamplingParams) -> int:
    """How many of a prefix of the order survive top_p and min_p; `total_weight` is that of every token top_p may choose from.

    top_p keeps a token while those before it weigh less than top_p of the total, min_p while it weighs min_p of the best.
    """
    weights = _weights(scaled)
    num_kept = len(weights)
    if params.top_p < 1:
        num_kept = 1 + int(np.searchsorted(np.cumsum(weights[:-1]), params.top_p * total_weight, side="left"))
    return min(num_kept, int(np.count_nonzero(weights >= params.min_p)))


def _best(values: Floats, num_wanted: int) -> Ids:
    """At least the `num_wanted` best token ids, and all that equal the last of them, best first, lower id first among equals.

    Every column of the row folded into lanes has a maximum; at least `num_wanted` values reach the `num_wanted`-th largest of these
    maxima, so only the few that do need sorting. That replaces a partial sort of the row by three vectorised passes.
    """
    floor = np.finfo(values.dtype).min  # leaves out tokens at minus infinity
    if not _takes_all(values, num_wanted):
        num_columns = len(values) // _NUM_LANES
        maxima = values[: num_columns * _NUM_LANES].reshape(_NUM_LANES, num_columns).max(axis=0)
        floor = max(floor, np.partition(maxima, num_columns - num_wanted)[num_columns - num_wanted])
    token_ids = np.flatnonzero(values >= floor)
    return token_ids[np.argsort(-values[token_ids], kind="stable")]


def _takes_all(values: Floats, num_wanted: int) -> bool:
    """Whether so many are wanted that `_best` sorts the whole row."""
    return num_wanted > len(values) // _NUM_LANES


def _host_values(logits_row: torch.Tensor) -> Floats:
    """The row on the host, widened and checked; it may share the row's memory."""
    values: Floats = _widened(logits_row.cpu()).numpy()
    if not math.isfinite(values.max()):
        raise not_finite()
    return values


def _widened(logits: torch.Tensor) -> torch.Tensor:
    """The logits as float32, or float64 where they come in it."""
    return logits.detach() if logits.dtype == torch.float64 else logits.detach().float()


def _scaled(values: Floats, temperature: float) -> Floats:
    """Logits over temperature, less their maximum: the shift changes no choice, and keeps small temperatures from overflowing."""
    with np.errstate(over="ignore"):
        scaled: Floats = (values - values.max()) / temperature
    return scaled


def _weights(scaled: Floats) -> npt.NDArray[np.float64]:
    """Probabilities up to a factor, the best token's being 1."""
    weights: npt.NDArray[np.float64] = np.exp(scaled.astype(np.float64))
    return weights


def _total_weight(values: Floats, temperature: float) -> float:
    """The weight of the whole row; by torch, whose vectorised exponential halves this pass over the vocabulary."""
    row = torch.from_numpy(values)
    return float((row - row.max()).div_(temperature).exp_().sum())


def not_finite() -> ModelFault:
    """What is raised where no token can be chosen."""
    return ModelFault(
        "the largest logit of a row is NaN or infinite, so no token can be chosen; "
        "check the model's weights, try dtype float32, and ban fewer tokens if every token is banned."
    )
