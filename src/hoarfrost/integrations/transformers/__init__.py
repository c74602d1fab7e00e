"""Draft trees inside `model.generate` of transformers: `custom_generate=ddtree(drafter)`."""

from hoarfrost.integrations.transformers.generation import TreeGeneration, ddtree

__all__ = ["TreeGeneration", "ddtree"]
