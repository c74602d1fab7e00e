"""The model being accelerated: the only package that touches transformers' model internals."""

from hoarfrost.target.packed import PackedRows, Segment
from hoarfrost.target.target import Target

__all__ = ["PackedRows", "Segment", "Target"]
