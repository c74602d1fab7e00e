"""What `hoarfrost doctor` says of kernels and threads, on machines other than this one."""

from __future__ import annotations

import platform

import pytest
import torch

from hoarfrost import kernels
from hoarfrost.cli import doctor
from hoarfrost.hub import Unreachable
from hoarfrost.kernels import linear


def test_the_instruction_set_and_why_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "instruction_sets", lambda: ["plain", "avx2", "avx512"])
    monkeypatch.setattr(kernels, "instruction_set_in_use", lambda: "avx512")
    monkeypatch.delenv(kernels.INSTRUCTION_SET_VARIABLE, raising=False)
    finding, *_ = doctor.native_kernels()
    assert (finding.state, finding.detail) == (doctor.OK, "avx512, the best of plain, avx2, avx512")
    monkeypatch.setenv(kernels.INSTRUCTION_SET_VARIABLE, "avx2")
    monkeypatch.setattr(kernels, "instruction_set_in_use", lambda: "avx2")
    finding, *_ = doctor.native_kernels()
    assert (finding.state, finding.detail) == (doctor.NOTE, "avx2, forced by HOARFROST_INSTRUCTION_SET; there are plain, avx2, avx512")
    monkeypatch.setattr(kernels, "instruction_sets", lambda: ["plain"])
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    finding, *_ = doctor.native_kernels()
    assert finding.state == doctor.NOTE
    assert "slow" in finding.detail


def test_paths_are_those_that_the_code_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, *paths = doctor.native_kernels()
    assert [path.name for path in paths] == ["float32 on the CPU", "bfloat16 on the CPU", "int8 on the CPU"]
    assert {(path.state, path.detail) for path in paths} == {(doctor.OK, "native layers, products of our own")}
    monkeypatch.setattr("hoarfrost.kernels.decoder.can_multiply", lambda _: False)
    monkeypatch.setattr(linear, "can_multiply", lambda _: False)
    _, *paths = doctor.native_kernels()
    assert {(path.state, path.detail) for path in paths} == {(doctor.NOTE, "no native layers: torch's, with torch's products")}


@pytest.mark.parametrize(
    ("used", "cores", "state", "says"),
    [(1, 1, "ok", "1 "), (2, 2, "ok", "2 "), (1, 8, "note", "set it to 8"), (16, 4, "note", "set OMP_NUM_THREADS to 4")],
)
def test_threads(used: int, cores: int, state: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: used)
    finding = doctor.threads(cores, cores)
    assert finding.state == state
    assert says in finding.detail


def test_a_cuda_build_without_a_gpu_costs_disk_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "a build for CUDA 13.0, which costs disk only" in doctor.accelerators([]).detail
    assert doctor.accelerators(["H100"]) == doctor.Finding("accelerators", doctor.OK, "H100")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert doctor.accelerators([]).detail == "none: decoding runs on the CPU"


def test_extras_that_are_missing_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"matplotlib": "3.10", "datasets": None}
    monkeypatch.setattr("hoarfrost.evaluation.common.machine.package_version", versions.get)
    plot, bench = doctor.extras()
    assert (plot.state, plot.detail) == (doctor.OK, "matplotlib 3.10")
    assert bench.state == doctor.NOTE
    assert "pip install 'hoarfrost[bench]'" in bench.detail


def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    [finding] = doctor.hub()
    assert finding.state == doctor.NOTE
    assert "not asked in offline mode" in finding.detail
    asked: list[str] = []
    monkeypatch.setattr("hoarfrost.hub.ask", asked.append)
    [finding] = doctor.hub()
    assert (finding.state, len(asked)) == (doctor.OK, 1)

    def unreachable(_: str) -> None:
        raise Unreachable("the Hugging Face hub cannot be reached (no route)")

    monkeypatch.setattr("hoarfrost.hub.ask", unreachable)
    [finding] = doctor.hub()
    assert "cannot be reached (no route); models come from folders" in finding.detail


def test_models_with_drafters() -> None:
    served, others = doctor.drafters()
    assert "in the package for tiny" in served.detail
    assert "Qwen/Qwen3-8B" in served.detail
    assert "not served" in others.detail
