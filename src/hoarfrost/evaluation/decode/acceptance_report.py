"""The tables of a drafter's inspection, and what its figures suggest: a hint is given only where they support it, with the number.

From the result's JSON alone. `held_out`, where it is known, is what the drafter's training run wrote last of answers held back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hoarfrost.evaluation.common.tables import Report, Result, TextTable, percent
from hoarfrost.evaluation.decode.report import conditions

MIN_ROUNDS = 100  # judged, before a share means anything
FAR_BELOW = 0.8  # of the held-out share: with so many rounds, some three standard errors
MANY_UNGUESSABLE, MANY_NEAR_MISSES = 0.05, 0.15

Row = Mapping[str, Any]

MEANING = (
    "Of the rounds with drafter that came to a depth: spine: the right token was in the tree and the drafter's likeliest behind its "
    "parent; off spine: in the tree as another of its candidates; retrieved: as none of them. Of all rounds with drafter, whatever became "
    "of the tokens before: likeliest: the right token was the drafter's first; candidate: it was among those of the slot"
)


def report_acceptance(result: Result) -> Report:
    held_out, settings = result.get("held_out"), result["settings"]
    has_vocabulary = settings["draft_vocab_size"] is not None
    meaning = MEANING + ("; guessable: it is in the drafter's vocabulary." if has_vocabulary else ".")
    if held_out is None:
        meaning += " No held-out figures are beside the drafter."
    tables = [_depth_table(result, held_out, has_vocabulary), _tau_table(result, held_out)]
    return Report(tables, [f"{meaning} {conditions(result)}", *hints(result)])


def _depth_table(result: Result, held_out: Row | None, has_vocabulary: bool) -> TextTable:
    """A row per temperature and depth, with a column for the held-out accuracy and for what can be guessed, where there is any."""
    held = [] if held_out is None else held_out["accuracy_per_slot"]
    rows = []
    for one in result["acceptance"]:
        for row in one["depths"]:
            cells = [f"{one['temperature']:g}", str(row["depth"]), str(row["reached"])]
            cells += [_share(row, name, "reached") for name in ("spine", "off_spine", "retrieved")]
            cells.append(_share(row, "likeliest", "guessed"))
            if held:
                cells.append(percent(held[row["depth"] - 1]))
            cells += [_share(row, name, "judged") for name in ("among", *(("guessable",) if has_vocabulary else ()))]
            rows.append(tuple(cells))
    optional = (("held out",) if held else ()), (("guessable",) if has_vocabulary else ())
    header = ("T", "depth", "rounds", "spine", "off spine", "retrieved", "likeliest", *optional[0], "candidate", *optional[1])
    return TextTable("Right tokens by depth, in %", header, 2, tuple(rows))


def _tau_table(result: Result, held_out: Row | None) -> TextTable:
    """Tokens per round: a round's own token, and those of either source that were accepted."""
    rows = []
    for one in result["acceptance"]:
        num_rounds, num_drafted = max(1, one["num_rounds"]), max(1, one["num_drafted"])
        sources = (f"{one[name] / num_rounds:.2f}" for name in ("num_from_drafter", "num_from_retrieval"))
        held = [] if held_out is None else [f"{held_out['expected_tokens_per_round']:.2f}"]
        taus = (f"{one['chain_tau']:.2f}", *held, f"{one['tree_tau']:.2f}", *sources)
        rows.append((f"{one['temperature']:g}", *taus, percent(one["num_drafted"] / num_rounds), f"{one['num_nodes'] / num_drafted:.1f}"))
    held_name = [] if held_out is None else ["held out"]
    header = ("T", "chain", *held_name, f"tree {_budget(result)}", "of drafter", "of retrieval", "% drafted", "nodes")
    return TextTable("Tokens per round (tau)", header, 1, tuple(rows), sections=False)


def hints(result: Result) -> list[str]:
    """What to look at first, a sentence each."""
    found = []
    for one in result["acceptance"]:
        place = f"At temperature {one['temperature']:g} " if len(result["acceptance"]) > 1 else "Here "
        found += [place + hint for hint in _hints(result, one)]
    return found


def _hints(result: Result, one: Row) -> Iterator[str]:
    settings, depths, held_out = result["settings"], one["depths"], result.get("held_out")
    first = depths[0]
    if first["judged"] < MIN_ROUNDS:
        return
    if held_out is not None and first["likeliest"] / first["guessed"] < FAR_BELOW * held_out["accuracy_per_slot"][0]:
        quantised = "" if settings["weights"] == "float" else f", which is quantised here ({settings['weights']})"
        yield (
            f"the drafter's first guess is right in {_share(first, 'likeliest', 'guessed')} % of the rounds, and was in "
            f"{percent(held_out['accuracy_per_slot'][0])} % of those held out: look whether it was trained with another chat template or "
            f"thinking mode, on other kinds of prompts, or for another state of the target{quantised}, a fine-tuned one for example."
        )
    num_judged = sum(row["judged"] for row in depths)
    unguessable = 1 - sum(row["guessable"] for row in depths) / num_judged
    if settings["draft_vocab_size"] is not None and unguessable > MANY_UNGUESSABLE:
        yield (
            f"{percent(unguessable)} % of the right tokens are none of the {settings['draft_vocab_size']:,} of {settings['vocab_size']:,} "
            "that the drafter can guess: train it with a larger --draft-vocab-size, or on texts more like these."
        )
    near_misses = sum(row["near_misses"] for row in depths) / one["num_drafted"]
    if near_misses > MANY_NEAR_MISSES:
        remedy = (
            "by what `auto` measured, more nodes do not pay here"
            if _budget(result) == "auto"
            else "a larger --tree-budget would hold more of them"
        )
        yield (
            f"{percent(near_misses)} % of the rounds end at a token that is among the drafter's best few, but not in the tree of "
            f"{one['num_nodes'] / one['num_drafted']:.1f} nodes: {remedy}."
        )
    last = one["deepest"]
    unused = [row for row in depths[last:] if row["judged"] >= MIN_ROUNDS]
    if last and unused:
        yield (
            f"no guess deeper than {last} was accepted in {unused[0]['judged']} rounds: a --block-size of {last + 1} would draft faster "
            f"and lose nothing here; {len(depths) + 1} is too long."
        )


def _budget(result: Result) -> str:
    [budget] = result["settings"]["budgets"]
    return str(budget)


def _share(row: Row, name: str, of: str) -> str:
    return percent(row[name] / row[of] if row[of] else None)
