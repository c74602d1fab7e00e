"""Hoarfrost: Hugging Face language models that decode several times faster and hold long contexts in little fast memory.

    from hoarfrost import Engine, SamplingParams, TreeConfig

    engine = Engine.load("smollm2")
    for piece in engine.stream(engine.chat("What is 6 times 7?"), SamplingParams(max_new_tokens=64)):
        print(piece.text, end="", flush=True)

The names are imported when they are first used, so that `hoarfrost --help` need not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hoarfrost.cache.ice_config import IceConfig
    from hoarfrost.engine import Completion, Engine, Limits, Piece, Request, Statistics
    from hoarfrost.errors import InvalidInput, ModelFault, ResourceExhausted
    from hoarfrost.integrations.ice import IceCache, ice_attention
    from hoarfrost.integrations.transformers import ddtree
    from hoarfrost.sampling import SamplingParams
    from hoarfrost.tree import TreeConfig

__all__ = [
    "Completion",
    "Engine",
    "IceCache",
    "IceConfig",
    "InvalidInput",
    "Limits",
    "ModelFault",
    "Piece",
    "Request",
    "ResourceExhausted",
    "SamplingParams",
    "Statistics",
    "TreeConfig",
    "__version__",
    "ddtree",
    "ice_attention",
]
__version__ = "0.1.0"

_HOMES = {
    "Completion": "hoarfrost.engine",
    "Engine": "hoarfrost.engine",
    "IceCache": "hoarfrost.integrations.ice",
    "IceConfig": "hoarfrost.cache.ice_config",
    "InvalidInput": "hoarfrost.errors",
    "Limits": "hoarfrost.engine",
    "ModelFault": "hoarfrost.errors",
    "Piece": "hoarfrost.engine",
    "Request": "hoarfrost.engine",
    "ResourceExhausted": "hoarfrost.errors",
    "SamplingParams": "hoarfrost.sampling",
    "Statistics": "hoarfrost.engine",
    "TreeConfig": "hoarfrost.tree",
    "ddtree": "hoarfrost.integrations.transformers",
    "ice_attention": "hoarfrost.integrations.ice",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hoarfrost' has no attribute {name!r}")
