"""Progress of a grid while it runs: a bar with the time left, and one line per worker."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from peftbench.core.text_escaping import visible
from peftbench.launch import Event


def run_title(event: Event) -> str:
    """A short title of a run: task, method and seed, and for a search the number of its trial, from 1."""
    spec = event.spec
    trial = f"trial {spec.trial.number + 1}, " if spec.trial else ""
    return visible(f"{spec.task} · {spec.method} · {trial}seed {spec.seed}")


class ProgressDisplay:
    """A watcher that draws progress on a terminal; without a terminal it prints one line per finished run.

    With an `opening` it prints that line first and at the end how many runs were done in what time.
    """

    def __init__(self, console: Console, total: int, opening: str = "") -> None:
        self.console, self.done, self.total = console, 0, total
        self.opening, self.started = opening, time.monotonic()
        self.counts: dict[str, int] = {}
        self.progress = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=False),
            TextColumn("{task.fields[state]}", style="dim", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.bar = self.progress.add_task("grid", total=total, state="")
        self.lines: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        if self.opening:
            self._say(self.opening)
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self.lines.values():
            self.progress.remove_task(line)
        self.progress.stop()
        if self.opening and kind is None:
            self._say(f"{self.done} runs in {time.monotonic() - self.started:.0f} s")

    def __call__(self, event: Event) -> None:
        if event.kind == "elsewhere":
            self.done += 1
            self.progress.update(self.bar, completed=self.done)
            if not self.console.is_terminal:
                self._say(f"[{self.done}/{self.total}] {run_title(event)}: done by another launcher")
            return
        if event.kind == "fault":
            wait = event.data["wait"]
            fate = "given up" if wait is None else f"will be tried again after {wait:.0f} s"
            self._say(f"fault of this machine: {run_title(event)}: {event.data['reason']}: {fate}", style="red")
            return
        if event.worker not in self.lines:
            self.lines[event.worker] = self.progress.add_task(f"worker {event.worker}", total=None, state="")
        line = self.lines[event.worker]
        if event.kind == "start":
            self.progress.reset(line, total=None, state=run_title(event))
        elif event.kind == "step":
            self._step(line, event)
        elif event.kind == "died":
            fate = "tried again" if event.data["again"] else "given up"
            self._say(f"worker {event.worker} died (exit code {event.data['exit_code']}): {run_title(event)} {fate}")
        else:
            self._done(event)

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(visible(text), style=style, markup=False, highlight=False, soft_wrap=True)

    def _step(self, line: TaskID, event: Event) -> None:
        state = run_title(event)
        if "loss" in event.data:
            state += f" · loss {event.data['loss']:.3f} · {event.data['tokens_per_second']:,.0f} tokens/s"
        elif "phase" in event.data:
            state += f" · {event.data['phase']}"
        known: dict[str, Any] = {
            k: event.data[v] for k, v in (("completed", "step"), ("total", "steps")) if v in event.data
        }
        self.progress.update(line, state=state, **known)

    def _done(self, event: Event) -> None:
        self.done += 1
        status = event.data["status"]
        self.counts[status] = self.counts.get(status, 0) + 1
        self.progress.update(self.bar, completed=self.done)
        if status == "pruned":
            if not self.console.is_terminal:
                self._say(f"[{self.done}/{self.total}] {run_title(event)}: stopped early")
        elif status != "ok":
            self._say(f"{status}: {run_title(event)}: {event.data.get('error')}", style="red")
        elif not self.console.is_terminal:
            # A trial is judged by its validation loss; its test score is not shown before the choice is made.
            loss = event.data["validation_loss"] if event.spec.trial else None
            found = f"{event.data['score']:.1f}" if loss is None else f"validation loss {loss:.3f}"
            self._say(f"[{self.done}/{self.total}] {run_title(event)}: {found}")
