"""Decoding speed: modes of this engine, and other engines, on the same prompts."""
