"""Where a user's machine keeps what can be measured or fetched again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder, which need not exist or be writable."""
    try:
        home = Path.home()
    except RuntimeError:  # an account without one, as in some containers
        home = Path(os.sep)
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "hoarfrost"
