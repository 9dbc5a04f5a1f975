"""How long one run will take on this machine: `python -m peftbench.planning.seconds SPEC [--data DIR]`, in JSON."""

import argparse
import json
from pathlib import Path

from peftbench.planning.devices import device
from peftbench.planning.forecast import forecast
from peftbench.spec import RunSpec


def main() -> None:
    """Print the seconds, or null where they are not known."""
    parser = argparse.ArgumentParser()
    parser.add_argument("spec")
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    (cell,) = forecast([RunSpec.model_validate_json(asked.spec)], device(), asked.data).cells
    print(json.dumps(cell.seconds))


if __name__ == "__main__":
    main()
