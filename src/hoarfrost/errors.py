"""What can go wrong, told apart by who can mend it. Every message is a sentence that names the value and the remedy."""

from __future__ import annotations

import errno


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


class ResourceExhausted(RuntimeError):
    """Memory or disk ran out; the same request may succeed later, or with less beside it. The server answers with a 503."""


class ModelFault(RuntimeError):
    """A model, or something that takes part in decoding, failed or said what no token can be chosen from. The server answers with a 500."""


Fault = InvalidInput | ResourceExhausted | ModelFault
"""What ends one request and leaves the others alone."""


def as_fault(error: Exception) -> Fault:
    """`error` as one of ours, which keeps it as its cause."""
    if isinstance(error, Fault):
        return error
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    fault: Fault
    if is_exhaustion(error):
        fault = ResourceExhausted(f"memory or disk ran out while a request was decoded ({told}); send fewer or shorter ones at a time.")
    else:
        fault = ModelFault(f"decoding a request failed ({told}); the error attached to this one says where.")
    fault.__cause__ = error
    return fault


def is_exhaustion(error: Exception) -> bool:
    """Whether memory or disk ran out; torch raises a RuntimeError of its own for both kinds of memory."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT)
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()
