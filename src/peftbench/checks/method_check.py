"""Check a method against the contract on tiny random models. A finding that would invalidate results is a problem."""

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peftbench.checks import tiny_models
from peftbench.checks.static_checks import Finding
from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec, Training
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Method

TRAINING = Training(max_steps=6, eval_steps=0.5, per_device_train_batch_size=16, warmup_steps=0)
"""Training settings: full-batch steps, enough to lower the loss of a random model."""


@dataclass
class MethodReport:
    """Findings for a method, by model shape."""

    method: str
    findings: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def problems(self) -> int:
        """Number of problems; 1 if the method refuses every model."""
        broken = sum(finding.problem for found in self.findings.values() for finding in found)
        return broken or int(all("refused" in found[0].facts for found in self.findings.values()))


TellMethod = Callable[[str, Finding], None]


def check_method(name: str, arguments: Mapping[str, object], tell: TellMethod | None = None) -> MethodReport:
    """Check a method under these arguments on a tiny decoder and a tiny encoder–decoder.

    `tell` is called with the shape and each finding immediately. A refused model is a problem only if the method
    refuses both. Raises `UserError` for an unknown name or an invalid argument.
    """
    asked = tiny_spec(name, arguments)
    report = MethodReport(str(asked.method))
    for shape in tiny_models.SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            found = report.findings[shape] = []
            for finding in on(tiny_models.build_tiny(shape, Path(folder)), asked):
                found.append(finding)
                if tell:
                    tell(shape, finding)
    return report


def tiny_spec(name: str, arguments: Mapping[str, object], quantise: str | None = None) -> RunSpec:
    """Return a run. Raises `UserError` for an unknown name, an invalid argument or a method bound to one model."""
    if any(unit.name == name and unit.facts.folder for unit in METHODS):
        raise UserError(f"'{name}' is made for the model of its files: peftbench evaluate tries it there")
    found = expand({"name": "check", "methods": [{"use": name, **arguments}], "tasks": ["pocket_sentiment"]})
    if len(found) != 1:
        raise UserError(f"'{name}' with these arguments is more than one method: check one at a time")
    model = found[0].model.model_copy(update={"arguments": {"quantise": quantise} if quantise else {}})
    return found[0].model_copy(update={"train": TRAINING, "model": model})


def on(folder: Path, asked: RunSpec, abilities: bool = True, method: Method | None = None) -> Iterator[Finding]:
    """Check a method on the model of a folder, with the quantisation of the run or of the method; yield each finding.

    `abilities`: see `MethodTrial.findings`. `method` replaces the registered method.
    """
    from peftbench.checks.method_contract import MethodTrial
    from peftbench.engine.base_model import Base
    from peftbench.methods._model_compatibility import base_quantisation
    from peftbench.models import find

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = Base(find(str(folder)), "fp32", base_quantisation(asked))
            yield from MethodTrial(base, asked, method or METHODS[asked.method.name]).findings(abilities)
    except UserError as problem:
        yield Finding("refused", str(problem), facts={"refused": str(problem)})
