"""Measurements after training: peak memory of answering, and on request latency and retention."""

import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from peftbench.core import device
from peftbench.core.spec import Evaluation, Latency
from peftbench.engine.base_model import Base
from peftbench.engine.generation import answer_rows, decoding
from peftbench.engine.peak_memory import allocator_peak, tracked
from peftbench.engine.tokenization import Encoded
from peftbench.methods import Adapted
from peftbench.profiling import retention
from peftbench.profiling.latency import Twin, measure_latencies
from peftbench.tasks import Task


class PostTrainingMeasurements:
    """Measurements of a run; made before the method is applied, since some are relative to the base."""

    def __init__(self, base: Base, asked: Evaluation) -> None:
        self.base, self.asked = base, asked
        self._twin = Twin(base.model) if asked.latency else None
        self._text_loss = retention.base_loss(base, asked) if asked.retention else None

    def measure(
        self, adapted: Adapted, task: Task, rows: list[Encoded]
    ) -> tuple[dict[str, Any], tuple[Latency, ...], list[str]]:
        """Return fields of `Costs`, latencies and notes, measured on the test rows."""
        found, change, notes, said = list[Latency](), None, list[str](), list[str]()
        peak = peak_memory(adapted, self.base, task, self.asked, rows)
        if self._twin is not None:
            how = decoding(adapted, self.base, task, self.asked, rows)
            found, notes = measure_latencies(adapted, self._twin, self.base, self.asked, rows, how=how)
        if self._text_loss is not None:
            change, said = retention.loss_change(adapted, self.base, self.asked)
        known = self._text_loss if math.isfinite(self._text_loss or 0.0) else None
        costs = {"base_text_loss": known, "retention_loss_change": change}
        return {"eval_peak_memory_bytes": peak, **costs}, tuple(found), notes + said


def peak_memory(adapted: Adapted, base: Base, task: Task, asked: Evaluation, rows: list[Encoded]) -> int:
    """Return the peak bytes while the batch of the longest prompts is answered again, merged if the run is merged.

    Separate from the timed phase, since tracking is slow. The copies that restore merged weights are not counted.
    """
    how = decoding(adapted, base, task, asked, rows)
    longest = sorted(rows, key=lambda row: len(row.prompt))[-asked.per_device_eval_batch_size :]
    once_more = partial(answer_rows, replace(adapted, merge=None), base, task, asked, longest, how=how)
    with nullcontext(0) if adapted.merge is None else adapted.merge() as copies:
        if device.has_gpu():
            with allocator_peak() as peak_bytes:
                once_more()
            return peak_bytes() - copies
        with tracked(adapted.model) as tracker:
            once_more()
    return int(tracker.peak)
