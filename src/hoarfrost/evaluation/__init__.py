"""Prompt sets, benchmarks on them, and the reports of what was measured."""
