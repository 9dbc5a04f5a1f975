"""The missing runs of a grid, for the command line and for Python."""

from dataclasses import dataclass, replace

from peftbench.core.spec import BAD, RunSpec
from peftbench.launch import Options, Watch, launcher
from peftbench.results.store import Store
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
