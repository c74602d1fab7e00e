"""The devices that tests run over: the CPU, and the accelerators that are present.

A test's id carries the name, so that `pytest -k cuda` runs what concerns a GPU.
"""

from __future__ import annotations

import torch

DEVICES = [name for name, present in (("cpu", True), ("cuda", torch.cuda.is_available()), ("mps", torch.mps.is_available())) if present]
