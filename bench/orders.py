"""Whether the costs of a method depend on what ran before it in the same worker: `python bench/orders.py [ROUNDS]`.

Each round does the methods forwards in one new worker process and backwards in another, as `peftbench run` does them.
The time of a method is the same in both orders if the interval of the ratio holds 1; how far one order's rounds are
apart says how much of a difference could be seen. Memory must be the same to the byte.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median, stdev
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import t

from peftbench.core.spec import Costs, RunSpec
from peftbench.grid.expand import expand
from peftbench.launch import Options, ignore
from peftbench.launch.local import launch
from peftbench.results.store import Store

METHODS = ["full", "p-tuning", "lora", "ia3", "prefix-tuning"]
GRID = {
    "models": ["pocket"],
    "methods": METHODS,
    "tasks": ["pocket_topic"],
    "sizes": [64],
    "train": {"max_steps": 10, "eval_steps": 10, "validation_rows": 4, "max_length": 128},
    "eval": {"test_rows": 4},
}


def costs(order: list[RunSpec]) -> dict[str, Costs]:
    """The costs of runs done one after another by one new worker, by method."""
    with TemporaryDirectory(prefix="peftbench-") as folder:
        store = Store(Path(folder))
        launch(order, store, Options(workers=1), ignore)
        return {result.spec.method.name: result.costs for result, _ in store.results().values()}


def interval(ratios: list[float]) -> tuple[float, float]:
    """The 95 % interval of a mean ratio, from the logarithms of the rounds' ratios (Student's t)."""
    logs = np.log(ratios)
    half = float(t.ppf(0.975, len(logs) - 1)) * stdev(logs) / len(logs) ** 0.5
    return float(np.exp(fmean(logs) - half)), float(np.exp(fmean(logs) + half))


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    specs = expand(GRID)
    orders = {"forwards": specs, "backwards": specs[::-1]}
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    memory: dict[str, set[int | None]] = defaultdict(set)
    for number in range(rounds):
        # Who goes first changes, so that a machine that grows busier disturbs both alike.
        for name in sorted(orders, reverse=bool(number % 2)):
            for method, found in costs(orders[name]).items():
                assert found.train_seconds is not None, f"{method} was not trained"
                seconds[method, name].append(found.train_seconds)
                memory[method].add(found.peak_memory_bytes)
    table = Table(
        *("method", "forwards s", "backwards s", "ratio (95 %)", "holds 1", "spread of rounds", "peak bytes"),
        title=f"pocket model, 1 thread, training seconds, medians of {rounds} rounds",
    )
    for method in METHODS:
        one, other = seconds[method, "forwards"], seconds[method, "backwards"]
        low, high = interval([b / a for a, b in zip(one, other, strict=True)])
        spread = max((max(times) - min(times)) / median(times) for times in (one, other))
        table.add_row(
            method,
            f"{median(one):.2f}",
            f"{median(other):.2f}",
            f"{median(other) / median(one):.3f} ({low:.3f} to {high:.3f})",
            "yes" if low <= 1 <= high else "NO",
            f"{100 * spread:.0f} %",
            " ".join(f"{peak:,}" for peak in sorted(memory[method], key=str))
            + ("" if len(memory[method]) == 1 else " !"),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
