"""peftbench: which parameter-efficient fine-tuning method should I use, and is the difference real?

The public API. Everything heavy is imported when it is first used.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.core.registry import UserError

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.core.spec import RunSpec, Score
    from peftbench.grid.expand import Grid
    from peftbench.launch import Watch
    from peftbench.profiling.estimate import CostEstimate
    from peftbench.studies._pscp_weights import Weights

    GridLike = Grid | Mapping[str, Any] | str | Path

__all__ = ["Plan", "UserError", "estimate", "plan", "pscp", "run", "score", "table"]


class Plan(dict[str, Any]):
    """Cells of a grid: `cells` in all, `done`, `failed` among them, `missing`; `specs` has every one."""


def run(
    grid: "GridLike",
    store: str | Path = "results",
    *,
    data: str | Path | None = None,
    workers: int = 0,
    timeout: float | str | None = None,
    plugins: Sequence[str | Path] = (),
    watch: "Watch | None" = None,
) -> "pd.DataFrame":
    """Do what is missing of a grid and return the table of all its runs.

    `grid`: a file, or a mapping of the same shape. Running the same grid again resumes it. `timeout`: seconds, or a
    text such as "10m", that a run may take. `plugins`: Python files of units; those defined in the calling script or
    notebook are known without. No `if __name__ == "__main__"` is needed. Raises `UserError`; one of them is
    `peftbench.launch.StoppedError`, where faults of the machine were in the way of some runs.
    """
    from peftbench.core.registry import load_plugin
    from peftbench.launch import Options, ignore
    from peftbench.launch.local import launch
    from peftbench.results.store import Store
    from peftbench.tuning import search

    files = tuple(Path(plugin).resolve() for plugin in plugins)
    for path in files:
        load_plugin(path)
    if data is not None and not Path(data).is_dir():
        raise UserError(f"data {data}: no such folder")
    place = Store(Path(store))
    found = search(grid, {id_: result for id_, (result, _) in place.results().items()})
    place.open()
    options = Options(
        data=Path(data).resolve() if data else None, workers=workers, plugins=files, timeout=_seconds(timeout)
    )
    launch(found.missing(), place, options, watch or ignore, found.after)
    return place.table(spec.id for spec in found.asked())


def _seconds(timeout: float | str | None) -> float | None:
    if not isinstance(timeout, str):
        return timeout
    from peftbench.cli.options import seconds

    return seconds(timeout)


def plan(grid: "GridLike", store: str | Path = "results") -> Plan:
    """What a grid asks for, and how much of it a store has.

    What a search has not come to yet stands among `specs` at the middle of its ranges.
    """
    from peftbench.results.store import Store
    from peftbench.tuning import search

    found = Store(Path(store)).results()
    specs: list[RunSpec] = search(grid, {id_: result for id_, (result, _) in found.items()}).whole()
    done = [found[spec.id][0] for spec in specs if spec.id in found]
    return Plan(
        cells=len(specs),
        done=len(done),
        failed=sum(result.status != "ok" for result in done),
        missing=len(specs) - len(done),
        specs=specs,
    )


def table(store: str | Path = "results", published: bool = False) -> "pd.DataFrame":
    """One row a run: model, method, its arguments, task, size, seed, status, score, every cost, id.

    With `published`, the figures that were imported follow, with status `published`, their source, and columns of what
    runs do not have; leaderboards leave them out.
    """
    from peftbench.results.store import Store

    runs = Store(Path(store)).table()
    if not published:
        return runs
    import pandas as pd

    from peftbench.results.published import kept_published, published_frame

    rows, damaged = kept_published(Path(store))
    for path, why in damaged.items():
        warnings.warn(f"{path} {why}", stacklevel=2)
    others = published_frame(rows)
    return pd.DataFrame([*runs.to_dict("records"), *others.to_dict("records")], columns=list(others.columns))


def score(
    metric: str, predictions: "Sequence[str]", references: "Sequence[str | Sequence[str]]", **facts: Any
) -> "Score":
    """A metric of answers, on a 0 to 100 scale: its `value`, its `standard_error`, or `why` there is none.

    `references` has one or more right answers a row. `facts` are what some metrics need: `labels`, `positive`, `scale`,
    and `details`, a mapping a row.
    """
    from peftbench.results.rescore import score_answers as score_answers

    return score_answers(metric, predictions, references, **facts)


def pscp(
    score: float,
    costs: Mapping[str, float],
    weights: "Weights" = "paper",
    reference: Mapping[str, float] | None = None,
) -> float:
    """The PEFT Soft Cost Penalties score (arXiv 2511.21285); see `peftbench.studies.pscp.penalised_score`.

    `weights`: a named set, a TOML file of one, or a mapping of the same shape.
    """
    from peftbench.studies.pscp import penalised_score as score_with_costs

    return score_with_costs(score, costs, weights, reference)


def estimate(model: Any, method: Any = "none", **arguments: Any) -> "CostEstimate":
    """Parameters and FLOPs of a method on a model, without weights; see `profiling.estimate.estimate_costs`."""
    from peftbench.profiling.estimate import estimate_costs as on_meta_tensors

    return on_meta_tensors(model, method, **arguments)
