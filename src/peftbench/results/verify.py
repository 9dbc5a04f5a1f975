"""Every byte of a store, checked against what was written, and every result against itself."""

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
    """What was found in a store.

    `whole`: runs all of whose files are what was written. `unsealed`: those among them that were written before
    results had digests, so that only their consistency could be checked. `damaged`: by file, what is wrong with it.
    `again`: folders of runs with a damaged file, which count as missing and are run again with their grid.
    """

    whole: int = 0
    unsealed: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)
    again: list[Path] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.damaged


def verify_store(store: Store, found: Verification) -> Iterator[Path]:
    """Check all runs and published figures of a store, and add what is found to `found`; yields each path when done.

    Every file is read whole, whatever was found before. See `peftbench.results.store.check_consistent` for what a
    result must agree with; its kept answers must also have its scores, where the version of the metric is the same.
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
    """What is wrong with scores that are not those of the kept answers."""
    if not result.scores:
        return
    try:
        lines, _ = rescored(result, folder)
    except (UserError, LookupError):
        # The task or a metric is not known here, as of a plugin, or what it needs of each row was too large to keep.
        return
    for line in lines:
        stored = line.stored
        comparable = stored is not None and stored.value is not None and line.now.value is not None
        if stored is not None and comparable and stored.version == line.now.version and not line.same:
            yield (
                f"its {line.metric} is {stored.value}, and that of its answers is {line.now.value}: "
                f"`peftbench score --run {line.id} --save` puts that right"
            )
