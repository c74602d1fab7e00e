"""An inspection's counts are those of a plain recount of the same rounds; hints are given where figures support them, and only there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call_command
from conftest import VOCAB_SIZE
from reference import random_drafter
from saved_drafters import save_random_drafter

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.engine.plan import Part
from hoarfrost.evaluation.decode.acceptance import COUNTS, DrafterInspection
from hoarfrost.evaluation.decode.acceptance_report import hints
from hoarfrost.evaluation.decode.benchmark import DecodeSettings
from hoarfrost.evaluation.prompts.sets import Prompt
from hoarfrost.training.report import read_held_out

NUM_TOKENS = 40
PROMPTS = [Prompt("gsm8k", str(index), (f"Question {index}",)) for index in range(2)]
VOCABULARY = frozenset(range(0, VOCAB_SIZE, 2))


class Recount(DrafterInspection):
    """Keeps every round as it was seen."""

    rounds: list[tuple[float, Part, list[int]]]

    def watch(self, variant: Any, part: Part, token_ids: list[int], verdict: Any) -> None:
        super().watch(variant, part, token_ids, verdict)
        self.rounds.append((variant.temperature, part, list(token_ids)))


def half_right(engine: Engine, conditional: bool) -> None:
    """A drafter that is told the greedy answer of the first prompt, and is unsure of every third token."""
    prompt = engine.chat([{"role": "user", "content": "Question 0"}])
    params = SamplingParams(max_new_tokens=NUM_TOKENS, stop_on_repetition=True)
    [plain] = engine.generate([prompt], params, tree=TreeConfig.autoregressive())
    answer = plain.token_ids
    engine.drafter = random_drafter(engine.target, None, conditional)
    told = [*prompt, *answer]
    guess = engine.drafter._guess

    def misguess(position: int, bonus: int) -> Any:
        marginals = guess(position, bonus)
        if told[position : position + 1] == [bonus]:
            for depth, token in enumerate(told[position + 1 : position + 7]):
                marginals.logits[depth, token] += 9 if (position + depth) % 3 else 4
        return marginals

    engine.drafter._guess = misguess  # type: ignore[method-assign]


@pytest.mark.parametrize("conditional", [False, True])
def test_counts_are_those_of_a_recount(conditional: bool, model_folder: Callable[[str], str]) -> None:
    engine = Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")
    half_right(engine, conditional)
    settings = DecodeSettings(modes=("chain", "tree"), budgets=(6,), temperatures=(0.0, 0.8), max_new_tokens=NUM_TOKENS)
    inspection = Recount(engine, settings, PROMPTS)
    inspection.rounds = []
    for one in inspection.acceptance.values():
        one._vocabulary = VOCABULARY
    result = inspection.result(inspection.describe(), inspection.run())
    for record in result["acceptance"]:
        rounds = [(part, chosen) for temperature, part, chosen in inspection.rounds if temperature == record["temperature"]]
        assert recount(rounds) == {(row["depth"], name): row[name] for row in record["depths"] for name in COUNTS if row[name]}
        assert record["num_drafted"] == record["num_rounds"] == len(rounds)
        assert record["num_nodes"] == sum(len(part.tree.token_ids) - 1 for part, _ in rounds if part.tree is not None)
        num_accepted = record["num_from_drafter"] + record["num_from_retrieval"]
        assert record["tree_tau"] == pytest.approx(1 + num_accepted / record["num_rounds"])
        assert all(row["spine"] + row["off_spine"] + row["retrieved"] <= row["reached"] <= row["judged"] for row in record["depths"])
        chains = [
            one["accepted_histogram"] for one in result["records"] if one["mode"] == "chain" and one["temperature"] == record["temperature"]
        ]
        in_tree = [row["depth"] for row in record["depths"] if row["spine"] + row["off_spine"]]
        in_chain = [length - 1 for histogram in chains for length, count in enumerate(histogram) if count and length]
        assert record["deepest"] == max(in_tree + in_chain)
        num_tokens = sum(length * count for histogram in chains for length, count in enumerate(histogram))
        assert record["chain_tau"] == pytest.approx(num_tokens / sum(map(sum, chains)))
    greedy = result["acceptance"][0]
    assert all(sum(row[name] for row in greedy["depths"]) for name in COUNTS if name != "near_misses")
    assert json.loads(json.dumps(result))["acceptance"] == result["acceptance"]


def recount(rounds: list[tuple[Part, list[int]]]) -> dict[tuple[int, str], int]:
    """Everything by dictionaries and the sequence's final tokens, found by the place of the round's root."""
    counts: Counter[tuple[int, str]] = Counter()
    starts: dict[int, int] = {}
    for part, chosen in rounds:
        candidates, tree, answer = part.candidates, part.tree, part.sequence.token_ids
        assert candidates is not None
        assert tree is not None
        start = starts.setdefault(id(part.sequence), 0)
        assert answer[start] == tree.token_ids[0]
        starts[id(part.sequence)] += len(chosen)
        right = answer[start + 1 :] if len(answer) > start + len(chosen) else chosen
        row: int | None = 0
        behind: dict[int, int] | None = None
        for depth, token in enumerate(right[: candidates.horizon]):
            tables = [
                [(t, p) for t, p in zip(tokens, log_probs, strict=True) if p > -np.inf]
                for tokens, log_probs in zip(candidates.token_ids[depth].tolist(), candidates.log_probs[depth].tolist(), strict=True)
            ]
            place = 0 if depth == 0 or candidates.places is None else (behind or {}).get(right[depth - 1])
            ranked = [] if place is None else [t for t, _ in tables[place]]
            if candidates.places is not None:
                behind = (
                    None
                    if place is None
                    else dict(zip(candidates.token_ids[depth, place].tolist(), candidates.places[depth, place].tolist(), strict=True))
                )
            child = None if row is None else tree.child(row, token)
            seen = {
                "judged": True,
                "among": any(token == t for table in tables for t, _ in table),
                "guessable": token in VOCABULARY,
                "guessed": place is not None,
                "likeliest": ranked[:1] == [token],
                "reached": row is not None,
                "spine": child is not None and ranked[:1] == [token],
                "off_spine": child is not None and token in ranked[1:],
                "retrieved": child is not None and token not in ranked,
                "near_misses": row is not None and child is None and token in ranked[:4],
            }
            counts.update((depth + 1, name) for name, is_so in seen.items() if is_so)
            row = child
    return dict(counts)


def inspected(**changes: Any) -> dict[str, Any]:
    """A result in which all is well: of 200 rounds, at three depths."""
    first = {**dict.fromkeys(COUNTS, 200), "likeliest": 140, "spine": 130, "off_spine": 30, "retrieved": 0, "near_misses": 10}
    depths = [{"depth": depth, **first} for depth in (1, 2, 3)]
    one = {
        "temperature": 0.0,
        "chain_tau": 2.0,
        "tree_tau": 2.5,
        "num_rounds": 210,
        "num_drafted": 200,
        "num_nodes": 1600,
        "depths": depths,
    }
    one["deepest"] = changes.pop("deepest", 3)
    for depth, row in changes.pop("rows", {}).items():
        depths[depth - 1].update(row)
    settings = {"weights": "float", "draft_vocab_size": 100, "vocab_size": 260, "budgets": [8], **changes}
    return {"settings": settings, "acceptance": [one], "held_out": {"accuracy_per_slot": [0.7, 0.5, 0.3], "expected_tokens_per_round": 2.1}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"rows": {1: {"likeliest": 80}}}, ["right in 40.0 % of the rounds, and was in 70.0 % of those held out"]),
        ({"rows": {1: {"likeliest": 80}}, "weights": "int8"}, ["quantised here (int8)"]),
        ({"rows": {2: {"guessable": 150}}}, ["8.3 % of the right tokens are none of the 100 of 260"]),
        ({"rows": {1: {"near_misses": 70}}}, ["45.0 % of the rounds end", "8.0 nodes: a larger --tree-budget"]),
        ({"rows": {1: {"near_misses": 70}}, "budgets": ["auto"]}, ["more nodes do not pay"]),
        ({"deepest": 2}, ["no guess deeper than 2 was accepted in 200 rounds: a --block-size of 3"]),
        ({"rows": {1: {"likeliest": 0, "guessable": 0, "near_misses": 90, "judged": 99}}}, []),
    ],
)
def test_hints_are_given_where_figures_support_them(changes: dict[str, Any], said: list[str]) -> None:
    given = hints(inspected(**changes))
    assert len(given) == (1 if said else 0)
    assert all(words in given[0] for words in said)


def test_nothing_is_compared_with_figures_that_are_not_there() -> None:
    result = {**inspected(rows={1: {"likeliest": 80}}), "held_out": None}
    assert hints(result) == []


def test_held_out_figures_are_the_last_of_the_run(tmp_path: Path) -> None:
    drafter = tmp_path / "drafter"
    drafter.mkdir()
    assert read_held_out(drafter, 2) is None
    valid = {"accuracy_per_slot": [0.5, 0.4], "expected_tokens_per_round": 1.7}
    lines = [{"step": 1, "valid": {"accuracy_per_slot": [0, 0]}}, {"step": 2, "valid": valid}, {"step": 3}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_held_out(tmp_path, 2) == valid
    assert read_held_out(tmp_path, 3) is None
    assert read_held_out(drafter, 2) is None
    (tmp_path / "settings.json").write_text("{}")
    assert read_held_out(drafter, 2) == valid


def test_the_command_prints_both_tables(
    model_folder: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_random_drafter(tmp_path / "drafter", num_hidden_layers=1, block_size=4)
    valid = {"accuracy_per_slot": [0.91, 0.82, 0.73], "expected_tokens_per_round": 2.46}
    (tmp_path / "drafter" / "log.jsonl").write_text(json.dumps({"step": 1, "valid": valid}) + "\n")
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "gsm8k.jsonl").write_text(json.dumps({"question": "1 + 1?"}) + "\n")
    call = partial(call_command, monkeypatch, capfd, "inspect", "drafter", model_folder("qwen3"), "--dtype", "float32", "--device", "cpu")
    options = ("--set", "gsm8k", "--data-dir", str(tmp_path), "--max-new-tokens", "20", "--tree-budget", "6", "--temperature", "0,1")
    capfd.readouterr()
    code, out, err = call("--drafter", str(tmp_path / "drafter"), *options, "--json", str(tmp_path / "out.json"))
    assert code == 0, err
    assert all(words in out for words in ("by depth, in %", "91.0", "82.0", "73.0", "2.46", "retrieval"))
    assert "guessable" not in out
    result = json.loads((tmp_path / "out.json").read_text())
    assert [one["temperature"] for one in result["acceptance"]] == [0.0, 1.0]
    assert result["held_out"] == valid
    code, out, err = call("--drafter", "none", *options)
    assert (code, out) == (2, "")
    assert "needs a drafter" in err
