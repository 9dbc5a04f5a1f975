"""Forecast of one run on this machine in JSON: `python -m peftbench.profiling.run_seconds SPEC [--data DIR]`."""

import argparse
import json
from pathlib import Path

from peftbench.core.spec import RunSpec
from peftbench.profiling.devices import find_device
from peftbench.profiling.forecast import forecast


def main() -> None:
    """Print the seconds, or null if they are unknown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("spec")
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    (cell,) = forecast([RunSpec.model_validate_json(asked.spec)], find_device(), asked.data).cells
    print(json.dumps(cell.seconds))


if __name__ == "__main__":
    main()
