"""Where a result is to go is checked before the work, and asking writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hoarfrost.errors import InvalidInput
from hoarfrost.files import check_writable


def test_places_where_a_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("{}", encoding="utf-8")
    for name in ("there.json", "new.json", "made/deep/new.json"):
        check_writable(tmp_path / name)
    assert not (tmp_path / "new.json").exists()
    assert (tmp_path / "there.json").read_text(encoding="utf-8") == "{}"


def test_places_where_none_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for path, said in ((tmp_path, "it is a folder"), (tmp_path / "file" / "out.json", "cannot be written")):
        with pytest.raises(InvalidInput, match=said):
            check_writable(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidInput, match="read-only"):
        check_writable(tmp_path / "out.json")
