"""The ice cache inside stock transformers:

    cache = IceCache(model.config, budget=256)
    with ice_attention(model):
        model.generate(**inputs, past_key_values=cache, max_new_tokens=100)

Every sequence of the batch has an `IceStore` of its own; padding on the left is left out of it. A pass of several tokens (a prompt, a later
turn, the check of an assisted guess) attends to everything; a pass of one token attends to the budget. Models are changed in nothing but
the name of their attention function, and only inside the `with` block.

transformers shows the attention function no cache and the cache no query: the keys that `IceCache.update` returns carry the cache along.
The registered mask function hands on which columns are padding instead of a mask as wide as the past.

Not served, with a sentence: a model outside the block, or another one than the cache was made for, beam search (its beams would share
pages), models with other than full attention, masks with holes, gradients, attention weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin
from transformers.masking_utils import AttentionMaskInterface

from hoarfrost.cache.ice import IceStore
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.cache.ice_file import StoredContext, save_context
from hoarfrost.errors import InvalidInput
from hoarfrost.target.loading import check_supported

ATTENTION_NAME = "hoarfrost_ice"
NUM_PROBED = 8  # tokens that are computed anew to see whether a file belongs to a model


class IceCache(Cache):
    """A cache of transformers that keeps all keys and values and attends to few of them.

    `IceCache(model.config, budget=256)` takes the settings of `IceConfig` by name, `IceCache(model.config, config)` all at once. One cache
    serves one batch, and goes on with it turn by turn; `reset` makes it empty. Raises `InvalidInput` for models and settings that cannot
    be served.
    """

    def __init__(self, model_config: PreTrainedConfig, config: IceConfig | None = None, **settings: Any) -> None:
        if config is not None and settings:
            raise InvalidInput(f"IceCache takes an IceConfig or single settings ({', '.join(settings)}), not both.")
        text_config = model_config.get_text_config()
        check_supported(text_config, f"This {text_config.model_type!r} model")
        self.config = config or IceConfig(**settings)
        self._shape = _shape_of(text_config)
        super().__init__(layers=[_IceLayer(self, layer) for layer in range(text_config.num_hidden_layers)])
        self.stores: list[IceStore] = []
        self._announced: int | None = None
        self.num_columns = 0
        self._paddings: list[int] = []

    def announce(self, layer: int) -> None:
        """Told that `layer` has new rows, which `attend` is to take in before the next layer has any.

        Raises `InvalidInput` where it did not: the model attended on its own, to nothing but these rows.
        """
        before, self._announced = self._announced, layer
        if before is not None and (layer > 0 or before == len(self.layers) - 1):
            self._announced = None
            raise InvalidInput("The model attends past its IceCache; put the call into a block `with ice_attention(model):`.")

    def check_model(self, model_config: PreTrainedConfig) -> None:
        """Raises `InvalidInput` for a model of another shape than that which the cache was made for."""
        shape = _shape_of(model_config.get_text_config())
        if shape != self._shape:
            raise InvalidInput(
                f"The cache was made for a model of {self._shape} and this one has {shape}; make it with this model's config."
            )

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, scale: float) -> Tensor:
        """Takes in the new rows of one layer, `[B, heads, n, D]`, and returns their attention `[B, n, H, D]`.

        `padding` bool `[B, columns]`: False where a column is padding. The last layer ends the pass: its rows count from then on.
        """
        self._announced = None
        if layer == 0:
            self._begin_pass(key, padding)
        num_rows = key.shape[2]
        out = query.new_zeros(query.shape[0], num_rows, query.shape[1], query.shape[3])
        for index, store in enumerate(self.stores):
            first = self._first_row(index, num_rows)
            if first < num_rows:
                store.append(layer, key[index, :, first:], value[index, :, first:])
                out[index, first:] = store.attend(layer, query[index, :, first:], "causal", scale=scale)
        if layer == len(self.layers) - 1:
            for index, store in enumerate(self.stores):
                store.commit(range(num_rows - self._first_row(index, num_rows)))
            self.num_columns += num_rows
        return out

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last `-tokens_to_remove` columns, as transformers counts them."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes the number of tokens to remove as a negative number, not {tokens_to_remove}.")
        num_columns = max(0, self.num_columns + tokens_to_remove)
        for store, padding in zip(self.stores, self._paddings, strict=True):
            store.truncate(max(0, num_columns - padding))
        self.num_columns = num_columns

    def reset(self) -> None:
        """Forgets everything."""
        self.stores, self._paddings, self.num_columns = [], [], 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        raise InvalidInput("The ice cache does not serve beam search, whose beams would share pages; decode greedily or sample.")

    def batch_repeat_interleave(self, repeats: int) -> None:
        raise InvalidInput("The ice cache cannot be copied within a batch; repeat the prompts before they are read.")

    def batch_select_indices(self, indices: Tensor) -> None:
        raise InvalidInput("The ice cache cannot be copied within a batch; start with the sequences that you want to keep.")

    def bytes_by_tier(self) -> dict[str, int]:
        """The bytes of all sequences; see `IceStore.bytes_by_tier`."""
        each = [store.bytes_by_tier() for store in self.stores]
        return {tier: sum(one[tier] for one in each) for tier in ("hot", "cold", "index")}

    def save(self, path: str | Path, token_ids: Tensor | Sequence[int]) -> None:
        """Saves what was read, of a batch of one, with its tokens; tokens behind the cached ones are left out. See `load`."""
        if len(self.stores) != 1:
            raise InvalidInput(f"This cache holds {len(self.stores)} sequences; one that has read a single sequence can be saved.")
        ids = token_ids.flatten().tolist() if isinstance(token_ids, Tensor) else list(token_ids)
        first = self._paddings[0]
        save_context(path, self.stores[0], ids[first : self.num_columns])

    @classmethod
    def load(cls, path: str | Path, model: PreTrainedModel, config: IceConfig | None = None, **settings: Any) -> tuple[IceCache, Tensor]:
        """A cache from a file that `save` wrote, and its token ids `[1, n]`; ask on with these ids and more behind them.

        Raises `InvalidInput` for a file that is damaged or does not belong to `model`: its shapes are compared, and the keys and values of
        the first tokens are computed anew.
        """
        cache = cls(model.config, config, **settings)
        with StoredContext(path) as context:
            _check_model(context, model)
            cache.stores = [context.load(cache.config, model.device)]
            cache._paddings, cache.num_columns = [0], context.num_rows
            return cache, torch.tensor([context.token_ids], device=model.device)

    def _begin_pass(self, key: Tensor, padding: Tensor | None) -> None:
        batch_size, num_kv_heads, num_rows, head_dim = key.shape
        paddings = [0] * batch_size if padding is None else left_paddings(padding)
        if not self.stores:
            capacity = num_rows + 64
            self.stores = [
                self.config.new_store(len(self.layers), num_kv_heads, head_dim, dtype=key.dtype, device=key.device, capacity=capacity)
                for _ in range(batch_size)
            ]
            self._paddings = paddings
        if batch_size != len(self.stores):
            raise InvalidInput(f"This cache holds {len(self.stores)} sequences and was given {batch_size}; use one cache per batch.")
        if padding is not None and paddings != self._paddings:
            raise InvalidInput(f"The padding changed from {self._paddings} columns to {paddings}; keep the mask of the first turn.")
        for store in self.stores:
            if num_rows == 1 and self.num_columns > 0:
                store.start_decoding()
            else:
                store.continue_prompt()

    def _first_row(self, index: int, num_rows: int) -> int:
        """Which of the new rows of a sequence is the first that is no padding."""
        return min(num_rows, max(0, self._paddings[index] - self.num_columns))


class _IceLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer as transformers sees it: it hands keys and values on, marked with the cache they belong to."""

    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, cache: IceCache, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mark = _Mark(cache, layer)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.is_initialized = True
        self._mark.cache.announce(self._mark.layer)
        marked = key_states.view_as(key_states)
        marked._ice_mark = self._mark  # type: ignore[attr-defined]
        return marked, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, self.get_seq_length()  # of the keys that `update` returns

    def get_seq_length(self) -> int:
        return self._mark.cache.num_columns

    def get_max_length(self) -> int:
        return -1


def _check_model(context: StoredContext, model: PreTrainedModel) -> None:
    """Computes the first tokens anew: whatever else may differ, the file's keys and values must be those that this model gives."""
    if context.num_layers != model.config.get_text_config().num_hidden_layers or context.dtype != model.dtype:
        raise InvalidInput(
            f"{context.path} was saved by a model of {context.num_layers} layers in {context.dtype}; this one has "
            f"{model.config.get_text_config().num_hidden_layers} in {model.dtype}. Load the model that read the context."
        )
    num_probed = min(NUM_PROBED, context.num_rows)
    probe = IceCache(model.config)
    ids = torch.tensor([context.token_ids[:num_probed]], device=model.device)
    with ice_attention(model), torch.no_grad():
        model(ids % model.config.get_text_config().vocab_size, past_key_values=probe)
    tolerance = 1e-3 if context.dtype == torch.float32 else 3e-2
    for layer in range(context.num_layers):
        stored, computed = context.rows(layer, slice(0, num_probed)).float(), probe.stores[0].rows_in_order(layer).float().cpu()
        if stored.shape != computed.shape or (stored - computed).norm() > tolerance * computed.norm():
            raise InvalidInput(f"{context.path} was saved by another model than this one; load the model that read the context.")


class _Mark(NamedTuple):
    cache: IceCache
    layer: int


class _Shape(NamedTuple):
    """What the keys and values of a model look like."""

    num_layers: int
    num_kv_heads: int
    head_dim: int

    def __str__(self) -> str:
        return f"{self.num_layers} layers with {self.num_kv_heads} KV heads of {self.head_dim}"


def _shape_of(config: PreTrainedConfig) -> _Shape:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return _Shape(config.num_hidden_layers, config.num_key_value_heads, head_dim)


def left_paddings(padding: Tensor) -> list[int]:
    """How many columns are padding in each row of a bool mask `[B, columns]`. Raises `InvalidInput` where they are not on the left."""
    seen = padding.bool()
    widths = (~seen).sum(dim=1).tolist()
    for index, width in enumerate(widths):
        if width == seen.shape[1] or not seen[index, width:].all():
            raise InvalidInput(
                f"The attention mask of sequence {index} hides columns other than padding on the left; pad on the left "
                "(tokenizer.padding_side = 'left') and leave no hole."
            )
    return widths


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    output_attentions: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """The registered attention function: `query [B, H, n, D]`, `key` and `value [B, Hkv, n, D]` -> `[B, n, H, D]`."""
    mark: _Mark | None = getattr(key, "_ice_mark", None)
    if mark is None:
        raise InvalidInput("Inside ice_attention the model needs the cache: pass past_key_values=IceCache(model.config, ...).")
    config: Any = module.config
    if mark.layer == 0:
        mark.cache.check_model(config)
    if output_attentions or config.output_attentions:
        raise InvalidInput(
            "The ice cache has no attention weights to give, since it does not look at all rows; leave output_attentions out."
        )
    if torch.is_grad_enabled() and query.requires_grad:
        raise InvalidInput("The ice cache passes no gradients on; call the model in a block `with torch.no_grad():`.")
    if attention_mask is not None and attention_mask.ndim != 2:
        raise InvalidInput(f"The ice cache masks padding only, not a mask of shape {tuple(attention_mask.shape)}; leave it out.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return mark.cache.attend(mark.layer, query, key, value, attention_mask, scale), None


def _padding_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> Tensor | None:
    """The registered mask function: the columns that are no padding, bool `[B, columns]`; causality is the store's business."""
    return attention_mask


@contextmanager
def ice_attention(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Lets `model` attend through an `IceCache` within the block; afterwards it attends as before."""
    AttentionInterface.register(ATTENTION_NAME, _attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _padding_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION_NAME)
    try:
        yield model
    finally:
        model.set_attn_implementation(before)
