"""Which device and type are picked, on builds of torch with and without CUDA. None of this needs an accelerator."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hoarfrost.errors import InvalidInput
from hoarfrost.target.loading import pick_device, pick_dtype


def test_a_cuda_build_without_a_gpu_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a build knows its accelerator by name, and that none is there."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device("cuda"))
    device = pick_device("auto")
    assert device == torch.device("cpu")
    assert pick_dtype("auto", device) in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("Torch not compiled with CUDA enabled"),
        RuntimeError("Found no NVIDIA driver on your system.\nPlease check"),
        torch.AcceleratorError("CUDA error: no CUDA-capable device is detected\nCUDA kernel errors"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_device_that_is_not_there_is_refused(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(torch, "empty", fails)
    first_line = str(error).splitlines()[0]
    with pytest.raises(InvalidInput, match=rf"Device 'cuda:7' cannot be used here \({first_line}\); try 'cpu' or 'auto'"):
        pick_device("cuda:7")


def test_names_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InvalidInput, match="Device 'abacus'"):
        pick_device("abacus")
    with pytest.raises(InvalidInput, match="Unknown dtype 'int3'"):
        pick_dtype("int3", torch.device("cpu"))
