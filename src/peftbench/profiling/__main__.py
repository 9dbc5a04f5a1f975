"""Measures anew how long the rows of tasks are: `python -m peftbench.profiling DIR`, with a mirror of data sets."""

import json
import sys
from pathlib import Path

from peftbench.profiling.row_lengths import MEASURED, measure_lengths

lines = [f'"{name}": {json.dumps(parts)}' for name, parts in sorted(measure_lengths(Path(sys.argv[1])).items())]
MEASURED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
