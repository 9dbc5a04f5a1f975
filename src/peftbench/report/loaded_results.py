"""The results of a store in Python: tables, leaderboards, studies and the report, from one reading of its files."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.core.registry import UserError
from peftbench.results.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from peftbench.studies._pscp_weights import Weights
    from peftbench.studies.leaderboard import Leaderboard
    from peftbench.studies.study_input import RunData


class Results:
    """The results of a store, read once on first access. Made by `peftbench.load_results`.

    Damaged results are left out; `damaged` lists their files with reasons.
    """

    def __init__(self, root: Path) -> None:
        self._store = Store(root, snapshot=True)

    def __repr__(self) -> str:
        return f"Results({str(self._store.root)!r}, {len(self.runs)} runs)"

    @cached_property
    def runs(self) -> "pd.DataFrame":
        """One row per run; `docs/results-table.md` describes the columns, with types and units."""
        return self._store.table()

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """One row per validation: id of the run, step, tokens, seconds, train_loss, validation_loss."""
        return self._store.curves(self.runs["id"])

    @property
    def damaged(self) -> dict[Path, str]:
        """Files that cannot be read, with the reason."""
        return dict(self._store.damaged)

    def leaderboard(self, weights: "Iterable[Weights]" = ()) -> "tuple[Leaderboard, ...]":
        """Return a leaderboard per model, train size and machine class.

        `weights`: PSCP weight sets, by name, as a TOML file or as a mapping; by default the named ones.
        """
        return self._data(weights).leaderboards

    def study(self, name: str) -> Any:
        """Return the typed result of a study of `peftbench.studies`, or `None` if it does not apply to the runs.

        Raises `UnknownNameError`.
        """
        from peftbench.studies import study

        return study(name).analyse(self._plain)

    def report(self, out: str | Path, weights: "Iterable[Weights]" = ()) -> list[Path]:
        """Write the leaderboards and studies as Markdown, CSV and one HTML page to a folder; return the files.

        Raises `UserError` for a store without runs and without published figures.
        """
        from peftbench.report import write_report
        from peftbench.results.published import kept_published, published_frame

        figures, _ = kept_published(self._store.root)
        first = next((result for result, _ in self._store.results().values()), None)
        facts = {name: getattr(first, name) for name in ("machine", "versions", "settings")} if first else {}
        published = published_frame(figures)
        if self.runs.empty and published.empty:
            raise UserError(f"store {self._store.root}: no results; run a grid first")
        context = {"title": self._store.root.resolve().name, **facts}
        return write_report(self._data(weights), context, Path(out), published)

    @cached_property
    def _plain(self) -> "RunData":
        return self._data(())

    def _data(self, weights: "Iterable[Weights]") -> "RunData":
        from peftbench.studies.study_input import run_data

        return run_data(self.runs, self.curves, weights)
