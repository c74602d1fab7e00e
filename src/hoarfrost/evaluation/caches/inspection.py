"""What single queries fetched from an ice store: pages, rows and their text, per layer and KV head.

The prompt is read exactly up to the question's last token. That token and all behind it are decoded through the store: the end of the chat
template, then the answer. Looked at are the query of the question's last token and those that choose the first tokens of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoarfrost.cache.ice import IceStore
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.runner import PromptRows, read_prompt, step
from hoarfrost.evaluation.caches.variants import MEANING
from hoarfrost.evaluation.caches.watch import ShowsSelection, WatchedStore, measure_selection
from hoarfrost.evaluation.common.machine import describe_run

if TYPE_CHECKING:
    from hoarfrost.engine import Engine

NUM_TOP = 8  # rows named per head, and per token
SNIPPET_TOKENS = 4  # on either side of a row


@dataclass(frozen=True)
class FetchedRow:
    """A row with its text, and its share of the attention to all earlier rows; `num_heads` KV heads of all layers fetched it."""

    position: int
    share: float
    num_heads: int
    text: str


@dataclass(frozen=True)
class HeadFetch:
    """What one KV head fetched: `pages`, best first, as positions; `None` if it read everything.

    `num_rows` counts the rows of the pages, `num_read` those with sinks and window. `mass`, `best_mass` and `recall` are `watch`'s;
    `top` are the fetched rows with most attention.
    """

    layer: int
    head: int
    pages: list[list[int]] | None
    num_rows: int
    num_read: int
    mass: float
    best_mass: float
    recall: float
    top: list[FetchedRow]


@dataclass(frozen=True)
class QueryFetch:
    """What the query of one token fetched in every layer and head; `chosen` is the token that the model says behind it.

    `top`: the rows that most heads fetched, those next to a better one left out; their share is the mean over all heads.
    """

    position: int
    token: str
    chosen: str
    heads: list[HeadFetch]
    top: list[FetchedRow]


class FetchLog(WatchedStore):
    """Notes what every decoded token fetched: per layer the attention `[Hkv, T]`, the rows read and the pages."""

    def __init__(self, store: IceStore, rows: PromptRows) -> None:
        super().__init__(store, rows, every=1)
        self._ice = store
        self.seen: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def look(self, layer: int, attention: Tensor, store: ShowsSelection) -> None:
        pages = self._ice.selected_pages(layer)
        if layer == 0:
            self.seen = []
        self.seen.append((attention, store.selected_rows(layer)[:, -1], None if pages is None else pages[:, -1]))


@torch.inference_mode()
def inspect_prompt(engine: Engine, prompt_ids: Sequence[int], num_closing: int, config: IceConfig, num_new_tokens: int) -> list[QueryFetch]:
    """Looks at the question's last token, which has `num_closing` tokens of `prompt_ids` behind it, and at `num_new_tokens` of the answer.

    Raises `InvalidInput` where there is nothing to look at or no room to decode.
    """
    target = engine.target
    first, last = len(prompt_ids) - num_closing - 1, len(prompt_ids) - 1
    if first < 1:
        raise InvalidInput("The prompt is one token long, so there is nothing to fetch; give a longer one, with --prompt-file FILE.")
    if num_new_tokens < 0 or len(prompt_ids) + num_new_tokens > target.max_positions:
        raise InvalidInput(
            f"{num_new_tokens} new tokens do not go with a prompt of {len(prompt_ids)} and a context of {target.max_positions}; "
            f"give 0 to {max(0, target.max_positions - len(prompt_ids))}, or a shorter prompt."
        )
    rows, _ = read_prompt(target, prompt_ids[:first])
    store = target.new_store(len(prompt_ids) + num_new_tokens, config)
    assert isinstance(store, IceStore)
    rows.fill(store)
    log, token_ids, fetches = FetchLog(store, rows), list(prompt_ids), []
    for position in range(first, max(first + 1, last + num_new_tokens)):
        chosen = int(step(target, [log], [token_ids[position]]).argmax())
        if position == first or position >= last:
            fetches.append(_query_fetch(log, token_ids[: position + 1], chosen, engine.tokenizer.decode))
        if position == len(token_ids) - 1:
            token_ids.append(chosen)
            if chosen in target.eos_token_ids:
                break
    return fetches


def closing_length(prompt_ids: Sequence[int], other_ids: Sequence[int]) -> int:
    """How many tokens a template puts behind a prompt, from two prompts that end differently."""
    length = 0
    while length < min(len(prompt_ids), len(other_ids)) and prompt_ids[-1 - length] == other_ids[-1 - length]:
        length += 1
    return length


def _query_fetch(log: FetchLog, token_ids: Sequence[int], chosen: int, decode: Callable[[Sequence[int]], str]) -> QueryFetch:
    fetched = torch.stack([_fetched(pages, selected) for _, selected, pages in log.seen])
    attention = torch.stack([one / one.sum(dim=1, keepdim=True) for one, _, _ in log.seen]).cpu()
    num_heads = fetched.sum(dim=(0, 1))

    def describe(position: int, share: float) -> FetchedRow:
        return FetchedRow(position, share, int(num_heads[position]), snippet(token_ids, position, decode))

    heads = []
    for layer, (of_layer, selected, pages) in enumerate(log.seen):
        for head, (mass, best_mass, recall) in enumerate(measure_selection(of_layer, selected).T.tolist()):
            shares = attention[layer, head] * fetched[layer, head]
            top = shares.topk(min(NUM_TOP, int(fetched[layer, head].sum())))
            heads.append(
                HeadFetch(
                    layer=layer,
                    head=head,
                    pages=None if pages is None else [page for page in map(_positions, pages[head]) if page],
                    num_rows=0 if pages is None else int(fetched[layer, head].sum()),
                    num_read=int(selected[head].sum()),
                    mass=mass,
                    best_mass=best_mass,
                    recall=recall,
                    top=[describe(*pair) for pair in zip(top.indices.tolist(), top.values.tolist(), strict=True)],
                )
            )
    top_rows = [describe(position, float(attention[:, :, position].mean())) for position in _spread(num_heads, attention.mean(dim=(0, 1)))]
    return QueryFetch(len(token_ids) - 1, decode(token_ids[-1:]), decode([chosen]), heads, top_rows)


def _fetched(pages: Tensor | None, selected: Tensor) -> Tensor:
    """Which rows came in pages, bool `[Hkv, T]`; where everything is read, all of them."""
    if pages is None:
        return selected.cpu()
    fetched = torch.zeros((len(pages), selected.shape[1] + 1), dtype=torch.bool)
    return fetched.scatter_(1, torch.where(pages >= 0, pages, selected.shape[1]).flatten(1), True)[:, :-1]


def _positions(page: Tensor) -> list[int]:
    return sorted(page[page >= 0].tolist())


def _spread(num_heads: Tensor, attention: Tensor) -> list[int]:
    """Up to `NUM_TOP` rows that most heads fetched, at equal count those with more attention, none within another's snippet."""
    order = (num_heads + attention / (attention.max() + 1e-9) / 2).argsort(descending=True)
    chosen: list[int] = []
    for position in order[: int((num_heads > 0).sum())].tolist():
        if all(abs(position - other) > SNIPPET_TOKENS for other in chosen):
            chosen.append(position)
        if len(chosen) == NUM_TOP:
            break
    return chosen


def snippet(token_ids: Sequence[int], position: int, decode: Callable[[Sequence[int]], str]) -> str:
    """The text around a token, which stands between guillemets; in one line."""
    before, after = token_ids[max(0, position - SNIPPET_TOKENS) : position], token_ids[position + 1 : position + 1 + SNIPPET_TOKENS]
    return " ".join(f"{decode(before)}«{decode([token_ids[position]])}»{decode(after)}".split())


def make_result(engine: Engine, config: IceConfig, num_prompt_tokens: int, fetches: Sequence[QueryFetch]) -> dict[str, Any]:
    """The result file's content: the header, `records` with everything that was fetched, `summary` with the means of each query."""
    settings = {**asdict(config), "num_prompt_tokens": num_prompt_tokens, **MEANING}
    header = describe_run(settings, evaluation="inspection", target=engine.target)
    return {**header, "records": [asdict(fetch) for fetch in fetches], "summary": [_means(fetch) for fetch in fetches]}


def _means(fetch: QueryFetch) -> dict[str, Any]:
    names = ("num_rows", "mass", "best_mass", "recall")
    means = {name: sum(getattr(head, name) for head in fetch.heads) / len(fetch.heads) for name in names}
    return {"position": fetch.position, "token": fetch.token, "chosen": fetch.chosen, **means}
