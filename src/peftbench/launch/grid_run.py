"""The missing runs of a grid."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from peftbench.core.spec import BAD, RunSpec
from peftbench.launch import Options, Watch, launcher
from peftbench.launch.capacity import forecast_runs
from peftbench.profiling import is_large
from peftbench.report.plan import troubles
from peftbench.results.store import Store
from peftbench.tasks._scoring import refusals
from peftbench.tuning import Search


@dataclass(frozen=True)
class GridRun:
    """The runs of a grid that have no result in a store. Made by `prepare`.

    `missing`: the runs to begin with. `total`: how many runs the grid has, `done`: how many of them had a result
    before. A search for settings adds runs while results arrive, so `missing` may be shorter than `total - done`.
    """

    search: Search
    store: Store
    options: Options
    missing: list[RunSpec]
    total: int
    done: int

    def warnings(self, progress: Callable[[int, int], None]) -> Iterator[str]:
        """Yield a line for each metric that is not available here and, for large models, each run that will not fit.

        Runs that will be refused are listed too. `progress` is called with the progress of the forecasts.
        """
        planned = [spec for spec in self.search.stand_ins() if spec.id not in self.search.results]
        yield from refusals(spec.task for spec in planned)
        if any(map(is_large, planned)):
            yield from troubles(forecast_runs(planned, "here", self.options.data, self.options.workers, progress))

    @property
    def left(self) -> int:
        """How many runs are to be done, with those that a search will add."""
        return self.total - self.done

    def launch(self, by: str, watch: Watch) -> None:
        """Do the runs with the launcher of this name. Raises what `peftbench.launch.Launcher` raises."""
        launcher(by)(self.missing, self.store, self.options, watch, self.search.after)


def prepare(search: Search, store: Store, options: Options, retry_failed: bool = False) -> GridRun:
    """Compare what a grid asks for with what the store holds. The store is made if absent.

    With `retry_failed`, runs that ended badly are done again; a search goes on from its first trial that ended badly.
    Raises `UserError` if the store cannot be written.
    """
    store.open()
    entries = store.entries()
    failed = {id_: entry for id_, entry in entries.items() if retry_failed and entry.status in BAD}
    again = {id_: result.spec for id_, result in store.run_results(failed).items()}
    search.start_from(store.run_results({id_: entry for id_, entry in entries.items() if id_ not in failed}))
    options = replace(options, replace={id_: store.stamps(spec) for id_, spec in again.items()})
    missing = search.missing()
    return GridRun(search, store, options, missing, search.total, len(search.asked()) - len(missing))
