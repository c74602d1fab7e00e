"""Which instruction set runs: the best, or the one that is asked for, by a call or by the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from hoarfrost import kernels
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.linear import NativeLinear

PRESENT = kernels.instruction_sets()


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    kernels.use_instruction_set_of_environment()


@pytest.mark.parametrize("name", PRESENT)
def test_the_environment_forces_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setenv(kernels.INSTRUCTION_SET_VARIABLE, name)
        kernels.use_instruction_set_of_environment()
    assert kernels.instruction_set_in_use() == name
    assert kernels.instruction_sets() == PRESENT
    weight, rows = torch.randn(70, 130), torch.randn(9, 130)
    assert torch.equal(NativeLinear(weight)(rows), NativeLinear(weight, None, name)(rows))


@pytest.mark.parametrize("value", [None, ""])
def test_the_best_runs_where_none_is_asked_for(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.use_instruction_set("plain")
    with monkeypatch.context() as context:
        if value is None:
            context.delenv(kernels.INSTRUCTION_SET_VARIABLE, raising=False)
        else:
            context.setenv(kernels.INSTRUCTION_SET_VARIABLE, value)
        kernels.use_instruction_set_of_environment()
    assert kernels.instruction_set_in_use() == PRESENT[-1]


def test_a_set_that_is_not_there_is_refused_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.use_instruction_set("plain")
    with pytest.raises(ValueError, match="no instruction set 'abacus'; it has plain"):
        kernels.use_instruction_set("abacus")
    with monkeypatch.context() as context:
        context.setenv(kernels.INSTRUCTION_SET_VARIABLE, "AVX2")
        with pytest.raises(InvalidInput, match=rf"'AVX2'; it has {', '.join(PRESENT)}\. HOARFROST_INSTRUCTION_SET must name one of these"):
            kernels.use_instruction_set_of_environment()
    assert kernels.instruction_set_in_use() == "plain"


def test_the_command_says_so_in_a_sentence() -> None:
    command = [sys.executable, "-c", "from hoarfrost.cli import main; main()", "run", "tiny", "Hello"]
    done = subprocess.run(command, env={**os.environ, "HOARFROST_INSTRUCTION_SET": "mmx"}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("hoarfrost: This processor has no instruction set 'mmx'; it has plain")
    assert "Traceback" not in done.stderr
