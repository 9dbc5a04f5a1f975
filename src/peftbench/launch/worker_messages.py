"""What a launcher sends to a worker process."""

from dataclasses import dataclass
from pathlib import Path

from peftbench.core.spec import RunSpec
from peftbench.launch import Options
from peftbench.launch.pickle_user_code import UserUnits
from peftbench.results.run_claims import Owner


@dataclass(frozen=True)
class Setup:
    """The first message: the store and in whose name it is written, how runs are done, where modules are found."""

    root: Path
    owner: Owner
    options: Options
    units: UserUnits
    path: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A run to be done. `workers`: how many run beside each other meanwhile, this one among them."""

    spec: RunSpec
    workers: int
