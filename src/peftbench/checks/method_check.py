"""The contract that every method keeps, tried on tiny random models. What would make results wrong is a problem."""

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
"""Of the trial, all its rows in each step: enough for the loss of a random model to fall."""


@dataclass
class MethodReport:
    """What was found of a method, by the shape of the model."""

    method: str
    findings: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def problems(self) -> int:
        """Broken promises; or one, if there is no model that the method can be put on."""
        broken = sum(finding.problem for found in self.findings.values() for finding in found)
        return broken or int(all("refused" in found[0].facts for found in self.findings.values()))


TellMethod = Callable[[str, Finding], None]


def check_method(name: str, arguments: Mapping[str, object], tell: TellMethod | None = None) -> MethodReport:
    """Try a method under these arguments on a tiny decoder and a tiny encoder–decoder.

    `tell` is called with the shape and each finding as it is made. A model that the method refuses with a reason is no
    problem, unless it refuses both. Raises `UserError` for an unknown name or a wrong argument.
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
    """A run of a method with these arguments. Raises `UserError` for an unknown name, a wrong argument, or a method
    that is put on one model alone.
    """
    if any(unit.name == name and unit.facts.folder for unit in METHODS):
        raise UserError(f"'{name}' is made for the model of its files: peftbench evaluate tries it there")
    found = expand({"name": "check", "methods": [{"use": name, **arguments}], "tasks": ["pocket_sentiment"]})
    if len(found) != 1:
        raise UserError(f"'{name}' with these arguments is more than one method: check one at a time")
    model = found[0].model.model_copy(update={"arguments": {"quantise": quantise} if quantise else {}})
    return found[0].model_copy(update={"train": TRAINING, "model": model})


def on(folder: Path, asked: RunSpec, abilities: bool = True, method: Method | None = None) -> Iterator[Finding]:
    """Try a method on the model of a folder, quantised as it is asked or as the method needs it; each finding as it is
    made. `abilities`: see `Trial.findings`; `method`: the one asked for, with other facts.
    """
    from peftbench.checks.method_contract import MethodTrial
    from peftbench.engine.base_model import Base
    from peftbench.methods._compatibility import base_quantisation
    from peftbench.models import find

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = Base(find(str(folder)), "fp32", base_quantisation(asked))
            yield from MethodTrial(base, asked, method or METHODS[asked.method.name]).findings(abilities)
    except UserError as problem:
        yield Finding("refused", str(problem), facts={"refused": str(problem)})
