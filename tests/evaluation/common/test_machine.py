"""What a result says of its machine is JSON and complete; files are written whole or not at all; a commit is only ours."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import hoarfrost
from hoarfrost.evaluation.common import machine
from hoarfrost.files import write_json


def test_description_is_json_and_complete() -> None:
    described = json.loads(json.dumps(machine.describe_machine()))
    assert described["num_cores"] >= 1
    assert described["num_threads"] >= 1
    assert described["memory_bytes"] > 2**28
    assert isinstance(described["accelerators"], list)
    assert all(isinstance(name, str) for name in described["instruction_sets"])


def test_versions_name_what_is_installed() -> None:
    versions = machine.describe_versions()
    assert versions["hoarfrost"] == hoarfrost.__version__
    assert versions["torch"] is not None
    assert machine.package_version("no-such-package-anywhere") is None


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "made" / "result.json"
    write_json(path, {"tau": 1.5, "text": "é"})
    for unfit in ({"tau": float("nan")}, {"what": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, unfit)
    assert json.loads(path.read_text(encoding="utf-8")) == {"tau": 1.5, "text": "é"}
    assert [one.name for one in path.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("program", "named"),
    [("/usr/local/bin/hoarfrost", "hoarfrost"), ("/lib/hoarfrost/__main__.py", "hoarfrost"), ("bench/a.py", "bench/a.py")],
)
def test_the_header_says_where_how_and_with_what(program: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [program, "bench", "--seed", "3"])
    header = machine.describe_run({"seed": 3}, evaluation="taste")
    assert list(header) == ["evaluation", "machine", "versions", "commit", "command", "settings"]
    assert header["command"] == [named, "bench", "--seed", "3"]
    assert header["settings"] == {"seed": 3}
    assert "evaluation" not in machine.describe_run({})


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def copy_of_module(folder: Path) -> ModuleType:
    folder.mkdir(parents=True)
    shutil.copy(machine.__file__, folder / "machine.py")
    spec = importlib.util.spec_from_file_location("copied_machine", folder / "machine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
class TestCommit:
    def test_of_a_checkout_says_whether_it_is_modified(self, tmp_path: Path) -> None:
        copied = copy_of_module(tmp_path / "src" / "hoarfrost" / "evaluation" / "common")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-qm", "one")
        commit = copied.describe_commit()
        assert len(commit) == 12
        with Path(copied.__file__).open("a", encoding="utf-8") as file:
            file.write("# changed\n")
        assert copied.describe_commit() == f"{commit}-dirty"

    def test_of_an_environment_inside_the_checkout_is_the_checkouts(self, tmp_path: Path) -> None:
        copy_of_module(tmp_path / "src" / "hoarfrost" / "evaluation" / "common")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-qm", "one")
        installed = copy_of_module(tmp_path / ".venv" / "site-packages" / "hoarfrost" / "evaluation" / "common")
        assert len(installed.describe_commit()) == 12

    def test_of_another_projects_repository_is_none(self, tmp_path: Path) -> None:
        copied = copy_of_module(tmp_path / "vendored" / "hoarfrost" / "evaluation" / "common")
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-qm", "one")
        assert copied.describe_commit() is None

    def test_outside_of_any_repository_is_none(self, tmp_path: Path) -> None:
        assert copy_of_module(tmp_path / "hoarfrost" / "evaluation" / "common").describe_commit() is None
