"""What a method may know before its training begins."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from peftbench.engine.families.decoder import pad
from peftbench.engine.tokenization import Encoded
from peftbench.methods import TrainingContext

IGNORED = -100
"""The label of a position without one, in `transformers`."""


def training_context(
    network: torch.nn.Module, steps: int, rows: Callable[[], Iterator[Sequence[Encoded]]]
) -> TrainingContext:
    """The steps of a training, and the rows of each as inputs of the network. `rows()`: those rows, step by step."""

    def batches() -> Iterator[dict[str, Any]]:
        for batch in rows():
            yield model_inputs(network, batch)

    return TrainingContext(steps, batches)


def model_inputs(network: Any, rows: Sequence[Encoded]) -> dict[str, Any]:
    """Rows as `transformers` takes them, padded on the right: labels are the targets, and no other position has one."""
    on = next(iter(network.parameters())).device
    if network.config.is_encoder_decoder:
        ids, mask = pad([row.prompt for row in rows], 0, "right", on)
        labels, _ = pad([row.target for row in rows], IGNORED, "right", on)
    else:
        ids, mask = pad([row.prompt + row.target for row in rows], 0, "right", on)
        labels, _ = pad([[IGNORED] * len(row.prompt) + row.target for row in rows], IGNORED, "right", on)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
