"""A grid file multiplied out: models × methods × tasks × sizes × seeds, sweeps included, exceptions left out.

Every name and argument is checked here, before anything heavy is imported.
"""

import hashlib
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, PrivateAttr, ValidationError

from peftbench.core.registry import UserError, did_you_mean
from peftbench.core.search_space import Space, Tune, is_range
from peftbench.core.spec import Choice, Evaluation, Noun, RunSpec, Training
from peftbench.core.text_escaping import problem
from peftbench.grid.entry_parsing import (
    Entry,
    by_todays_names,
    method_choices,
    model_choices,
    named_entry,
    task_choices,
    values,
)
from peftbench.methods import METHODS, MethodFacts
from peftbench.tasks import TASKS, suite

UNTRAINED = ("max_length", "validation_rows", "precision")
"""All that training settings can change of a run that trains nothing."""
READY = Path(__file__).parent / "ready"
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
    _replaced: dict[str, Any] = PrivateAttr(default_factory=dict)
    """What the grid itself says where its edition says something else."""


def ready() -> dict[str, Path]:
    """The grids that come with the package, by name."""
    return {path.stem: path for path in sorted(READY.glob("*.toml"))}


def load_grid(source: "Grid | Mapping[str, Any] | str | Path", size: str | None = None) -> Grid:
    """A grid from a file, by the name of a ready one, or as a mapping of the same shape; or the edition called `size`.

    Raises `UserError` for a key or a value that is wrong.
    """
    if isinstance(source, Grid):
        return source
    where, content, folder = "grid", source, Path()
    if isinstance(source, str | Path):
        where = f"grid {source}"
        content, folder = _read(source, where)
    assert isinstance(content, Mapping)
    replaced: dict[str, Any] = {}
    if size is not None:
        whole, content = content, _edition(content, size, where)
        replaced = {key: value for key, value in whole.items() if content.get(key) != value}
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
    grid = grid.model_copy(update={"tasks": tasks, "methods": methods, "eval": evaluation})
    grid._replaced.update(replaced)
    return grid


def _read(source: str | Path, where: str) -> tuple[dict[str, Any], Path]:
    """What a ready grid of that name says, or else a file, and the folder that its paths start from.

    What is called as a ready grid is that grid, whatever lies there: `./NAME` is the file.
    """
    grids = ready()
    path = grids.get(str(source), Path(source))
    if path.is_dir():
        raise UserError(f"{where}: a folder; give a grid file, or the name of a ready grid: {', '.join(grids)}")
    if not path.exists() and path.suffix == "":
        raise UserError(f"no such file, and {did_you_mean('ready grid', str(source), list(grids))}")
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
    grid = load_grid(source, size)
    if grid.tune is not None:
        raise UserError(f"grid '{grid.name}' has [tune], so its runs depend on results: ask peftbench.tuning.search")
    return [spec for spec, _ in searchable_cells(grid, models, limit)]


def searchable_cells(grid: Grid, models: Sequence[str] = (), limit: int | None = None) -> list[tuple[RunSpec, Space]]:
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
    models = [(choice, _names(entry, choice)) for entry in instead or grid.models for choice in model_choices(entry)]
    located = [_located(entry, Path()) for entry in grid.tasks]
    asked = [(entry, choice) for entry in located for choice, _ in task_choices(entry)]
    told = _told_apart([choice for _, choice in asked])
    tasks = [
        (task, tuple(dict.fromkeys(_names(entry, task) + _names(entry, choice))))
        for (entry, choice), task in zip(asked, told, strict=True)
    ]
    _check_tune(grid)
    entries = [(entry, each) for entry in grid.methods for each in method_choices(entry, grid.tune, grid.train)]
    methods = [(each, _names(entry, each[0])) for entry, each in entries]
    swept = [values(None, f"[train] {name}", value) for name, value in grid.train.items()]
    trainings = [dict(zip(grid.train, chosen, strict=True)) for chosen in itertools.product(*swept)]
    evaluation = _limited(_with_text(_checked(Evaluation, grid.eval, "[eval]")), limit)
    _check_rules(grid, [[name for _, names in axis for name in names] for axis in (models, methods, tasks)])
    found: dict[tuple[str, Space], RunSpec] = {}
    for (model, *m), (task, *t), size, training in itertools.product(models, tasks, grid.sizes, trainings):
        rows = size if limit is None else limit if size == "all" else min(size, limit)
        for (method, own, space), *h in methods:
            settings = _settled(_checked(Training, training | own, "[train]"), METHODS[method.name].facts)
            first = RunSpec(model=model, method=method, task=task, size=rows, seed=0, train=settings, eval=evaluation)
            for seed in grid.seeds:
                # A rule is about the cells as the grid names them, whatever was given in their place.
                cell = dict(zip(RULE_KEYS, (*m, *h, *t, (str(size),), (str(seed),)), strict=True))
                if not any(_matches(rule, cell) for rule in grid.exceptions):
                    spec = first.with_seed(seed)
                    found.setdefault((spec.id, space), spec)
    return [(spec, space) for (_, space), spec in found.items()]


def _names(entry: Entry, choice: Choice) -> tuple[str, ...]:
    """What an exception may call a model, a method or a task: its name, or what the entry has, which may be a suite."""
    written = entry if isinstance(entry, str) else str(entry.get("use", ""))
    return tuple(dict.fromkeys(name for name in (choice.called, choice.name, written) if name))


def _limited(asked: Evaluation, limit: int | None) -> Evaluation:
    return asked if limit is None else asked.model_copy(update={"test_rows": min(asked.test_rows or limit, limit)})


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


def _told_apart(tasks: Sequence[Choice]) -> list[Choice]:
    """The tasks; those of files that have one name and other content have the beginning of a digest behind it.

    Raises `UserError` for two other things of one name in the tables.
    """
    versions: dict[str, set[str]] = {}
    for task in tasks:
        versions.setdefault(task.called, set()).add(_content(task))
    told = [
        task.model_copy(update={"called": f"{task.called}-{_content(task)}"})
        if len(versions[task.called]) > 1
        else task
        for task in tasks
    ]
    known: dict[str, Any] = {}
    for task in told:
        if task.called in TASKS:
            raise UserError(f"'{task.called}' is the name of another task: give this one a name of its own")
        thing = (task.name, task.version, task.asked)
        if task.called and known.setdefault(task.called, thing) != thing:
            raise UserError(f"two tasks are called '{task.called}': give each a name of its own")
    return told


def _content(task: Choice) -> str:
    """The beginnings of the digests of the files of a task; nothing for one without."""
    return "-".join(digest[:8] for digest in str(task.version).split("-")[1:]) if task.paths else ""


def _checked(noun: type[Any], given: Mapping[str, Any], where: str) -> Any:
    for key in given:
        if key not in noun.model_fields:
            raise did_you_mean(f"key of {where}", key, list(noun.model_fields))
    try:
        return noun(**given)
    except ValidationError as error:
        raise UserError(f"{where}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    unknown = [one["loc"][1] for one in error.errors() if one["type"] == "extra_forbidden" and one["loc"][0] == "tune"]
    if unknown:
        return str(did_you_mean("key of [tune]", str(unknown[0]), list(Tune.model_fields)))
    return problem(error)


def _check_rules(grid: Grid, names: Sequence[Sequence[str]]) -> None:
    """Refuses a rule that leaves out nothing: every pattern has to fit one of the grid's values.

    `names` are those of the models, methods and tasks that are run. A rule about what an edition, or a model given in
    place of the grid's, has replaced is no mistake.
    """
    own = [[str(value) for value in values] for values in (grid.sizes, grid.seeds)]
    axes = dict(zip(RULE_KEYS, [*map(list, names), *own], strict=True))
    axes["model"] += [named_entry("model", entry)[0] for entry in grid.models]
    for key in RULE_KEYS:
        axes[key] += _written(key, grid._replaced.get(f"{key}s", ()))
    for rule in grid.exceptions:
        _check_rule(rule, axes)


def _written(key: str, entries: Any) -> list[str]:
    """The names that entries of a grid are written with, and those of the tasks of a suite; nothing else is checked."""
    found = [str(entry.get("use", "")) if isinstance(entry, dict) else str(entry) for entry in entries]
    return found + [task for name in found for task in suite(name)] if key == "task" else found


def _check_rule(rule: Mapping[str, Any], axes: Mapping[str, Sequence[str]]) -> None:
    if not rule:
        raise UserError(f"an [[except]] needs at least one of {', '.join(RULE_KEYS)}")
    for key in rule:
        if key not in RULE_KEYS:
            raise did_you_mean("key of [[except]]", key, list(RULE_KEYS))
        for pattern in _patterns(rule[key]):
            if not any(fnmatchcase(value, pattern) for value in axes[key]):
                unknown = did_you_mean(f"{key} of this grid", pattern, list(axes[key]))
                raise UserError(f"an [[except]] leaves out nothing: {unknown}")


def _matches(rule: Mapping[str, Any], cell: Mapping[str, Sequence[str]]) -> bool:
    """Whether a cell is meant by an exception: every key given must match, with `*` for any text, or be in a list."""
    return all(
        any(fnmatchcase(name, pattern) for name in cell[key] for pattern in _patterns(value))
        for key, value in rule.items()
    )


def _patterns(value: Any) -> list[str]:
    return [str(one) for one in (value if isinstance(value, list) else [value])]
