"""Rebuild what is made from code: `make generate`. With `--check` nothing is written, and what is stale is named.

- `docs/results-table.md`: the columns of the table of runs.
- `src/peftbench/methods/capabilities.json` and `docs/methods.md`: what each method can do. Methods that have no row are
  measured, which takes a minute or so each; `python -m peftbench.checks.method_capabilities` measures all again.
- `tests/golden/units.json`: signatures, defaults and prompts that the ids of results depend on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from peftbench.checks import method_capabilities
from peftbench.results import schema

ROOT = Path(__file__).parent.parent
GOLDEN = "tests/test_units.py"


def pages() -> dict[Path, str]:
    """The pages that are made of what is already known."""
    rows = json.loads(method_capabilities.FILE.read_text(encoding="utf-8"))
    return {
        ROOT / "docs" / "results-table.md": schema.page(),
        ROOT / "docs" / "methods.md": method_capabilities.capabilities_page(rows),
    }


def unmeasured() -> list[str]:
    """Methods without a row of capabilities, and rows without a method."""
    rows = json.loads(method_capabilities.FILE.read_text(encoding="utf-8"))
    return sorted({*rows} ^ {*method_capabilities.capability_names()})


def stale() -> list[str]:
    """Files that would change."""
    found = [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    found += [method_capabilities.FILE] if unmeasured() else []
    return [str(path.relative_to(ROOT)) for path in found]


def main() -> int:
    """Exit status 1 where something is stale (`--check`), or where a change of a unit is refused."""
    parser = argparse.ArgumentParser(description="Rebuild what is made from code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something is stale")
    if parser.parse_args().check:
        if found := stale():
            sys.stderr.write(f"stale: {', '.join(found)}. `make generate` rebuilds them\n")
        return bool(found)
    if unmeasured():
        method_capabilities.remeasure([name for name in unmeasured() if name in method_capabilities.capability_names()])
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, GOLDEN, "--update"], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
