"""Check a task before use. A finding that would invalidate results is a problem."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftbench.checks import smoke_training, static_checks
from peftbench.checks.static_checks import Finding
from peftbench.core.registry import UserError
from peftbench.tasks import resolve
from peftbench.tasks._prompt import prompt
from peftbench.tasks._splits import RowLimits, split

SHOWN = 3


@dataclass
class TaskReport:
    """Findings for a task. `shown` are rendered rows: prompt and target."""

    task: str
    shown: list[dict[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def problems(self) -> int:
        return sum(finding.problem for finding in self.findings)


TellTask = Callable[[Finding], None]


def check_task(
    name: str, arguments: Mapping[str, Any], data: Path | None = None, train: bool = True, tell: TellTask | None = None
) -> TaskReport:
    """Check a task under these arguments, with a short training of the pocket model if `train`.

    `tell` is called with each finding immediately. Raises `UserError` for an unknown name, an invalid argument or
    unavailable data.
    """
    specs = smoke_training.specs(name, arguments)
    task, given = resolve(specs[0].task.name, specs[0].task.arguments), specs[0].task.arguments
    report = TaskReport(str(specs[0].task))

    def found(finding: Finding) -> bool:
        report.findings.append(finding)
        if tell:
            tell(finding)
        return not finding.problem

    if not found(static_checks.check_rows(task, given, data)):
        return report
    try:
        splits = split(task, given, "all", 0, RowLimits(), root=data)
    except UserError as error:
        found(Finding("splits", str(error), True))
        return report
    report.shown = [{"prompt": prompt(task.facts, e.fields), "target": e.target} for e in splits.train[:SHOWN]]
    found(static_checks.split_sizes(splits))
    answers, lengths, mean = static_checks.check_tokens(task, splits)
    found(answers)
    if task.facts.labels:
        found(static_checks.balance(task, splits))
    found(static_checks.leaks(splits))
    if found(lengths) and train:
        found(smoke_training.learns(specs, splits, mean, data))
    return report
