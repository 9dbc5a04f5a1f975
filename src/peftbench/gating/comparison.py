"""One comparison of the gate from end to end: run the missing runs and judge the candidate."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.gating import gate_runs
from peftbench.gating.decision import GateVerdict
from peftbench.gating.gate_runs import GateDesign
from peftbench.grid.entry_parsing import Entry
from peftbench.launch import Options
from peftbench.methods._saved_files import check_base, examine
from peftbench.models import find
from peftbench.results.store import Store

Do = Callable[[Sequence[RunSpec], int, Options], None]
"""Function that executes the missing runs; its second argument is the total number of runs."""


def adapter_entry(folder: Path, model: Entry) -> Entry:
    """Return the grid entry of a trained adapter or model. Raises `UserError` unless it was made for this base."""
    check_base(examine(folder), find(model if isinstance(model, str) else str(model.get("use"))))
    return {"use": "saved", "folder": str(folder)}


def compare_with_baseline(
    design: GateDesign, store: Store, options: Options, do: Do, again: bool = False
) -> GateVerdict:
    """Execute the missing runs of a comparison and judge the candidate.

    Args:
        design: what is compared.
        store: the store of results; results of another version of the code are replaced.
        options: how runs are executed.
        do: executes the missing runs.
        again: run the candidate again even if the store has its results.

    Raises:
        UserError: the margin is not a positive number of points, there are fewer than two seeds, or a name is unknown.
    """
    if not 0 < design.margin < float("inf"):
        raise UserError(f"margin {design.margin:g}: give a number of points above 0")
    if design.seeds < 2:
        raise UserError(f"seeds {design.seeds}: a comparison needs two seeds or more")
    arms = gate_runs.arms(design)
    store.open()
    missing = gate_runs.to_do(arms, store, again)
    do(missing, len(arms.runs()), replace(options, replace={spec.id: store.stamps(spec) for spec in missing}))
    spec = arms.baseline.first
    conditions = {"model": spec.model_name, "training rows": spec.size, "seeds": len(arms.seeds)}
    conditions |= {"training": arms.training, "test rows": spec.eval.test_rows or "all"}
    return replace(gate_runs.verdict(arms, store), names=arms.names, conditions=conditions)
