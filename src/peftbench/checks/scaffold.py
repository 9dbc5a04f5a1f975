"""Create tasks and methods from commented templates that work with `--plugin`."""

import keyword
import re
from pathlib import Path
from typing import Literal

from peftbench.core.registry import UserError
from peftbench.methods import METHODS
from peftbench.tasks import TASKS

TEMPLATES = Path(__file__).parent / "templates"


def write_template(kind: Literal["task", "method"], name: str, to: Path | None = None) -> Path:
    """Write the template of a task or a method under a new name, to NAME.py or to `to`.

    Raises `UserError` for an invalid or existing name, and for an existing or unwritable file.
    """
    separator = METHODS.separator if kind == "method" else TASKS.separator
    function = name.replace("-", "_") if separator == "-" else name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", function) or keyword.iskeyword(function):
        raise UserError(f"{kind} '{name}': a name has small letters, figures and '{separator}', a letter first")
    shown = function.strip("_").replace("_", separator)
    if shown in (METHODS if kind == "method" else TASKS):
        raise UserError(f"there is a {kind} '{shown}' already: choose another name")
    path = to or Path(f"{function}.py")
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(
                (TEMPLATES / f"{kind}.py.txt")
                .read_text(encoding="utf-8")
                .replace("NAME", function)
                .replace("SHOWN", shown)
            )
    except FileExistsError:
        raise UserError(f"{path} is there already and is not overwritten: give another file with --to") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return path
