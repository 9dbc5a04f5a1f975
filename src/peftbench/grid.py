"""A grid file multiplied out: models × methods × tasks × sizes × seeds, sweeps included, exceptions left out.

Every name and argument is checked here, before anything heavy is imported.
"""

import itertools
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from peftbench.methods import METHODS
from peftbench.models import find
from peftbench.registry import Registry, Unit, UserError, did_you_mean
from peftbench.spec import Choice, Evaluation, Noun, RunSpec, Training
from peftbench.tasks import TASKS, suite

Entry = str | dict[str, Any]
UNTRAINED = ("max_length", "validation_rows", "precision")
"""All that training settings can change of a run that trains nothing."""


class Grid(Noun):
    """What a grid file says. An entry of models, methods and tasks is a name, or a table with `use` and arguments."""

    name: str = "grid"
    models: tuple[Entry, ...] = ("pocket",)
    methods: tuple[Entry, ...]
    tasks: tuple[Entry, ...]
    sizes: tuple[int | Literal["all"], ...] = ("all",)
    seeds: tuple[int, ...] = (0,)
    train: dict[str, Any] = Field(default_factory=dict)
    eval: dict[str, Any] = Field(default_factory=dict)
    exceptions: tuple[dict[str, Any], ...] = Field((), alias="except")


def load(source: "Grid | Mapping[str, Any] | str | Path") -> Grid:
    """A grid from a file, or as a mapping of the same shape. Raises `UserError` for a key or a value that is wrong."""
    if isinstance(source, Grid):
        return source
    where, content = "grid", source
    if isinstance(source, str | Path):
        where = f"grid {source}"
        try:
            content = {"name": Path(source).stem} | tomllib.loads(Path(source).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{where}: cannot be read: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{where}: not TOML: {error}") from error
    assert isinstance(content, Mapping)
    known = [field.alias or name for name, field in Grid.model_fields.items()]
    for key in content:
        if key not in known:
            raise UserError(f"{where}: {did_you_mean('key', key, known)}")
    try:
        return Grid.model_validate(dict(content))
    except ValidationError as error:
        raise UserError(f"{where}: {_problem(error)}") from None


def expand(source: "Grid | Mapping[str, Any] | str | Path") -> list[RunSpec]:
    """The run specs of a grid, each once, in the order model, task, size, method, seed.

    Raises `UserError` for whatever is not known, with the nearest name.
    """
    grid = load(source)
    try:
        return _expand(grid)
    except UserError as error:
        raise UserError(f"grid '{grid.name}': {error}") from None


def _expand(grid: Grid) -> list[RunSpec]:
    models = [_model(entry) for entry in grid.models]
    tasks = [choice for entry in grid.tasks for choice, _ in _task(entry)]
    methods = [pair for entry in grid.methods for pair in _choices(METHODS, entry, Training)]
    trainings = [dict(zip(grid.train, values, strict=True)) for values in _product(grid.train.values())]
    evaluation = _checked(Evaluation, grid.eval, "[eval]")
    specs: dict[str, RunSpec] = {}
    for model, task, size, training in itertools.product(models, tasks, grid.sizes, trainings):
        for (method, own), seed in itertools.product(methods, grid.seeds):
            settings = _checked(Training, training | own, "[train]")
            if not METHODS[method.name].facts.trains:
                settings = Training(**{key: getattr(settings, key) for key in UNTRAINED})
            spec = RunSpec(model=model, method=method, task=task, size=size, seed=seed, train=settings, eval=evaluation)
            if not any(_matches(rule, spec) for rule in grid.exceptions):
                specs.setdefault(spec.id, spec)
    return list(specs.values())


def _model(entry: Entry) -> Choice:
    name = entry if isinstance(entry, str) else entry.get("use", "")
    found = find(name)
    # A directory is named by its full path, so that a worker elsewhere on this machine finds it.
    return Choice(name=str(found.directory) if found.name != name and found.directory else name, version=found.version)


def _task(entry: Entry) -> Iterator[tuple[Choice, dict[str, Any]]]:
    if isinstance(entry, str) and entry not in TASKS and suite(entry):
        for name in suite(entry):
            yield from _choices(TASKS, name, None)
    else:
        yield from _choices(TASKS, entry, None)


def _choices(
    registry: Registry[Any], entry: Entry, settings: type[Noun] | None
) -> Iterator[tuple[Choice, dict[str, Any]]]:
    """The choices of an entry, lists swept, each with the settings that stand among its arguments."""
    given = {"use": entry} if isinstance(entry, str) else dict(entry)
    if "use" not in given:
        raise UserError(f'an entry of {registry.kind}s needs a name: {{ use = "NAME", ... }}')
    unit = registry[given.pop("use")]
    fields = settings.model_fields if settings else {}
    for name in given:
        if name not in unit.parameters and name not in fields:
            raise did_you_mean(f"argument of {unit.kind} '{unit.name}'", name, [*unit.parameters, *fields])
    swept = [_values(unit, name, value) for name, value in given.items()]
    for values in itertools.product(*swept):
        chosen = dict(zip(given, values, strict=True))
        arguments = unit.check({name: value for name, value in chosen.items() if name in unit.parameters})
        own = {name: value for name, value in chosen.items() if name not in unit.parameters}
        yield Choice(name=unit.name, arguments=arguments, version=unit.facts.version), own


def _values(unit: Unit[Any], name: str, value: Any) -> Sequence[Any]:
    """The values of an argument: a list is a sweep, unless the argument itself takes a list."""
    if not isinstance(value, list):
        return [value]
    takes_list = name in unit.parameters and _is_sequence(unit.parameters[name].annotation)
    return [value] if takes_list and not any(isinstance(item, list) for item in value) else value


def _is_sequence(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Sequence) and not issubclass(origin, str)


def _product(values: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    return itertools.product(*(value if isinstance(value, list) else [value] for value in values))


def _checked(noun: type[Any], given: Mapping[str, Any], where: str) -> Any:
    for key in given:
        if key not in noun.model_fields:
            raise did_you_mean(f"key of {where}", key, list(noun.model_fields))
    try:
        return noun(**given)
    except ValidationError as error:
        raise UserError(f"{where}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _matches(rule: Mapping[str, Any], spec: RunSpec) -> bool:
    """Whether a spec is meant by an exception: every key given must match, with `*` for any text, or be in a list."""
    actual = {
        "model": spec.model.name,
        "method": spec.method.name,
        "task": spec.task.name,
        "size": str(spec.size),
        "seed": str(spec.seed),
    }
    for key in rule:
        if key not in actual:
            raise did_you_mean("key of [[except]]", key, list(actual))

    def fits(key: str) -> bool:
        patterns = rule[key] if isinstance(rule[key], list) else [rule[key]]
        return any(fnmatch(actual[key], str(pattern)) for pattern in patterns)

    return bool(rule) and all(map(fits, rule))
