"""Seconds of the commands that read a store, by its number of runs: `python bench/stores.py [RUNS ...]`.

The runs are made up: ten methods on ten tasks at two sizes, with the number of seeds that this takes, and the grid asks
for all of them. Each command is a process of its own with one thread. It is run twice with a cache of its own: `first`
reads every result, `again` has the index.
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
    "idle run": ["run", "GRID", "--store", "STORE"],
    "list runs": ["list", "runs", "--store", "STORE"],
    "report": ["report", "--store", "STORE", "--out", "OUT"],
    "advise": ["advise", "--task", "sst2", "--model", "pocket", "--store", "STORE"],
}


def make(store: Path, runs: int) -> Path:
    """A store with so many runs, and the grid that asks for them."""
    import made_store
    from peftbench.grid.expand import expand

    seeds = list(range(-(-runs // (len(METHODS) * len(TASKS) * len(SIZES)))))
    grid = store.parent / "grid.toml"
    grid.write_text(
        f"methods = {json.dumps(METHODS)}\ntasks = {json.dumps(TASKS)}\nsizes = {list(SIZES)}\nseeds = {seeds}\n"
    )
    made_store.store(store, *map(made_store.of, expand(str(grid))[:runs]))
    return grid


def seconds(command: list[str], names: dict[str, str], cache: Path) -> float:
    """Of one command, which must end well."""
    given = [names.get(word, word) for word in command]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "peftbench", *given],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PEFTBENCH_CACHE": str(cache)},
    )
    return round(time.perf_counter() - started, 1)


def main() -> None:
    """A line for each number of runs."""
    for runs in map(int, sys.argv[1:] or ["1000", "10000"]):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            names = {"STORE": str(store), "GRID": str(make(store, runs)), "OUT": str(Path(folder) / "out")}
            for name, command in COMMANDS.items():
                with tempfile.TemporaryDirectory() as cache:
                    first, again = (seconds(command, names, Path(cache)) for _ in range(2))
                sys.stdout.write(json.dumps({"runs": runs, "command": name, "first": first, "again": again}) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
