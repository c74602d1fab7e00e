"""Where what is downloaded is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoarfrost.user_cache import cache_folder


@pytest.mark.parametrize("error", [RuntimeError("no home"), None])
def test_an_account_without_a_home_has_a_cache_folder(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        if error is not None:
            raise error
        return Path("/home/somebody")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert cache_folder().parts[-2:] == (".cache", "hoarfrost")
