"""The journal gives back what it was given, whatever the records are made of; a run of nothing is no result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.common.checks import check_least, check_list, check_names
from hoarfrost.evaluation.common.journal import Journal, Outcome, make_result, restore


@dataclass(frozen=True)
class Inner:
    values: list[float]


@dataclass(frozen=True)
class Made:
    name: str
    inner: Inner
    perhaps: Inner | None


RECORDS = [Made("a", Inner([1.0]), None), Made("b", Inner([]), Inner([2.5]))]
OUTCOME = Outcome("set", "0", RECORDS, 1)


def test_records_come_back_with_the_dataclasses_in_them() -> None:
    for record in RECORDS:
        assert restore(Made, json.loads(json.dumps(asdict(record)))) == record
    for foreign in ({"name": "a"}, {"name": "a", "inner": {}, "perhaps": None}, {"title": "a"}):
        with pytest.raises((KeyError, TypeError)):
            restore(Made, foreign)


def test_goes_on_whatever_the_command_and_drops_what_is_torn_or_foreign(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    journal, message = Journal.beside(path, {"commit": "abc", "command": ["first"]}, Made)
    assert message is None
    journal.add(OUTCOME)
    with (tmp_path / "result.json.partial.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"set": "set", "prompt_id": "1", "num_skipped": 0, "records": [{"title": "of another kind"}]}\n{"set": "se')
    again, message = Journal.beside(path, {"commit": "abc", "command": ["second"]}, Made)
    assert "1 prompts are already measured" in (message or "")
    assert again.find("set", "0") == OUTCOME
    assert again.find("set", "1") is None
    anew, message = Journal.beside(path, {"commit": "abd"}, Made)
    assert "another commit." in (message or "")
    assert anew.find("set", "0") is None


@pytest.mark.parametrize("outcomes", [[], [Outcome[Made]("set", "0", [], 2), Outcome[Made]("set", "1")]])
def test_a_run_of_nothing_is_refused_and_leaves_nothing(outcomes: list[Outcome[Made]], tmp_path: Path) -> None:
    journal, _ = Journal.beside(tmp_path / "result.json", {}, Made)
    planned = [(outcome.set, outcome.prompt_id, lambda outcome=outcome: outcome) for outcome in outcomes]
    with pytest.raises(InvalidInput, match=f"Nothing was measured: of {len(outcomes)} prompts {min(1, len(outcomes))} do not fit"):
        journal.run(planned)
    assert list(tmp_path.iterdir()) == []


def test_a_result_has_the_records_of_all_prompts_and_what_was_left_out() -> None:
    result = make_result({"commit": "abc"}, [OUTCOME, Outcome("other", "0", RECORDS[:1])], lambda records: [Inner([len(records)])])
    assert (result["commit"], result["skipped"], result["summary"]) == ("abc", {"set": 1}, [{"values": [3]}])
    assert [record["name"] for record in result["records"]] == ["a", "b", "a"]


def test_what_settings_must_keep_is_said() -> None:
    check_list("things", (1, 2))
    check_names("thing", ("a",), {"a": 1})
    check_least("number", None)
    for call, said in (
        (lambda: check_list("things", (1, 1)), r"list of things \(1, 1\) is empty or names one twice"),
        (lambda: check_list("things", ()), "is empty"),
        (lambda: check_names("thing", ("a", "c"), ("a", "b")), "Unknown thing 'c'; choose from a, b"),
        (lambda: check_least("number", 0), "The number is 0; it must be at least 1"),
    ):
        with pytest.raises(InvalidInput, match=said):
            call()
