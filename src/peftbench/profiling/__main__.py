"""Measures the row lengths of tasks: `python -m peftbench.profiling DIR`, where DIR is a mirror of datasets."""

import json
import sys
from pathlib import Path

from peftbench.profiling.row_lengths import MEASURED, measure_lengths

lines = [f'"{name}": {json.dumps(parts)}' for name, parts in sorted(measure_lengths(Path(sys.argv[1])).items())]
MEASURED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
