"""Every form of a training record, and an error that says where and what for every broken one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training.training_models import START, STOP, VOCAB_SIZE, tokenizer

from hoarfrost.errors import InvalidInput
from hoarfrost.training.data import TrainingPrompt, read_prompts


def read(path: Path, content: str, name: str = "data.jsonl") -> list[TrainingPrompt]:
    (path / name).write_text(content, encoding="utf-8")
    return read_prompts([path / name], tokenizer(), VOCAB_SIZE)


ASKED = (START, 5, 6, STOP, START)  # "w5 w6" as a user turn, and the answer's opening


@pytest.mark.parametrize(
    ("record", "prompt_ids", "response"),
    [
        ({"prompt": "w5 w6", "response": "w7"}, ASKED, "w7"),
        ({"question": "w5 w6", "answer": "not read"}, ASKED, None),
        ({"problem": "w5 w6"}, ASKED, None),
        ({"text": "w5 w6"}, ASKED, None),
        ({"instruction": "w5", "input": "w6", "response": "w7"}, ASKED, "w7"),
        ({"instruction": "w5 w6", "input": ""}, ASKED, None),
        ({"messages": [{"role": "user", "content": "w5 w6"}, {"role": "assistant", "content": "w7"}]}, ASKED, "w7"),
        ({"messages": [{"role": "user", "content": "w5 w6"}]}, ASKED, None),
        ({"prompt_ids": [9, 8], "response_ids": [7]}, (9, 8), (7,)),
        ({"prompt_ids": [9, 8]}, (9, 8), None),
    ],
)
def test_forms_of_a_record(tmp_path: Path, record: dict[str, Any], prompt_ids: tuple[int, ...], response: object) -> None:
    assert read(tmp_path, json.dumps(record) + "\n\n") == [TrainingPrompt(prompt_ids, response)]
    assert read(tmp_path, json.dumps([record, record], indent=1), "data.json") == [TrainingPrompt(prompt_ids, response)] * 2


@pytest.mark.parametrize(
    ("second_line", "complaint"),
    [
        ("{", "line 2: no valid JSON"),
        ("17", "line 2: found int"),
        ('{"answer": "w5"}', "line 2: no prompt among the fields 'answer'; expected an object with one of 'prompt'"),
        ('{"prompt": ""}', "line 2: 'prompt' is empty or no text"),
        ('{"prompt": 3}', "line 2: 'prompt' is empty or no text"),
        ('{"prompt": "w5", "response": 3}', "line 2: 'response' is int"),
        ('{"messages": [{"role": "user"}]}', "line 2: 'messages' must be a list"),
        ('{"messages": [{"role": "assistant", "content": "w5"}]}', "line 2: 'messages' holds no message before"),
        ('{"prompt_ids": []}', "line 2: 'prompt_ids' must be a list of token ids from 0 to 63"),
        ('{"prompt_ids": [64]}', "line 2: 'prompt_ids' must be"),
        ('{"prompt_ids": [true]}', "line 2: 'prompt_ids' must be"),
        ('{"prompt_ids": [5], "response_ids": "x"}', "line 2: 'response_ids' must be"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, second_line: str, complaint: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        read(tmp_path, '{"prompt": "w5"}\n' + second_line + "\n")
    assert str(tmp_path / "data.jsonl") in str(raised.value)
    assert complaint in str(raised.value)


def test_missing_empty_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.jsonl cannot be read \(No such file"):
        read_prompts([tmp_path / "nowhere.jsonl"], tokenizer(), VOCAB_SIZE)
    with pytest.raises(InvalidInput, match="holds no records"):
        read(tmp_path, "\n")
    (tmp_path / "model.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=r"model\.bin is not UTF-8 text"):
        read_prompts([tmp_path / "model.bin"], tokenizer(), VOCAB_SIZE)
    with pytest.raises(InvalidInput, match=r"data\.json, line 3: no valid JSON"):
        read(tmp_path, '[{"prompt": "w5"},\n\n{"prompt" "w5"}]', "data.json")


def test_a_tokenizer_without_template_takes_the_text_as_it_is(tmp_path: Path) -> None:
    plain = tokenizer()
    plain.chat_template = None
    (tmp_path / "data.jsonl").write_text('{"text": "w5 w6"}\n')
    assert read_prompts([tmp_path / "data.jsonl"], plain, VOCAB_SIZE) == [TrainingPrompt((5, 6))]
