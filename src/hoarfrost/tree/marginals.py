"""What a drafter guesses: one distribution per depth, as logits; and the best candidates of each, exactly and reproducibly.

The logits stay as they come, any float dtype on any device: there is never a float32 copy of all of them, and only the few best entries
travel to the host. float32 and bfloat16 on the CPU go through a native one-pass kernel; everything else through the torch operations here:

1. The vocabulary is read in pieces of bounded size; each gives its share of the log-normaliser and the maxima of groups of consecutive
   ids.
2. The k best groups (larger maximum first, then lower index) hold the k best entries: the k maxima beat any entry of another group.
3. The entries of those groups are ranked by one integer made of logit and id, so that equal logits come in the order of their ids; which
   of equal elements `torch.topk` would pick is left open by its documentation.

float64 logits are ranked by their float32 values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hoarfrost import kernels
from hoarfrost.errors import InvalidInput

Top = tuple[NDArray[np.float32], NDArray[np.int64]]

MAX_PIECE_ELEMENTS = 2**21  # 8 MiB of float32


@dataclass(frozen=True, eq=False)
class Marginals:
    """The guesses for one sequence: `logits [L, V]`, row d - 1 for the token d places behind the bonus token.

    Where only a part of the vocabulary can be guessed, V is the size of that part and `token_ids [V]`, rising, its tokens.
    """

    logits: Tensor
    token_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or not self.logits.is_floating_point():
            shape = tuple(self.logits.shape)
            raise InvalidInput(f"The marginals are {self.logits.dtype} of shape {shape}; they must be float logits [L, V].")

        if self.token_ids is not None and self.token_ids.shape != self.logits.shape[1:]:
            raise InvalidInput(f"There are {len(self.token_ids)} token ids for {self.logits.shape[1]} columns of logits; each needs one.")

    @property
    def horizon(self) -> int:
        return self.logits.shape[0]

    @property
    def vocab_size(self) -> int:
        return self.logits.shape[1]

    def within(self, horizon: int) -> Marginals:
        """The first `horizon` depths."""
        return Marginals(self.logits[:horizon], self.token_ids)

    def by_token_id(self) -> Tensor:
        """The logits with a column for every token id up to the largest that can be guessed, -inf for those that cannot."""
        if self.token_ids is None:
            return self.logits
        spread = self.logits.new_full((self.horizon, int(self.token_ids[-1]) + 1), -torch.inf)
        return spread.index_copy_(1, torch.from_numpy(self.token_ids).to(spread.device), self.logits)

    def top(self, k: int) -> Top:
        """The best min(k, V) candidates of each depth: log_probs float32 [L, k], token_ids int64 [L, k]; see `top_of`."""
        log_probs, token_ids = top_of([self], k)
        return log_probs[0], token_ids[0]


def top_of(marginals: Sequence[Marginals], k: int) -> Top:
    """The best candidates of a batch, with one transfer from the device.

    Exact log-softmax values, best first, the lower token id first among equal logits, on every device and dtype.

    Args:
        marginals: S of them over one vocabulary, on one device.
        k: candidates per depth, 1 or more; more than the vocabulary has are not there.

    Returns:
        log_probs float32 [S, L, min(k, V)] and token_ids int64 of the same shape, L the longest horizon; shorter ones are filled up with
        -inf and id 0.

    Raises:
        InvalidInput: for k < 1, different vocabularies, or logits that hold NaN or +inf.
    """
    vocab_size = marginals[0].vocab_size
    if any(one.vocab_size != vocab_size for one in marginals):
        raise InvalidInput(f"Marginals over vocabularies of {sorted({one.vocab_size for one in marginals})} tokens cannot share a batch.")
    token_ids_of_columns = marginals[0].token_ids
    if any(one.token_ids is not token_ids_of_columns for one in marginals):
        raise InvalidInput("Marginals over different parts of the vocabulary cannot share a batch.")
    if k < 1:
        raise InvalidInput(f"k is {k}; ask for 1 candidate or more.")
    log_probs, token_ids = top_on_host([one.logits for one in marginals], min(k, vocab_size))
    if np.isnan(log_probs[:, 0]).any():
        raise InvalidInput("The logits hold NaN or +inf; check the model's weights, or load it in a wider dtype.")
    if token_ids_of_columns is not None:
        token_ids = token_ids_of_columns[token_ids]
    return _by_sequence(log_probs, token_ids, [one.horizon for one in marginals])


def top_on_host(parts: list[Tensor], k: int) -> Top:
    """As `top_of`, of the n rows of all `parts [n_i, V]`: log_probs float32 and token_ids int64 `[n, k]`, k at most V.

    A row that holds NaN or +inf gives NaN.
    """
    if not all(kernels.can_read(part) for part in parts):
        return _to_host(*_top_rows(parts, k))
    tops = [kernels.top_log_probs(part, k) for part in parts]
    return tops[0] if len(tops) == 1 else (np.concatenate([top[0] for top in tops]), np.concatenate([top[1] for top in tops]))


def top_rows(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `top_of`, of rows `logits [n, V]`: log_probs float32 and token_ids int64 `[n, k]`, k at most V, left where the logits are.

    A row that holds NaN or +inf gives NaN.
    """
    if kernels.can_read(logits):
        log_probs, token_ids = kernels.top_log_probs(logits, k)
        return torch.from_numpy(log_probs), torch.from_numpy(token_ids)
    return _top_rows([logits], k)


def _by_sequence(log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], horizons: list[int]) -> Top:
    """Splits the rows `[sum of horizons, k]` into sequences `[S, longest horizon, k]`."""
    shape = (len(horizons), max(horizons), log_probs.shape[1])
    if min(horizons) == max(horizons):
        return log_probs.reshape(shape), token_ids.reshape(shape)
    padded_log_probs, padded_token_ids = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
    end = 0
    for index, horizon in enumerate(horizons):
        start, end = end, end + horizon
        padded_log_probs[index, :horizon] = log_probs[start:end]
        padded_token_ids[index, :horizon] = token_ids[start:end]
    return padded_log_probs, padded_token_ids


def _top_rows(parts: list[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """log_probs and token_ids `[n, k]` of the n rows of all `parts [n_i, V]`, by torch operations on their device."""
    vocab_size = parts[0].shape[1]
    group_size = 2 ** round(math.log2(vocab_size / k) / 2)
    group_maxima, maxima, log_sums = _summarise(parts, group_size)
    groups = _best_by_key(_rank_keys(group_maxima, torch.arange(group_maxima.shape[1], device=group_maxima.device)), k)[1]
    ids = (groups.unsqueeze(2) * group_size + torch.arange(group_size, device=groups.device)).flatten(1)
    per_part = ids.clamp(max=vocab_size - 1).split([part.shape[0] for part in parts])
    logits = torch.cat([part.gather(1, indices) for part, indices in zip(parts, per_part, strict=True)]).float()
    keys = _rank_keys(logits, ids).masked_fill(ids >= vocab_size, torch.iinfo(torch.int64).min)
    best_logits, best_ids = _best_by_key(keys, k)
    return best_logits - maxima.unsqueeze(1) - log_sums.unsqueeze(1), best_ids


def _to_host(log_probs: Tensor, token_ids: Tensor) -> Top:
    """Both in one transfer."""
    packed = torch.stack((log_probs.view(torch.int32), token_ids.to(torch.int32))).cpu().numpy()
    return packed[0].view(np.float32), packed[1].astype(np.int64)


def _summarise(parts: list[Tensor], group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """One reading of all logits: the maxima of groups of ids, float32 [n, ceil(V / group_size)]; the row maxima, float32 [n], and the
    logarithms of the sums of exponentials relative to them, float32 [n]: apart, large logits cost no accuracy."""
    vocab_size, num_rows = parts[0].shape[1], sum(part.shape[0] for part in parts)
    piece_size = max(1, MAX_PIECE_ELEMENTS // max(1, num_rows * group_size)) * group_size
    group_maxima, piece_maxima, piece_sums = [], [], []
    for start in range(0, vocab_size, piece_size):
        pieces = [part[:, start : start + piece_size] for part in parts]
        piece = (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).float()
        padded = functional.pad(piece, (0, -piece.shape[1] % group_size), value=-torch.inf)
        group_maxima.append(padded.view(num_rows, padded.shape[1] // group_size, group_size).amax(dim=2))
        piece_maxima.append(group_maxima[-1].amax(dim=1).clamp(min=torch.finfo(torch.float32).min))  # -inf less -inf would be NaN
        piece_sums.append((piece - piece_maxima[-1].unsqueeze(1)).exp_().sum(dim=1))
    maxima = torch.stack(piece_maxima).amax(dim=0)
    sums = (torch.stack(piece_sums) * (torch.stack(piece_maxima) - maxima).exp_()).sum(dim=0)
    return torch.cat(group_maxima, dim=1), maxima, sums.clamp(min=1.0).log()  # below 1 only where all is -inf


def _rank_keys(logits: Tensor, indices: Tensor) -> Tensor:
    """int64 keys whose falling order is that of falling logits, then rising indices: the float's ordered bits above, the index below."""
    bits = (logits + 0.0).view(torch.int32)  # -0 and +0 are equal logits
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(torch.int64) << 32) + (0xFFFFFFFF - indices)


def _best_by_key(keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The logits and indices `[n, min(k, columns)]` that the largest of `keys [n, columns]` were made of, best first."""
    best = keys.topk(min(k, keys.shape[1]), dim=1).values
    ordered = (best >> 32).to(torch.int32)
    logits = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return logits, 0xFFFFFFFF - (best & 0xFFFFFFFF)
