"""Faces of the engine inside other libraries."""
