"""Seconds of the commands that read a store, by its number of runs: `python bench/stores.py [RUNS ...]`.

The runs are made up: ten methods on ten tasks at two sizes, as many seeds as it takes. Each command is a process of its
own with one thread. `PYTHONPATH` chooses the code that is measured, so that two checkouts can be compared in one
sitting.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
METHODS = ("none", "full", "lora", "dora", "ia3", "bitfit", "adapter", "lntuning", "prompt-tuning", "prefix-tuning")
TASKS = ("sst2", "cola", "rte", "mrpc", "qqp", "mnli", "qnli", "boolq", "cb", "copa")
SIZES = (100, 1000)
COMMANDS = {
    "status": ["status", "GRID", "--store", "STORE"],
    "list runs": ["list", "runs", "--store", "STORE"],
    "report": ["report", "--store", "STORE", "--out", "OUT"],
    "advise": ["advise", "--task", "sst2", "--model", "pocket", "--store", "STORE"],
}


def make(store: Path, runs: int) -> Path:
    """A store with so many runs, and the grid that asks for them."""
    import made_store

    seeds = range(-(-runs // (len(METHODS) * len(TASKS) * len(SIZES))))
    cells = [(m, t, seed, size) for seed in seeds for size in SIZES for t in TASKS for m in METHODS][:runs]
    made_store.store(store, *(made_store.result(m, t, seed, size) for m, t, seed, size in cells))
    grid = store.parent / "grid.toml"
    grid.write_text(
        f"methods = {json.dumps(METHODS)}\ntasks = {json.dumps(TASKS)}\nsizes = {list(SIZES)}\nseeds = {list(seeds)}\n"
    )
    return grid


def seconds(command: list[str], names: dict[str, str]) -> float:
    """Of one command, which must end well."""
    given = [names.get(word, word) for word in command]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "peftbench", *given],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return time.perf_counter() - started


def main() -> None:
    """A line for each number of runs."""
    for runs in map(int, sys.argv[1:] or ["1000", "10000"]):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            names = {"STORE": str(store), "GRID": str(make(store, runs)), "OUT": str(Path(folder) / "out")}
            found = {name: round(seconds(command, names), 1) for name, command in COMMANDS.items()}
            sys.stdout.write(json.dumps({"runs": runs, **found}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
