"""Small inputs from beside the repository: models of many architectures, made by the scripts of `shared/cases`."""

import contextlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from unittest import mock

from conftest import SHARED

CASES = SHARED / "cases"


def architectures() -> list[str]:
    """Names of the models that `make` can make with the installed libraries."""
    if not CASES.is_dir():
        return []
    script = _script(Path("nowhere"))
    # What their own script says it cannot make.
    return [name for name in (*script.DEC, *script.SEQ, "gemma3") if name not in ("zamba2", "t5gemma")]


def make(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Write models of these architectures into a folder; where each is."""
    script = _script(folder)
    for name in names:
        made = script.gemma3_mm() if name == "gemma3" else (script.decoder if name in script.DEC else script.seq)(name)
        with contextlib.redirect_stdout(io.StringIO()):
            script.save(name, *made)
    return {name: folder / "models" / name for name in names}


def _script(folder: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location("make_models", CASES / "models" / "make_models.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    with mock.patch.dict(os.environ, {"CASES_OUT": str(folder)}), mock.patch.dict(sys.modules, make_models=module):
        found.loader.exec_module(module)
    return module
