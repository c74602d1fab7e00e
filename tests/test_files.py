"""Where a result is to go is checked before the work, and asking writes nothing; links, pipes and devices stay what they are."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hoarfrost.errors import InvalidInput
from hoarfrost.files import STANDARD_OUTPUT, check_writable, write_text


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


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    real, link, chain = tmp_path / "real.json", tmp_path / "link.json", tmp_path / "chain.json"
    real.write_text("{}", encoding="utf-8")
    real.chmod(0o640)
    link.symlink_to(real)
    chain.symlink_to(link)
    check_writable(chain)
    write_text(chain, "new")
    assert chain.is_symlink()
    assert link.is_symlink()
    assert real.read_text(encoding="utf-8") == "new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain.json", "link.json", "real.json"]


def test_a_link_to_what_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "later" / "real")
    check_writable(tmp_path / "link")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "later" / "real").read_text(encoding="utf-8") == "new"


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(InvalidInput, match="one cannot be written"):
        check_writable(tmp_path / "one")


def test_a_name_that_no_file_system_takes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="too long"):
        check_writable(tmp_path / ("x" * 300))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_stays_and_its_reader_gets_all(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_text(pipe, "new" * 40_000)  # more than a pipe holds
    reader.join(timeout=60)
    assert received == [b"new" * 40_000]
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no devices here")
def test_devices_stay(tmp_path: Path) -> None:
    check_writable(Path("/dev/null"))
    write_text(Path("/dev/null"), "new")
    assert Path("/dev/null").is_char_device()


def test_a_dash_is_standard_output(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable(STANDARD_OUTPUT)
    write_text(STANDARD_OUTPUT, "café\n")
    assert capfd.readouterr().out == "café\n"
    assert list(tmp_path.iterdir()) == []


def test_other_names_of_standard_output(tmp_path: Path) -> None:
    """The file that the shell redirected to is not replaced under the feet of what is printed later."""
    code = "import sys, pathlib, hoarfrost.files as files; files.write_text(pathlib.Path(sys.argv[1]), 'new\\n'); print('after')"
    names = [str(tmp_path / "out"), *(name for name in ("/dev/stdout",) if Path(name).exists())]
    for name in names:
        with (tmp_path / "out").open("w") as out:
            subprocess.run([sys.executable, "-c", code, name], stdout=out, check=True)
        assert (tmp_path / "out").read_text(encoding="utf-8") == "new\nafter\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_names_the_path() -> None:
    with pytest.raises(OSError, match="/dev/full") as caught:
        write_text(Path("/dev/full"), "new")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_what_cannot_be_written_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: both break off in the midst of a write."""
    code = """
import resource, signal, sys
from pathlib import Path
from hoarfrost.files import append_line, write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (append_line, write_text):
    write(Path(sys.argv[1]), "short\\n")
    try:
        write(Path(sys.argv[1]), "x" * 5000)
    except OSError:
        print(write.__name__)
"""
    place = tmp_path / "journal"
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["append_line", "write_text"]
    assert place.read_text(encoding="utf-8") == "short\n"
    assert list(tmp_path.iterdir()) == [place]
