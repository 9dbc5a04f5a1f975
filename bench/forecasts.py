"""What a plan says of a training step against the step itself: ten methods on the bundled model and on a larger one.

`peftbench calibrate` first; nothing else should run. Prints a table in Markdown.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from peftbench.engine.base_model import Base
from peftbench.engine.model_without_weights import FORMULAS
from peftbench.engine.tokenization import Encoded
from peftbench.engine.train import Trainer
from peftbench.grid.expand import expand
from peftbench.methods import METHODS
from peftbench.models import find
from peftbench.profiling.cost_by_length import profile
from peftbench.profiling.devices import find_device
from peftbench.profiling.dry_run import BatchShape
from peftbench.single_run import adapt

METHODS_SHOWN: tuple[Any, ...] = (
    *("full", "lora", "dora", "ia3", "adapter", "bitfit", "lntuning"),
    {"use": "prompt-tuning", "tokens": 20},
    {"use": "p-tuning", "tokens": 20, "hidden": 128},
    {"use": "prefix-tuning", "tokens": 16, "hidden": 128},
)
ROWS: BatchShape = (116, 12)
STEPS = 7


def larger(folder: Path) -> Path:
    """A random decoder of 63 M parameters, in the precision that is chosen for it here."""
    tokenizer = AutoTokenizer.from_pretrained(find("pocket").source)
    config = LlamaConfig(
        vocab_size=16384,
        hidden_size=640,
        intermediate_size=1792,
        num_hidden_layers=9,
        num_attention_heads=10,
        num_key_value_heads=5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def line(base: Base, name: str, method: Any) -> str:
    """One method on one model: what was told and what is."""
    (spec,) = expand({"models": [name], "methods": [method], "tasks": ["pocket_topic"], "sizes": [64], "seeds": [0]})
    told = profile(spec, [ROWS])
    step = told.at(ROWS)
    torch.manual_seed(0)
    adapted = adapt(base, METHODS[spec.method.name], spec)
    trainer = Trainer(adapted, spec.train, 1e-5, base.precision, 0)
    # One row shorter than the others, as in life: so attention has its mask.
    whole = Encoded([1] * ROWS[0], [1] * ROWS[1])
    batch = [Encoded([1] * (ROWS[0] - 1), whole.target), *[whole] * (trainer.step_rows - 1)]
    found = trainer._probe(batch)
    assert found is not None
    optimizer, scheduler = trainer.optimizer(STEPS + 2)
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        trainer.step(batch, optimizer, scheduler)
        seconds.append(time.perf_counter() - started)
    mapping = {op: getattr(f, "__wrapped__", f) for op, f in FORMULAS.items() if "for_cpu" in str(op)}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        trainer.step(batch, optimizer, scheduler)
    trained = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
    if adapted.remove is not None:
        adapted.remove()
    base.restore()
    took, expected = float(np.median(seconds[2:])), find_device().seconds(step.counts)
    cells = [
        *("pocket" if name == "pocket" else f"63 M, {base.precision}", str(spec.method)),
        f"{told.trainable_parameters:,}" + ("" if told.trainable_parameters == trained else f" (is {trained:,})"),
        f"{step.counts.flops / 1e9:.2f}",
        f"{100 * (step.counts.flops / counter.get_total_flops() - 1):+.2f} %",
        f"{step.peak.total / 1e6:.1f}",
        f"{100 * (step.peak.total / found.total - 1):+.1f} %",
        "–" if expected is None else f"{1000 * expected:.0f}",
        "–" if expected is None else f"{100 * (expected / took - 1):+.0f} %",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    heads = "model, method, trainable, GFLOP a step, off by, peak MB, off by, ms a step, off by".split(", ")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pocket", str(larger(Path(folder)))):
            base = Base(find(name))
            for method in METHODS_SHOWN:
                print(line(base, name, method), flush=True)


if __name__ == "__main__":
    main()
