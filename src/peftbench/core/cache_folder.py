"""The cache folder. Its content can always be rebuilt: tokenised data, checksums of model files."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return `PEFTBENCH_CACHE`, else `peftbench` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PEFTBENCH_CACHE") or Path(home) / "peftbench")
