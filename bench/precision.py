"""float32 and bfloat16 on this machine: one layer, attention, and training steps: `python bench/precision.py`.

One thread; the ways take turns. A line of JSON for each measurement: how many times as fast a layer is in bfloat16, by
its shape; milliseconds of attention, forward and backward, by torch and by products; tokens per second of training the
pocket model, and narrower models of five layers with random weights.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from engine import medians
from torch.nn import functional
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from peftbench.core import device
from peftbench.core.spec import Training
from peftbench.engine.base_model import Base
from peftbench.engine.bf16_cpu_attention import by_products
from peftbench.engine.precision import bf16_speed_up
from peftbench.engine.tokenization import Encoder, encode_examples
from peftbench.engine.train import Trainer
from peftbench.methods import METHODS
from peftbench.models import find
from peftbench.tasks import TASKS
from peftbench.tasks._splits import RowLimits, split

NARROW = ((64, 128), (96, 256), (128, 256), (128, 512))
SHAPES = ((32, 64), *NARROW, (256, 640), (576, 1536), (1024, 2816))
"""Hidden size and feed-forward size."""
ATTENTION = ((8, 4, 64, 64), (8, 9, 128, 64), (8, 9, 256, 64), (4, 9, 512, 64))
"""Rows, heads, length, width."""


def tell(what: str, found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"what": what} | found) + "\n")
    sys.stdout.flush()


def attention(shape: tuple[int, int, int, int]) -> dict[str, float]:
    """Milliseconds of causal attention, forward and backward."""

    def step(dtype: torch.dtype, *, products: bool) -> Callable[[], object]:
        inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
        query, key, value = inputs

        def once() -> object:
            if products:
                out = by_products(query, key, value, None, None, causal=True)
            else:
                out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            return torch.autograd.grad(out.float().sum(), inputs)

        return once

    ways = {
        "fp32, torch": step(torch.float32, products=False),
        "bf16, torch": step(torch.bfloat16, products=False),
        "bf16, products": step(torch.bfloat16, products=True),
    }
    return {name: round(1000 * seconds, 2) for name, seconds in medians(ways).items()}


def narrow(shape: tuple[int, int], folder: str) -> str:
    """Save a decoder of this shape with random weights and pocket's tokenizer; return the folder."""
    tokenizer = AutoTokenizer.from_pretrained(find("pocket").source)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape[0],
        intermediate_size=shape[1],
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def training(method: str, model: str) -> dict[str, int]:
    """Tokens per second of training steps of 8 rows of pocket_sentiment."""
    task, tokens = TASKS["pocket_sentiment"], 0
    ways: dict[str, Callable[[], object]] = {}
    for name, precision in (("fp32", "fp32"), ("bf16, attention of torch", "bf16"), ("bf16", "bf16")):
        base = Base(find(model), "bf16" if precision == "bf16" else "fp32")
        if name.endswith("torch"):
            base.model.set_attn_implementation("sdpa")
        encoder = Encoder(base.tokenizer, task.facts, 256)
        rows = encode_examples(encoder, split(task, {}, 80, 0, RowLimits(8, 8), root=None).train)
        tokens = sum(len(row.prompt) + len(row.target) for row in rows)
        adapted = METHODS[method].function(base.model)
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        trainer = Trainer(adapted, Training(max_steps=1000, per_device_train_batch_size=8), 1e-4, precision, 0)
        optimizer = trainer.optimizer(1000)

        def once(trainer: Trainer = trainer, rows: Any = rows, optimizer: Any = optimizer) -> None:
            for batch in trainer._batches(rows, len(rows) // 8):
                trainer.step(batch, *optimizer)

        ways[name] = once
    return {name: round(tokens / seconds) for name, seconds in medians(ways).items()}


def main() -> None:
    """A line for each measurement."""
    torch.set_num_threads(1)
    assert not device.has_gpu(), "what this measures is a CPU"
    for shape in SHAPES:
        tell(f"layer {shape[0]} × {shape[1]}", {"bf16, times as fast": round(bf16_speed_up(shape), 2)})
    for sizes in ATTENTION:
        tell(f"attention {sizes}", attention(sizes))
    for method in ("lora", "ia3", "full"):
        tell(f"training, {method}, pocket", training(method, "pocket"))
    for shape in NARROW:
        with tempfile.TemporaryDirectory() as folder:
            tell(f"training, lora, {shape[0]} × {shape[1]}", training("lora", narrow(shape, folder)))


if __name__ == "__main__":
    main()
