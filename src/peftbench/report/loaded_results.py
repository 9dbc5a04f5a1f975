"""The results of a store in Python: tables, leaderboards, studies and the report, from one reading of its files."""

from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.core.registry import UserError
from peftbench.results.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.results.published import Published
    from peftbench.studies._pscp_weights import Weights
    from peftbench.studies.leaderboard import Leaderboard
    from peftbench.studies.study_input import RunData


class Results:
    """The results of a store, or the requested runs of it, read once on first access. Made by `peftbench.load_results`.

    Damaged results are left out; `damaged` lists their files with reasons.
    """

    def __init__(
        self,
        store: Store,
        requested: Collection[str] | None = None,
        title: str = "",
        runs: "pd.DataFrame | None" = None,
    ) -> None:
        """`store`: a snapshot. `requested`: ids of runs; default: all. `title`: of the report; default: the folder.

        `runs`: the table of these runs, if it was read before.
        """
        self._store, self._requested, self._runs = store, requested, runs
        self._title = title or store.root.resolve().name
        self._data: list[tuple[list[Weights], RunData]] = []

    def __repr__(self) -> str:
        return f"Results({str(self._store.root)!r}, {len(self.runs)} runs)"

    @cached_property
    def runs(self) -> "pd.DataFrame":
        """One row per run; `docs/results-table.md` describes the columns, with types and units."""
        return self._store.table(self._requested) if self._runs is None else self._runs

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """One row per validation: id of the run, step, tokens, seconds, train_loss, validation_loss."""
        return self._store.curves(self.runs["id"])

    @cached_property
    def published(self) -> "pd.DataFrame":
        """The published figures that were imported into the store, one per row."""
        from peftbench.results.published import published_frame

        return published_frame(self._published[0])

    @cached_property
    def _published(self) -> "tuple[list[Published], dict[Path, str]]":
        from peftbench.results.published import kept_published

        return kept_published(self._store.root)

    @property
    def damaged(self) -> dict[Path, str]:
        """Files that cannot be read, with the reason."""
        self._store.entries()
        return self._store.damaged | self._published[1]

    def run_data(self, weights: "Iterable[Weights]" = ()) -> "RunData":
        """Return the input of the studies, created once for each list of weights."""
        from peftbench.studies.study_input import run_data

        sets = list(weights)
        for known, data in self._data:
            if known == sets:
                return data
        data = run_data(self.runs, self.curves, sets)
        self._data.append((sets, data))
        return data

    def leaderboard(self, weights: "Iterable[Weights]" = ()) -> "tuple[Leaderboard, ...]":
        """Return a leaderboard per model, train size and machine class.

        `weights`: PSCP weight sets, by name, as a TOML file or as a mapping; by default the named ones.
        """
        return self.run_data(weights).leaderboards

    def study(self, name: str) -> Any:
        """Return the typed result of a study of `peftbench.studies`, or `None` if it does not apply to the runs.

        Raises `UnknownNameError`.
        """
        from peftbench.studies import study

        return study(name).analyse(self.run_data())

    def report(self, out: str | Path, weights: "Iterable[Weights]" = ()) -> list[Path]:
        """Write the leaderboards and studies as Markdown, CSV and one HTML page to a folder; return the files.

        The page shows machine, versions and settings of the first run. Raises `UserError` if there are neither runs nor
        published figures.
        """
        from peftbench.report import write_report

        if self.runs.empty and self.published.empty:
            raise UserError(f"store {self._store.root}: no results; run a grid first")
        context: dict[str, Any] = {"title": self._title}
        if not self.runs.empty:
            first, _ = self._store.results()[self.runs["id"].iloc[0]]
            context |= {name: getattr(first, name) for name in ("machine", "versions", "settings")}
        return write_report(self.run_data(weights), context, Path(out), self.published)
