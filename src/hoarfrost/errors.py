"""The one exception for input that a person can mend: its message names the value and the remedy."""

from __future__ import annotations


class InvalidInput(ValueError):
    """Bad user input. The CLI prints the message and exits with code 2; the server answers with a 4xx."""


def check_unicode(text: str, what: str) -> str:
    """`text` as it is. Raises `InvalidInput` if it holds lone surrogates, which stand for bytes that were no UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} is no valid Unicode ({text[error.start : error.end]!a} at character {error.start}); give it in UTF-8."
        ) from None
    return text
