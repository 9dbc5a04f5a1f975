"""What the recipes of the pocket models share: the command line, and the files that tell how a model was made."""

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peftbench.core import device
from pretraining.pocket.card import About, model_card

Make = Callable[[Path, Path, int, int, Path | None], dict[str, float]]
"""Makes a model: corpus, output, training tokens, seed, local data mirror; returns the report of the training."""


def command(about: About, description: str | None, budgets: Mapping[str, int], make: Make) -> None:
    """Read the command line of a recipe and make the model."""
    import torch

    parser = argparse.ArgumentParser(prog=f"python -m {about.module}", description=description)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of books-*.txt.xz")
    parser.add_argument("--out", type=Path, required=True, help="where model, tokenizer and card are written")
    parser.add_argument("--budget", choices=budgets, default="small")
    parser.add_argument("--tokens", type=int, help="training tokens, instead of a named budget")
    parser.add_argument("--mirror", type=Path, help="local data mirror whose test rows must not overlap the corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    report = make(asked.corpus, asked.out, asked.tokens or budgets[asked.budget], asked.seed, asked.mirror)
    print(json.dumps(report, indent=1))


def tell(out: Path, about: About, report: Mapping[str, float], facts: Mapping[str, Any]) -> dict[str, float]:
    """Write the card and the report, with the machine's part in it, to `out`; `facts` are for the card alone."""
    import torch

    report = {**report, "threads": torch.get_num_threads()}
    hardware = device.gpus()[0].name if device.has_gpu() else f"CPU ({platform.machine()})"
    (out / "README.md").write_text(model_card(about, report | {"hardware": hardware} | dict(facts)))
    (out / "pretraining.json").write_text(json.dumps(report, indent=1) + "\n")
    return report
