"""The folder of things that can always be made again: tokenised data, checksums of model files."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """`PEFTBENCH_CACHE`, else `peftbench` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PEFTBENCH_CACHE") or Path(home) / "peftbench")
