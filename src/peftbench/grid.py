"""A grid file multiplied out: models × methods × tasks × sizes × seeds, sweeps included, exceptions left out.

Every name and argument is checked here, before anything heavy is imported.
"""

import hashlib
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from peftbench.choices import Entry, by_todays_names, method_choices, model_choices, named, task_choices, values
from peftbench.methods import METHODS, MethodFacts
from peftbench.ranges import Space, Tune, is_range
from peftbench.registry import UserError, did_you_mean
from peftbench.spec import Choice, Evaluation, Noun, RunSpec, Training
from peftbench.tasks import TASKS

UNTRAINED = ("max_length", "validation_rows", "precision")
"""All that training settings can change of a run that trains nothing."""
READY = Path(__file__).parent / "grids"
RULE_KEYS = ("model", "method", "task", "size", "seed")


class Grid(Noun):
    """What a grid file says. An entry of models, methods and tasks is a name, or a table with `use` and arguments.

    `size` has other editions of the grid by name, such as a small one: keys that take the place of the grid's own.
    """

    name: str = "grid"
    about: str = ""
    size: dict[str, dict[str, Any]] = Field(default_factory=dict)
    models: tuple[Entry, ...] = Field(("pocket",), min_length=1)
    methods: tuple[Entry, ...] = Field(min_length=1)
    tasks: tuple[Entry, ...] = Field(min_length=1)
    sizes: tuple[PositiveInt | Literal["all"], ...] = Field(("all",), min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field((0,), min_length=1)
    train: dict[str, Any] = Field(default_factory=dict)
    eval: dict[str, Any] = Field(default_factory=dict)
    tune: Tune | None = None
    exceptions: tuple[dict[str, Any], ...] = Field((), alias="except")


def ready() -> dict[str, Path]:
    """The grids that come with the package, by name."""
    return {path.stem: path for path in sorted(READY.glob("*.toml"))}


def load(source: "Grid | Mapping[str, Any] | str | Path", size: str | None = None) -> Grid:
    """A grid from a file, by the name of a ready one, or as a mapping of the same shape; or the edition called `size`.

    Raises `UserError` for a key or a value that is wrong.
    """
    if isinstance(source, Grid):
        return source
    where, content, folder = "grid", source, Path()
    if isinstance(source, str | Path):
        where = f"grid {source}"
        content, folder = _read(Path(source), where)
    assert isinstance(content, Mapping)
    if size is not None:
        content = _edition(content, size, where)
    known = [field.alias or name for name, field in Grid.model_fields.items()]
    for key in content:
        if key not in known:
            raise UserError(f"{where}: {did_you_mean('key', key, known)}")
    try:
        grid = Grid.model_validate(dict(content))
    except ValidationError as error:
        raise UserError(f"{where}: {_problem(error)}") from None
    tasks = tuple(_located(entry, folder) for entry in grid.tasks)
    methods = tuple(_found(entry, folder) for entry in grid.methods)
    evaluation = _full(grid.eval, ("retention_text",), folder)
    return grid.model_copy(update={"tasks": tasks, "methods": methods, "eval": evaluation})


def _read(path: Path, where: str) -> tuple[dict[str, Any], Path]:
    """What a file says, or a ready grid of that name, and the folder that its paths start from."""
    grids = ready()
    if not path.exists() and path.suffix == "":
        if path.name != str(path) or path.name not in grids:
            raise UserError(f"no such file, and {did_you_mean('ready grid', str(path), list(grids))}")
        path = grids[path.name]
    try:
        content = {"name": path.stem} | tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not TOML: {error}") from error
    return content, path.parent


def _edition(content: Mapping[str, Any], size: str, where: str) -> dict[str, Any]:
    """The content of a grid with the keys of one of its editions in place of its own."""
    editions = content.get("size", {})
    if not isinstance(editions, Mapping) or not isinstance(editions.get(size), Mapping):
        known = list(editions) if isinstance(editions, Mapping) else []
        raise UserError(f"{where}: {did_you_mean('size', size, known) if known else 'it has one size only'}")
    own = {key: value for key, value in content.items() if key != "size"}
    return own | {"name": f"{content.get('name', 'grid')}-{size}"} | dict(editions[size])


def _located(entry: Entry, folder: Path) -> Entry:
    """An entry of tasks with files of the user's own by their full paths; without `use`, the task is `file`."""
    if isinstance(entry, str) or not {"data", "use"} & entry.keys():
        return entry
    entry = {"use": "file"} | entry
    return _full(entry, ("data", "test"), folder) if entry["use"] == "file" else entry


def _found(entry: Entry, folder: Path) -> Entry:
    """An entry of methods with its folder of files, if it has one, by its full path."""
    if isinstance(entry, str):
        return entry
    keys = [unit.facts.folder for unit in METHODS if unit.name == entry.get("use")]
    return _full(entry, keys, folder)


def _full(entry: dict[str, Any], keys: Sequence[str], folder: Path) -> dict[str, Any]:
    """An entry with full paths: from `folder` if they are there, else from the working directory."""

    def full(path: Any) -> Any:
        if isinstance(path, list):
            return [full(one) for one in path]
        if not isinstance(path, str | Path):
            return path
        asked = Path(path).expanduser()
        return str((folder / asked if (folder / asked).exists() else asked).absolute())

    return entry | {key: full(entry[key]) for key in keys if key in entry}


def expand(
    source: "Grid | Mapping[str, Any] | str | Path",
    models: Sequence[str] = (),
    limit: int | None = None,
    size: str | None = None,
) -> list[RunSpec]:
    """The run specs of a grid, each once, in the order model, task, size, method, seed; `models` instead of its own.
    `limit`: at most so many training rows, and so many test rows. `size`: the edition of the grid.

    Raises `UserError` for whatever is not known, with the nearest name, for an exception that leaves out nothing, and
    for a grid with `[tune]`: which runs that means depends on results (`peftbench.tuning`).
    """
    grid = load(source, size)
    if grid.tune is not None:
        raise UserError(f"grid '{grid.name}' has [tune], so its runs depend on results: ask peftbench.tuning.search")
    return [spec for spec, _ in cells(grid, models, limit)]


def cells(grid: Grid, models: Sequence[str] = (), limit: int | None = None) -> list[tuple[RunSpec, Space]]:
    """As `expand`, with the ranges that are to be searched, at whose middles the run stands; none where none are."""
    try:
        return _cells(grid, models, limit)
    except UserError as error:
        raise UserError(f"grid '{grid.name}': {error}") from None


def settled(spec: RunSpec, settings: Mapping[str, Any]) -> RunSpec:
    """A run with other arguments of its method, and other training settings, by their names."""
    unit = METHODS[spec.method.name]
    arguments = {name: value for name, value in settings.items() if name in unit.parameters}
    method = spec.method.model_copy(update={"arguments": unit.check(spec.method.arguments | arguments)})
    own = {name: value for name, value in settings.items() if name not in arguments}
    training = _checked(Training, spec.train.model_dump() | own, "[train]")
    return spec.model_copy(update={"method": method, "train": _settled(training, unit.facts)})


def _cells(grid: Grid, instead: Sequence[str], limit: int | None) -> list[tuple[RunSpec, Space]]:
    grid = grid.model_copy(update={"train": by_todays_names(grid.train, "[train]")})
    models = [choice for entry in instead or grid.models for choice in model_choices(entry)]
    tasks = [choice for entry in grid.tasks for choice, _ in task_choices(_located(entry, Path()))]
    _check_names(tasks)
    _check_tune(grid)
    methods = [each for entry in grid.methods for each in method_choices(entry, grid.tune, grid.train)]
    swept = [values(None, f"[train] {name}", value) for name, value in grid.train.items()]
    trainings = [dict(zip(grid.train, chosen, strict=True)) for chosen in itertools.product(*swept)]
    evaluation, sizes = _with_text(_checked(Evaluation, grid.eval, "[eval]")), grid.sizes
    if limit is not None:
        evaluation = evaluation.model_copy(update={"test_rows": min(evaluation.test_rows or limit, limit)})
        sizes = tuple(dict.fromkeys(limit if size == "all" else min(size, limit) for size in sizes))
    # A rule about a model of the grid is no mistake when other models take its place.
    replaced = [named("model", entry)[0] for entry in grid.models if instead]
    axes = (
        [m.called or m.name for m in models] + replaced,
        [m.name for m, *_ in methods],
        [t.called or t.name for t in tasks],
    )
    for rule in grid.exceptions:
        _check_rule(rule, dict(zip(RULE_KEYS, (*axes, grid.sizes, grid.seeds), strict=True)))
    found: dict[tuple[str, Space], RunSpec] = {}
    for model, task, size, training in itertools.product(models, tasks, sizes, trainings):
        for (method, own, space), seed in itertools.product(methods, grid.seeds):
            settings = _settled(_checked(Training, training | own, "[train]"), METHODS[method.name].facts)
            spec = RunSpec(model=model, method=method, task=task, size=size, seed=seed, train=settings, eval=evaluation)
            if not any(_matches(rule, spec) for rule in grid.exceptions):
                found.setdefault((spec.id, space), spec)
    return [(spec, space) for (_, space), spec in found.items()]


def _with_text(asked: Evaluation) -> Evaluation:
    """What is asked of the evaluation, with the content of a text of the user's own, on which retention is measured."""
    if asked.retention_text is None:
        return asked.model_copy(update={"retention_version": ""})
    try:
        content = Path(asked.retention_text).read_bytes()
        words = content.decode().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"[eval] retention_text: {asked.retention_text} cannot be read as UTF-8 text: {error}"
        ) from None
    if len(words) < 2:
        raise UserError(f"[eval] retention_text: {asked.retention_text} has no text")
    version = hashlib.sha256(content).hexdigest()[:12]
    return asked.model_copy(update={"retention": True, "retention_version": version})


def _settled(asked: Training, facts: MethodFacts) -> Training:
    """Training settings without what makes no difference to a method."""
    if not facts.trains:
        return Training(**{key: getattr(asked, key) for key in UNTRAINED})
    return asked.model_copy(update={"learning_rate": None}) if asked.learning_rate == facts.learning_rate else asked


def _check_tune(grid: Grid) -> None:
    for name, value in grid.train.items():
        if is_range(value):
            raise UserError(f"[train] {name}: a range belongs in an entry of methods, as {{ use = ..., {name} = ... }}")
    if grid.tune is None:
        return
    shared = sorted({*grid.tune.seeds} & {*grid.seeds})
    if shared:
        raise UserError(f"[tune] seeds: {shared[0]} is one of the grid's seeds, on which winners are then run")
    if grid.tune.learning_rate is not None and "learning_rate" in grid.train:
        raise UserError("learning_rate stands in [train], which fixes it, and in [tune], which searches it")


def _check_names(tasks: Sequence[Choice]) -> None:
    """Raises `UserError` for two things of one name in the tables."""
    known: dict[str, Choice] = {}
    for task in tasks:
        if task.called in TASKS:
            raise UserError(f"'{task.called}' is the name of another task: give this one a name of its own")
        if task.called and known.setdefault(task.called, task) != task:
            raise UserError(f"two tasks are called '{task.called}': give each a name of its own")


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
    unknown = [one["loc"][1] for one in error.errors() if one["type"] == "extra_forbidden" and one["loc"][0] == "tune"]
    if unknown:
        return str(did_you_mean("key of [tune]", str(unknown[0]), list(Tune.model_fields)))
    # What follows the key and the place in its list is pydantic's own name for one of several types.
    return f"{'.'.join(map(str, first['loc'][:2]))}: {first['msg']}"


def _check_rule(rule: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> None:
    """Refuses a rule that leaves out nothing: every pattern has to fit one of the grid's values."""
    if not rule:
        raise UserError(f"an [[except]] needs at least one of {', '.join(RULE_KEYS)}")
    for key in rule:
        if key not in RULE_KEYS:
            raise did_you_mean("key of [[except]]", key, list(RULE_KEYS))
        there = list(dict.fromkeys(map(str, axes[key])))
        for pattern in _patterns(rule[key]):
            if not any(fnmatch(value, pattern) for value in there):
                unknown = did_you_mean(f"{key} of this grid", pattern, there)
                raise UserError(f"an [[except]] leaves out nothing: {unknown}")


def _matches(rule: Mapping[str, Any], spec: RunSpec) -> bool:
    """Whether a spec is meant by an exception: every key given must match, with `*` for any text, or be in a list."""
    task = spec.task.called or spec.task.name
    names = (spec.model.called or spec.model.name, spec.method.name, task, str(spec.size), str(spec.seed))
    actual = dict(zip(RULE_KEYS, names, strict=True))

    return all(any(fnmatch(actual[key], pattern) for pattern in _patterns(value)) for key, value in rule.items())


def _patterns(value: Any) -> list[str]:
    return [str(one) for one in (value if isinstance(value, list) else [value])]
