"""peftbench: which parameter-efficient fine-tuning method should I use, and is the difference real?

The public API; `docs/api.md` has an example of each function. Everything heavy is imported when it is first used.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.core.registry import UserError

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.advisor.advice_from_evidence import Answer
    from peftbench.core.spec import RunResult, RunSpec, Score
    from peftbench.gating.decision import GateVerdict
    from peftbench.grid.entry_parsing import Entry
    from peftbench.grid.expand import Grid
    from peftbench.launch import Options, Watch
    from peftbench.methods import Adapted as Adapted
    from peftbench.methods import method as method
    from peftbench.metrics import metric as metric
    from peftbench.profiling.detectable_difference import Resolution
    from peftbench.profiling.forecast import Forecast
    from peftbench.profiling.parameters_and_flops import CostEstimate
    from peftbench.report.loaded_results import Results as Results
    from peftbench.results.run_diff import RunDiff
    from peftbench.results.store import Store
    from peftbench.studies._pscp_weights import Weights
    from peftbench.tasks import Example as Example
    from peftbench.tasks import Source as Source
    from peftbench.tasks import task as task
    from peftbench.tuning import Search

    GridLike = Grid | Mapping[str, Any] | str | Path

LAZY = {
    "Adapted": "peftbench.methods",
    "Example": "peftbench.tasks",
    "Results": "peftbench.report.loaded_results",
    "Source": "peftbench.tasks",
    "method": "peftbench.methods",
    "metric": "peftbench.metrics",
    "task": "peftbench.tasks",
}
"""Names of the API that are defined elsewhere, and where."""
__all__ = [
    "Adapted",
    "Example",
    "Plan",
    "Results",
    "Source",
    "UserError",
    "advise",
    "estimate",
    "evaluate",
    "gate",
    "load_results",
    "method",
    "metric",
    "plan",
    "pscp",
    "reproduce",
    "run",
    "score",
    "table",
    "task",
]


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module 'peftbench' has no attribute '{name}'")
    return getattr(import_module(LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class Plan(dict[str, Any]):
    """Counts of the cells of a grid: `cells` (all), `done`, `failed` (part of `done`), `missing`; and their `specs`.

    `done_ids`: ids of the done cells. With costs, `forecast` has the costs of each cell and of the whole grid, and
    `resolutions` the differences that the grid can detect.
    """

    done_ids: frozenset[str] = frozenset()
    forecast: "Forecast | None" = None
    resolutions: "Sequence[Resolution]" = ()


def run(
    grid: "GridLike",
    store: str | Path = "results",
    *,
    data: str | Path | None = None,
    models: Sequence[str] = (),
    methods: "Sequence[Entry]" = (),
    plugins: Sequence[str | Path] = (),
    limit: int | None = None,
    size: str | None = None,
    launcher: str = "local",
    workers: int = 0,
    threads: int = 1,
    timeout: float | str | None = None,
    keep_adapters: bool = False,
    retry_failed: bool = False,
    progress: bool | None = None,
    watch: "Watch | None" = None,
) -> "pd.DataFrame":
    """Run the missing cells of a grid and return the table of all its runs. The same call again resumes.

    A method, task or metric that the calling script or notebook defines needs no plugin file, and its source is part of
    the id of the run. No `if __name__ == "__main__"` is needed.

    Args:
        grid: a file, the name of a ready grid, or a mapping of the same shape.
        store: folder of results; created if absent.
        data: local mirror of data sets, read before the Hub.
        models: replace the models of the grid.
        methods: replace the methods of the grid: names, or entries such as `{"use": "lora", "rank": 8}`.
        plugins: Python files that define methods, tasks or metrics.
        limit: maximum number of training rows, and of test rows, per run.
        size: edition of the grid, such as "pocket".
        launcher: name of the launcher that executes the runs (`peftbench.launch.launchers`).
        workers: number of worker processes; 0: chosen for this machine.
        threads: CPU threads of each worker; another number changes the last digits of results.
        timeout: maximum time of a run: seconds, or a text such as "10m".
        keep_adapters: keep the trained adapters in the store.
        retry_failed: run failed runs again.
        progress: show progress on standard error; by default where that is a terminal.
        watch: called with each event (`peftbench.launch.Event`).

    Returns:
        One row per run, with the columns of `docs/results-table.md`.

    Raises:
        UserError: invalid input; its subclass `peftbench.launch.StoppedError` if faults of the machine prevented some
            runs.

    Warns of damaged files, of metrics that are not available on this machine, and of runs that will not fit in memory.
    """
    from peftbench.launch import launcher as launcher_named
    from peftbench.launch.grid_run import prepare

    launcher_named(launcher)
    options = _options(data, plugins, workers, timeout, keep_adapters=keep_adapters, threads=threads)
    place = _store(store)
    asked = _search(grid, models, methods, limit, size)
    prepared = prepare(asked, place, options, retry_failed)
    _warn_damaged(place.damaged)
    with _forecasting(progress) as shown:
        for line in prepared.warnings(shown):
            warnings.warn(line, stacklevel=2)
    name = grid if isinstance(grid, str | Path) else "this grid"
    opening = f"{prepared.total} runs in {name}, {prepared.done} done before, in {place.root}"
    with _watching(progress, watch, prepared.left, opening) as watching:
        prepared.launch(launcher, watching)
    return place.table(spec.id for spec in asked.asked())


def plan(
    grid: "GridLike",
    store: str | Path = "results",
    *,
    models: Sequence[str] = (),
    methods: "Sequence[Entry]" = (),
    plugins: Sequence[str | Path] = (),
    limit: int | None = None,
    size: str | None = None,
    costs: bool = False,
    device: str = "here",
    data: str | Path | None = None,
    workers: int = 0,
    progress: bool | None = None,
) -> Plan:
    """Return the cells of a grid and how many of them have a result. Nothing is run or downloaded.

    With `costs`, also forecast the costs of the cells on a `device`: "here", or the name of a GPU. Trials that a search
    has not chosen yet are listed in `specs` with the middle of each range, which is also what is forecast. The other
    arguments and the errors are those of `run`.
    """
    _plug(plugins)
    place = _store(store, snapshot=True)
    found = place.entries()
    _warn_damaged(place.damaged)
    search = _search(grid, models, methods, limit, size, results=place.run_results())
    specs: list[RunSpec] = search.whole()
    done = [found[spec.id] for spec in specs if spec.id in found]
    planned = Plan(
        cells=len(specs),
        done=len(done),
        failed=sum(entry.status != "ok" for entry in done),
        missing=len(specs) - len(done),
        specs=specs,
    )
    planned.done_ids = frozenset(entry.id for entry in done)
    if costs:
        from peftbench.launch.capacity import forecast_runs
        from peftbench.profiling.detectable_difference import resolutions
        from peftbench.stats.power import SPREAD
        from peftbench.studies._seed_spread import seed_spread

        with _forecasting(progress) as shown:
            planned.forecast = forecast_runs(search.stand_ins(), device, _folder(data), workers, shown)
        spread = seed_spread(place.table(planned.done_ids)) if done else None
        planned.resolutions = resolutions(planned.forecast.cells, spread or SPREAD, measured=spread is not None)
    return planned


def load_results(
    store: str | Path = "results",
    grid: "GridLike | None" = None,
    *,
    models: Sequence[str] = (),
    methods: "Sequence[Entry]" = (),
    plugins: Sequence[str | Path] = (),
    limit: int | None = None,
    size: str | None = None,
) -> "Results":
    """The results of a store, or of a grid in it: `.runs`, `.curves`, `.leaderboard()`, `.study(name)`, `.report(out)`.

    The files are read once, on first access. The other arguments are those of `run`. Raises
    `UserError` if there is no such folder.
    """
    from peftbench.report.loaded_results import Results

    _plug(plugins)
    place = _store(store, snapshot=True)
    asked, title = None, ""
    if grid is not None:
        asked = {spec.id for spec in _search(grid, models, methods, limit, size, results=place.run_results()).asked()}
        title = Path(grid).stem if isinstance(grid, str | Path) else ""
    return Results(place.existing(), asked, title)


def table(store: str | Path = "results", published: bool = False) -> "pd.DataFrame":
    """Return one row per run, with the columns of `docs/results-table.md`.

    With `published`, imported published figures follow, with status `published` and additional columns such as their
    source; leaderboards ignore them.
    """
    runs = _store(store, snapshot=True).table()
    if not published:
        return runs
    import pandas as pd

    from peftbench.results.published import kept_published, published_frame

    rows, damaged = kept_published(Path(store))
    _warn_damaged(damaged)
    others = published_frame(rows)
    return pd.DataFrame([*runs.to_dict("records"), *others.to_dict("records")], columns=list(others.columns))


def evaluate(
    adapters: "str | Path | Sequence[str | Path]",
    model: str,
    tasks: "str | Sequence[str]",
    store: str | Path = "results",
    *,
    quantise: str | None = None,
    sizes: "Sequence[int | str]" = ("all",),
    seeds: Sequence[int] = (0,),
    test_rows: int | None = None,
    max_length: int | None = None,
    any_base: bool = False,
    data: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    launcher: str = "local",
    workers: int = 0,
    threads: int = 1,
    timeout: float | str | None = None,
    retry_failed: bool = False,
    progress: bool | None = None,
) -> "pd.DataFrame":
    """Score adapters or fully trained models that were trained elsewhere; they are stored as ordinary runs.

    `adapters`: their folders; `model`: their base model. The other arguments are those of
    `peftbench.grid.trained_elsewhere.adapters_grid` and of `run`. Returns the table of these runs.
    """
    from peftbench.grid.trained_elsewhere import adapters_grid

    _plug(plugins)
    folders = [adapters] if isinstance(adapters, str | Path) else adapters
    grid = adapters_grid(
        [Path(folder) for folder in folders],
        model,
        [tasks] if isinstance(tasks, str) else tasks,
        quantise=quantise,
        sizes=sizes,
        seeds=seeds,
        test_rows=test_rows,
        max_length=max_length,
        any_base=any_base,
    )
    return run(
        grid,
        store,
        data=data,
        plugins=plugins,
        launcher=launcher,
        workers=workers,
        threads=threads,
        timeout=timeout,
        retry_failed=retry_failed,
        progress=progress,
    )


def advise(
    model: str = "pocket",
    *,
    task: str | None = None,
    kind: str | None = None,
    file: Mapping[str, Any] | None = None,
    rows: int | None = None,
    limits: Mapping[str, float] | None = None,
    prefer: str = "quality",
    within: float = 2.0,
    device: str = "here",
    store: str | Path = "results",
    data: str | Path | None = None,
    published: bool = False,
    top: int = 10,
    plugins: Sequence[str | Path] = (),
    progress: bool | None = None,
) -> "list[Answer]":
    """Recommend methods for a model, a task and limits, based on your runs and on published figures.

    Args:
        model: base model: an alias, a directory or a Hub id.
        task: name of a task; instead of it, `kind` or `file`.
        kind: kind of task, such as "classification", "qa", "math".
        file: entry of your own file as in a grid: `{"data": path, "fields": [...], "target": ..., "labels": [...]}`.
        rows: number of training rows; by default all.
        limits: maximum of each limited cost, by column of the table of runs (`peftbench.core.costs.LIMITS`).
        prefer: criterion of the ranking: quality, memory, time, speed, size, or a set of PSCP weights.
        within: points of score that may be lost for a lower cost, when ranking by a cost.
        device: device whose memory and speed are used for forecasts.
        store: results on which the advice is based.
        data: local mirror of data sets.
        published: also use published figures; without runs, only these are used.
        top: number of methods whose costs are forecast at a time.
        plugins: Python files that define methods, tasks or metrics.
        progress: show the progress of forecasts on standard error; by default where that is a terminal.

    Returns:
        One answer for each kind of evidence: `.advice` (with `.ranked`), `.entries` of grids, `.remarks`.

    Raises:
        UserError: an unknown name, or not exactly one of `task`, `kind` and `file`.
    """
    from peftbench.advisor import advice_from_evidence, inputs
    from peftbench.advisor.recommend import Question

    _plug(plugins)
    place = _store(store, snapshot=True)
    asked = inputs.asked(model, task, kind, file, rows)
    most = inputs.with_device(dict(limits or {}), device)
    question = Question(inputs.question_place(asked), most, advice_from_evidence.preferred(prefer), within)
    folder, evidence = _folder(data), advice_from_evidence.evidence(place, published)
    _warn_damaged(evidence.damaged)
    if evidence.fell_back:
        warnings.warn(f"store {place.root} has no scores; using published figures instead", stacklevel=2)
    answers = []
    for theirs, cells in evidence.items():
        with _forecasting(progress) as shown:
            found = advice_from_evidence.answer(
                asked, question, cells, place, published=theirs, device=device, data=folder, top=top, progress=shown
            )
            answers.append(found)
    return answers


def gate(
    candidate: "Entry | Path",
    baseline: "Entry | None" = None,
    *,
    model: "Entry" = "pocket",
    tasks: "Sequence[Entry]" = (),
    size: "int | str" = 256,
    seeds: int = 5,
    margin: float | None = None,
    train: Mapping[str, Any] | None = None,
    eval: Mapping[str, Any] | None = None,  # noqa: A002 - the table of a grid is called so
    store: str | Path = "results/gate",
    data: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    workers: int = 0,
    threads: int = 1,
    timeout: float | str | None = None,
    again: bool = False,
    progress: bool | None = None,
) -> "GateVerdict":
    """Test that a method or a trained adapter is no worse than a baseline. `docs/gate.md` has the rules.

    Args:
        candidate: name of a method or entry of a grid; or, as a `Path`, the folder of a trained adapter or model.
        baseline: method to compare with; by default LoRA as in `docs/gate.md`.
        model: the base model.
        tasks: tasks or suites; by default two pocket tasks.
        size: number of training rows, or "all".
        seeds: number of seeds, counted from 0.
        margin: non-inferiority margin in points; by default 3.
        train: settings of `[train]`.
        eval: settings of `[eval]`.
        store: folder of results. Results of another version of the code are replaced, so use a separate folder.
        data: local mirror of data sets.
        plugins: Python files that define methods, tasks or metrics.
        workers: number of worker processes; 0: chosen for this machine.
        threads: CPU threads of each worker.
        timeout: maximum time of a run.
        again: run the candidate again even if the store has its runs.
        progress: show progress on standard error; by default where that is a terminal.

    Returns:
        The verdict: `.outcome` is "no worse", "worse" or "cannot tell".
    """
    from peftbench.gating.comparison import adapter_entry, compare_with_baseline
    from peftbench.gating.gate_runs import GateDesign
    from peftbench.launch import launcher

    options, place = _options(data, plugins, workers, timeout, threads=threads), _store(store)
    entry = adapter_entry(candidate, model) if isinstance(candidate, Path) else candidate
    given = {"baseline": baseline, "margin": margin, "train": train, "eval": eval, "tasks": tuple(tasks) or None}
    stated: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    design = GateDesign(entry, model=model, size=size, seeds=seeds, **stated)  # type: ignore[arg-type]

    def do(missing: "Sequence[RunSpec]", total: int, how: "Options") -> None:
        opening = f"{total} runs in this gate, {total - len(missing)} done before, in {place.root}"
        with _watching(progress, None, len(missing), opening) as watching:
            launcher("local")(missing, place, how, watching)

    return compare_with_baseline(design, place, options, do, again)


def reproduce(
    id: str,  # noqa: A002 - the column is called so
    store: str | Path = "results",
    *,
    data: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    keep: str | Path | None = None,
    progress: bool | None = None,
) -> "RunDiff":
    """Repeat a run and compare the results; `.same` is true if all compared fields are identical.

    `id`: the start of the run's id. `keep`: folder of results for the new run; by default it is not kept. Raises
    `UserError` for an unknown id, a run that left nothing to compare, or one that cannot be reproduced here.
    """
    from tempfile import TemporaryDirectory

    from peftbench.launch.reproduce import reproduce_run

    options, place = _options(data, plugins, 1, None), _store(store, snapshot=True).existing()
    first, _ = place.find(id)
    with TemporaryDirectory(prefix="peftbench-") as folder, _watching(progress, None, 1) as watching:
        return reproduce_run(first, place, _store(keep or folder), options, watching)


def score(
    metric: str, predictions: "Sequence[str]", references: "Sequence[str | Sequence[str]]", **facts: Any
) -> "Score":
    """Compute a metric of answers on a 0 to 100 scale: `value` and `standard_error`, or `why` there is no value.

    `references` has one or more correct answers per row. `facts` are required by some metrics: `labels`, `positive`,
    `scale`, and `details` (a mapping per row). Raises `UserError` for an unknown metric or unequal numbers of rows.
    """
    from peftbench.results.rescore import score_answers

    return score_answers(metric, predictions, references, **facts)


def pscp(
    score: float,
    costs: Mapping[str, float],
    weights: "Weights" = "paper",
    reference: Mapping[str, float] | None = None,
) -> float:
    """Return the PEFT Soft Cost Penalties score (arXiv 2511.21285); see `peftbench.studies.pscp.penalised_score`.

    `weights`: a named set, a TOML file of one, or a mapping of the same shape.
    """
    from peftbench.studies.pscp import penalised_score

    return penalised_score(score, costs, weights, reference)


def estimate(model: Any, method: Any = "none", **arguments: Any) -> "CostEstimate":
    """Count parameters and FLOPs of a method on a model, without weights.

    See `peftbench.profiling.parameters_and_flops.estimate_costs`.
    """
    from peftbench.profiling.parameters_and_flops import estimate_costs

    return estimate_costs(model, method, **arguments)


# What the functions share


def _store(root: str | Path, *, snapshot: bool = False) -> "Store":
    from peftbench.results.store import Store

    return Store(Path(root), snapshot=snapshot)


def _plug(plugins: Sequence[str | Path]) -> tuple[Path, ...]:
    from peftbench.core.registry import load_plugin

    files = tuple(Path(plugin).resolve() for plugin in plugins)
    for path in files:
        load_plugin(path)
    return files


def _options(
    data: str | Path | None, plugins: Sequence[str | Path], workers: int, timeout: float | str | None, **more: Any
) -> "Options":
    from peftbench.launch import Options

    return Options(_folder(data), workers, plugins=_plug(plugins), timeout=_seconds(timeout), **more)


def _folder(data: str | Path | None) -> Path | None:
    if data is not None and not Path(data).is_dir():
        raise UserError(f"data {data}: no such folder")
    return None if data is None else Path(data).resolve()


def _warn_damaged(files: Mapping[Path, str]) -> None:
    for path, why in files.items():
        warnings.warn(f"{path}: {why}. Its content counts as missing", stacklevel=3)


def _seconds(timeout: float | str | None) -> float | None:
    if not isinstance(timeout, str):
        return timeout
    from peftbench.core.number_parsing import seconds

    return seconds(timeout)


def _search(
    grid: "GridLike",
    models: Sequence[str],
    methods: "Sequence[Entry]",
    limit: int | None,
    size: str | None,
    *,
    results: "Mapping[str, RunResult] | None" = None,
) -> "Search":
    from peftbench.grid.expand import load_grid
    from peftbench.tuning import search

    held = load_grid(grid, size)
    if methods:
        held = held.model_copy(update={"methods": tuple(methods)})
    return search(held, results or {}, tuple(models), limit)


@contextmanager
def _forecasting(progress: bool | None) -> "Iterator[Callable[[int, int], None]]":
    """Yield a function that takes the numbers of completed forecasts and of all, and shows them if requested."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("forecasting costs", total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


@contextmanager
def _watching(progress: bool | None, watch: "Watch | None", total: int, opening: str = "") -> "Iterator[Watch]":
    """Yield a function that passes events to the progress display, to `watch`, to both or to neither."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        watchers: list[Callable[[Any], None]] = [watch] if watch is not None else []
        if sys.stderr.isatty() if progress is None else progress:
            from rich.console import Console

            from peftbench.launch.progress_display import ProgressDisplay

            console = Console(stderr=True, markup=False, emoji=False)
            watchers.append(stack.enter_context(ProgressDisplay(console, total, opening)))

        def tell(event: Any) -> None:
            for watcher in watchers:
                watcher(event)

        yield tell
