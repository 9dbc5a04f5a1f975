"""Every byte of a store, checked against what was written, and every result against itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peftbench.evidence import kept
from peftbench.results.digests import DamagedError, unseal
from peftbench.spec import SCHEMA
from peftbench.store import Store


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


def verify(store: Store, found: Verification) -> Iterator[Path]:
    """Check all runs and published figures of a store, and add what is found to `found`; yields each path when done.

    Every file is read whole, whatever was found before. See `peftbench.store.check_consistent` for what a result must
    agree with.
    """
    for path, result in store.scan(reread=True):
        if isinstance(result, DamagedError):
            found.damaged[result.path] = result.why
            found.again.append(path.parent)
        else:
            found.whole += 1
            found.unsealed += not unseal(path, SCHEMA)[1]
        yield path
    damaged: Mapping[Path, str] = kept(store.root)[1]
    found.damaged.update(damaged)
