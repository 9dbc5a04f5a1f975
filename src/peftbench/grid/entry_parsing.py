"""From an entry of a grid file to the choices that it means: names and arguments checked, lists swept."""

import itertools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from peftbench.core.registry import Registry, Unit, UserError, did_you_mean
from peftbench.core.search_space import INCOMPARABLE, SHARE_OR_STEPS, Range, Space, Tune, is_range, ranged, rates
from peftbench.core.spec import Choice, Noun, Training, display_name, renamed
from peftbench.core.text_escaping import problems
from peftbench.methods import METHODS, MethodFacts
from peftbench.methods._saved_files import examine
from peftbench.models import QUANTISATIONS, find, known_models, resolved
from peftbench.models.saved_model_files import identity
from peftbench.tasks import TASKS, members, resolve
from peftbench.tasks._scoring import check_facts

Entry = str | dict[str, Any]
"""A name, or a table with `use` and arguments."""


def named_entry(kind: str, entry: Entry) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of an entry."""
    given = {"use": entry} if isinstance(entry, str) else dict(entry)
    name = given.pop("use", None)
    if not isinstance(name, str):
        raise UserError(f'an entry of {kind}s needs a name: {{ use = "NAME", ... }}')
    return name, given


def by_todays_names(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Training settings of a grid, of which some may have an old name."""
    try:
        return renamed(settings)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def model_choices(entry: Entry) -> Iterator[Choice]:
    """The choices of an entry of models, which may be quantised in one way or in several."""
    name, given = named_entry("model", entry)
    for key in given:
        if key != "quantise":
            raise did_you_mean(f"argument of model '{name}'", key, ["quantise"])
    found = resolved(find(name))
    # A directory is named by its full path, so that a worker elsewhere on this machine finds it.
    place = str(found.directory) if found.directory and name not in known_models() else found.name
    called = display_name(place)
    if place != called and called in known_models():
        called = "/".join(Path(place).parts[-2:])
    for how in values(None, "quantise", given["quantise"]) if given else [None]:
        if how not in (None, *QUANTISATIONS):
            raise did_you_mean(f"value of quantise of model '{name}'", str(how), list(QUANTISATIONS))
        more = {"arguments": {"quantise": how}, "called": f"{called} ({how})"} if how else {}
        more |= {"called": called} if not how and called != display_name(place) else {}
        yield Choice(name=place, version=found.version, **more)


def task_choices(entry: Entry) -> Iterator[tuple[Choice, dict[str, Any]]]:
    """The choices of an entry of tasks, which may name a suite."""
    name, given = named_entry("task", entry)
    entries: list[Entry] = [entry] if given else [*members(name)]
    for member in entries:
        for choice, own in choices(TASKS, member, None):
            task = resolve(choice.name, choice.arguments)
            check_facts(task, choice.arguments)
            facts = task.facts
            paths = tuple(name for name in facts.files if name in choice.arguments)
            told = {"version": facts.version, "called": facts.title, "paths": paths}
            yield choice.model_copy(update=told), own


def method_choices(
    entry: Entry, tune: Tune | None, train: Mapping[str, Any]
) -> Iterator[tuple[Choice, dict[str, Any], Space]]:
    """The choices of an entry of methods, each with its own settings and, at their middles, the ranges of a search.

    `train` holds the settings of the whole grid. Raises `UserError` for a range that is wrong, or that nobody searches.
    """
    name, given = named_entry("method", entry)
    given = by_todays_names(given, f"method '{name}'")
    held = {key: value for key, value in given.items() if is_range(value)}
    if held and tune is None:
        raise UserError(f"method '{name}': {next(iter(held))} has a range, and the grid no [tune] that would search it")
    spans = {key: ranged(key, value, f"method '{name}'") for key, value in held.items()}
    # A list in a list is one value, whatever the argument takes.
    middles = {key: [span.middle] if isinstance(span.middle, list) else span.middle for key, span in spans.items()}
    for choice, own in choices(METHODS, {"use": name} | given | middles, Training):
        space = () if tune is None else _space(choice, spans, tune, dict(train) | given)
        own |= {span.name: span.middle for span in space if span.name in Training.model_fields}
        tuned = tuple(sorted(span.name for span in space if span.name not in Training.model_fields))
        yield choice.model_copy(update={"tuned": tuned}), own, space


def _space(method: Choice, spans: Mapping[str, Range], tune: Tune, given: Mapping[str, Any]) -> Space:
    """What a search for a method goes over: its ranges, and its learning rate unless that is given."""
    unit = METHODS[method.name]
    if not unit.facts.trains:
        if spans:
            raise UserError(f"method '{method.name}' trains nothing, so there is nothing to search")
        return ()
    found = [_fitted(span, unit, method) for span in spans.values()]
    if "learning_rate" not in given:
        found.append(rates(tune, unit.facts.learning_rate))
    if not found:
        raise UserError(
            f"method '{method.name}': its learning rate is fixed and nothing else has a range, so [tune] has nothing "
            "to search; give it a range, or put it into a grid without [tune]"
        )
    return tuple(found)


def _fitted(span: Range, unit: Unit[Any], method: Choice) -> Range:
    """A range of an argument or of a training setting, its ends checked."""
    name = span.name
    if name in INCOMPARABLE:
        raise UserError(f"method '{unit.name}': {name} cannot be searched, as {INCOMPARABLE[name]}")
    if name in unit.parameters:
        for value in span.ends:
            unit.check(method.arguments | {name: value})
        return span.fitted(unit.parameters[name].annotation, unit.parameters[name].default)
    if name in SHARE_OR_STEPS and not span.among and span.low < 1 <= span.high:
        raise UserError(
            f"method '{unit.name}', range of {name}: {span.low} is a share of the steps, {span.high} a number of steps"
        )
    for value in span.ends:
        try:
            Training(**{name: value})
        except ValidationError as error:
            why = problems(error)[1].partition(", not ")[0]
            raise UserError(f"method '{unit.name}', range of {name}: {value} is wrong: it {why}") from None
    field = Training.model_fields[name]
    default = unit.facts.learning_rate if name == "learning_rate" else field.default
    return span.fitted(field.rebuild_annotation(), default)


def choices(
    registry: Registry[Any], entry: Entry, settings: type[Noun] | None
) -> Iterator[tuple[Choice, dict[str, Any]]]:
    """The choices of an entry, lists swept, each with the settings that stand among its arguments."""
    units, given = registry.pick(*named_entry(registry.kind, entry))
    for unit in units:
        yield from _swept(unit, given, settings)


def _swept(
    unit: Unit[Any], given: dict[str, Any], settings: type[Noun] | None
) -> Iterator[tuple[Choice, dict[str, Any]]]:
    fields = settings.model_fields if settings else {}
    for name in given:
        if name not in unit.parameters and name not in fields:
            raise did_you_mean(f"argument of {unit.kind} '{unit.name}'", name, [*unit.parameters, *fields])
    swept = [values(unit, name, value) for name, value in given.items()]
    for combination in itertools.product(*swept):
        chosen = dict(zip(given, combination, strict=True))
        arguments = unit.check({name: value for name, value in chosen.items() if name in unit.parameters})
        own = {name: value for name, value in chosen.items() if name not in unit.parameters}
        choice = Choice(name=unit.name, arguments=arguments, version=unit.facts.version)
        folder = unit.facts.folder if isinstance(unit.facts, MethodFacts) else ""
        yield _by_content(choice, folder) if folder else choice, own


def _by_content(method: Choice, key: str) -> Choice:
    """A choice in which the content of a folder of files stands for its path; `key` is the argument that names it."""
    folder = Path(method.arguments[key]).expanduser().absolute()
    kept = examine(folder)
    arguments = method.arguments | {key: identity(folder)}
    return method.model_copy(update={"arguments": arguments, "called": kept.called, "place": str(folder)})


def values(unit: Unit[Any] | None, name: str, value: Any) -> Sequence[Any]:
    """The values of an argument: a list is a sweep, unless the argument itself takes that list."""
    if not isinstance(value, list):
        return [value]
    if unit is not None and name in unit.parameters and _takes_list(unit.parameters[name].annotation, value):
        return [value]
    if not value:
        raise UserError(f"{name}: an empty list leaves nothing to run")
    return value


def _takes_list(annotation: Any, items: list[Any]) -> bool:
    """Whether a list is one value of an argument, not a sweep.

    It is not where the argument takes each of its items and, where these are lists or the whole is none of the
    argument's, not the list: as for `["first-half", "last-half"]` if it takes a text or a list of numbers.
    """
    if not _is_sequence(annotation):
        return False
    if any(isinstance(item, list) for item in items):
        return _fits(annotation, items) and not any(_fits(annotation, item) for item in items)
    return _fits(annotation, items) or not all(_fits(annotation, item) for item in items)


def _fits(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def _is_sequence(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return any(map(_is_sequence, typing.get_args(annotation)))
    return isinstance(origin, type) and issubclass(origin, Sequence) and not issubclass(origin, str)
