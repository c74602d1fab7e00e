"""The one exception for input that a person can mend: its message names the value and the remedy."""

from __future__ import annotations


class InvalidInput(ValueError):
    """Bad user input. The CLI prints the message and exits with code 2; the server answers with a 4xx."""
