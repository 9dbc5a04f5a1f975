"""Verification of a store: the digests of all files, and the consistency of all results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peftbench.core.registry import UserError
from peftbench.core.spec import SCHEMA, RunResult
from peftbench.results.digests import DamagedError, unseal
from peftbench.results.published import kept_published
from peftbench.results.rescore import rescored
from peftbench.results.store import Store


@dataclass
class Verification:
    """The state of a store.

    `whole` is the number of undamaged runs; `unsealed` is the number of those without digests, for which only the
    consistency was checked. `damaged` maps damaged files to reasons. `again` lists the folders of runs with a damaged
    file; these runs count as missing and are run again with their grid.
    """

    whole: int = 0
    unsealed: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)
    again: list[Path] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.damaged


def verify_store(store: Store, found: Verification) -> Iterator[Path]:
    """Check all runs and published results of a store, add the findings to `found`, and yield each path when done.

    All files are read completely. `peftbench.results.store.check_consistent` describes the consistency of a result. Its
    stored answers must also give its scores if the version of the metric is unchanged.
    """
    for path, result in store.scan():
        if isinstance(result, DamagedError):
            found.damaged[result.path] = result.why
            found.again.append(path.parent)
        else:
            for line in _wrong_scores(result, path.parent):
                found.damaged[path] = line
            found.whole += path not in found.damaged
            found.unsealed += not unseal(path, SCHEMA)[1]
        yield path
    damaged: Mapping[Path, str] = kept_published(store.root)[1]
    found.damaged.update(damaged)


def _wrong_scores(result: RunResult, folder: Path) -> Iterator[str]:
    """Yield a message for each score that differs from the score of the stored answers."""
    if not result.scores:
        return
    try:
        lines, _ = rescored(result, folder)
    except (UserError, LookupError):
        # The task or a metric is from a plugin that is not installed, or the details of the rows were not stored.
        return
    for line in lines:
        stored = line.stored
        comparable = stored is not None and stored.value is not None and line.now.value is not None
        if stored is not None and comparable and stored.version == line.now.version and not line.same:
            yield (
                f"its {line.metric} is {stored.value}, but its answers score {line.now.value}: "
                f"`peftbench score --run {line.id} --save` corrects it"
            )
