"""Checkpoints on the Hugging Face hub, and in its cache on this machine.

The hub is asked for a checkpoint once, and not for long. Where it cannot be reached, what the cache holds is taken; where the cache has
nothing, one clause says so within seconds, in place of the dozen lines and the half minute of its library's own retries. Descriptions of a
few kilobytes are fetched first; the weights follow when everything else is known to be right.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from huggingface_hub import DatasetInfo, HfApi, ModelInfo, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from hoarfrost.errors import InvalidInput
from hoarfrost.model_files import CONFIG, reason
from hoarfrost.progress import regular_lines, say

Result = TypeVar("Result")

ANSWER_SECONDS = 4.0
PATIENCE_SECONDS = 8.0  # the answer and the look-up of the host's name, which has no limit of its own
LIBRARY_LOG = "huggingface_hub"


class HubRefusal(Exception):
    """The hub does not give what was asked for; the message is a clause that says why."""


class Unreachable(HubRefusal):
    """It is not asked, does not answer, or is out of order; what the cache holds can still be used."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a model's files, or its single file. Of a checkpoint on the hub, weights are there once they were asked for."""

    name: str
    """What it was asked for by."""
    path: Path
    is_on_hub: bool = False
    refusal: str | None = None
    """Why the hub gives nothing now, if that is so."""

    def fetch(self, names: Sequence[str]) -> None:
        """Gets the files of these names, or patterns of names, as far as they are not here. Raises `HubRefusal`."""
        if not self.is_on_hub:
            return
        if self.refusal is None:
            download(self.name, self.path.name, names)
        elif not all(any(self.path.glob(name)) for name in names):
            raise Unreachable(f"its cache on this machine lacks {', '.join(names)}, and {self.refusal}")


def find_checkpoint(repo_id: str, descriptions: Sequence[str], revision: str | None = None) -> Checkpoint:
    """The checkpoint of a repository with its `descriptions` (names of files, or patterns). Raises `HubRefusal`."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise HubRefusal("that is no name of the Hugging Face hub") from None
    try:
        names = {file.rfilename for file in ask(repo_id, revision).siblings or ()}
    except Unreachable as error:
        cached = try_to_load_from_cache(repo_id, CONFIG, revision=revision)
        if not isinstance(cached, str):
            raise Unreachable(f"{error}, and its cache on this machine does not have it") from None
        if not constants.HF_HUB_OFFLINE:
            say(f"{repo_id} is taken as the cache on this machine has it: {error}.")
        return Checkpoint(repo_id, Path(cached).parent, is_on_hub=True, refusal=str(error))
    if CONFIG not in names:
        has_gguf = any(name.endswith(".gguf") for name in names)
        remedy = "; fetch one of its GGUF files with `hf download` and give its path" if has_gguf else ""
        raise HubRefusal(f"what the Hugging Face hub has of that name holds no {CONFIG}{remedy}")
    return Checkpoint(repo_id, download(repo_id, revision, descriptions), is_on_hub=True)


def ask(repo_id: str, revision: str | None = None, *, repo_type: str = "model") -> ModelInfo | DatasetInfo:
    """What the hub knows of a repository. Raises `HubRefusal`."""
    if constants.HF_HUB_OFFLINE:
        raise Unreachable("the Hugging Face hub is not asked in offline mode (HF_HUB_OFFLINE)")
    with refusals():
        found = patiently(lambda: HfApi().repo_info(repo_id, revision=revision, repo_type=repo_type, timeout=ANSWER_SECONDS))
        assert isinstance(found, (ModelInfo, DatasetInfo))
        return found


def download(repo_id: str, revision: str | None, names: Sequence[str]) -> Path:
    """Fetches what is not here yet of a repository's files; returns the folder of the snapshot. Raises `HubRefusal`."""
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "blobs"

    def describe() -> str:
        size = sum(file.stat().st_size for file in blobs.glob("*") if file.is_file())
        return f"Fetching {repo_id} from the Hugging Face hub: {size / 1e6:.0f} MB are here"

    with refusals(), without_retries_told(), regular_lines(describe):
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(names)))


def patiently(call: Callable[[], Result]) -> Result:
    """What `call` returns or raises; TimeoutError where that takes too long, and `call` is then left to itself."""
    results: list[Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer in {PATIENCE_SECONDS:.0f} s")
    return results[0]


@contextmanager
def refusals() -> Iterator[None]:
    """Turns what the hub's library raises into a `HubRefusal`; a full disk stays what it is."""
    try:
        yield
    except GatedRepoError:
        raise HubRefusal("the Hugging Face hub gives it to those who accepted its terms there and logged in (`hf auth login`)") from None
    except RepositoryNotFoundError:
        raise HubRefusal("the Hugging Face hub has nothing of that name (what is private needs a login, `hf auth login`)") from None
    except RevisionNotFoundError:
        raise HubRefusal("the Hugging Face hub has no such revision of it") from None
    except HfHubHTTPError as error:
        raise Unreachable(f"the Hugging Face hub did not give it (HTTP status {error.response.status_code})") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        if error.filename is None:
            raise Unreachable(told(error)) from None
        raise InvalidInput(f"{error.filename} cannot be written ({error.strerror}); set HF_HOME to a folder for the hub's files.") from None
    except Exception as error:  # of the HTTP library
        raise Unreachable(told(error)) from None


def told(error: Exception) -> str:
    return f"the Hugging Face hub cannot be reached ({reason(error).rpartition('] ')[2]})"


@contextmanager
def without_retries_told() -> Iterator[None]:
    """Keeps what the hub's library says about its retries from the terminal; how they ended is said in one clause."""
    logger = logging.getLogger(LIBRARY_LOG)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
