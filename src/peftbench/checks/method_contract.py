"""Check one method on one model: each part of the contract is a method of `MethodTrial` that returns a finding."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.checks import tiny_models, unbatched_reference
from peftbench.checks.static_checks import Finding
from peftbench.core.registry import UserError, error_line
from peftbench.core.spec import RunSpec
from peftbench.methods import Method
from peftbench.models.target_modules import Layers

if TYPE_CHECKING:
    from torch import Tensor

    from peftbench.engine.base_model import Base
    from peftbench.methods import Adapted

ROWS, SHOWN, TOKENS = 16, 6, 5
"""Numbers of training rows, rows with compared answers, and tokens per answer."""
RATES = (3e-2, 3e-3, 3e-1, 3e-4)
"""Learning rates, tried in order until one lowers the loss."""
SAME, MERGED, ROUNDED = 1e-5, 1e-4, 1e-4
"""Relative tolerances: logits of a reloaded method, logits of a merged method, gradients."""


class MethodTrial:
    """Checks of the contract; each uses the base and restores it afterwards."""

    def __init__(self, base: "Base", asked: RunSpec, method: Method) -> None:
        self.base, self.asked, self.method = base, asked, method
        self.rows, self.reloaded, self.rate = tiny_models.tiny_rows(base, ROWS), False, RATES[0]
        self.best: Tensor | None = None

    def findings(self, abilities: bool = True) -> Iterator[Finding]:
        """Yield the findings in order; stop after a problem that the later checks depend on.

        `abilities`: also check the optional capabilities (checkpointing, layer selection) and the operation count.
        """
        if not self.method.facts.trains:
            yield self._asked("trains", self.leaves_alone)
            return
        first = self._asked("trains", self.trains)
        yield first
        if first.problem:
            return
        with tempfile.TemporaryDirectory() as folder:
            try:
                with self.lent() as adapted:
                    self.fit(adapted, self.rate)
                    yield self._asked("seed", lambda: self.repeats(adapted))
                    yield self._asked("answers", lambda: self.answers(adapted))
                    yield self._asked("size", lambda: self.saves(adapted, Path(folder)))
            except Exception as error:
                yield _broken("removal", error)
            yield self.leaves()
            yield self._asked("saved", lambda: self.loads(Path(folder)))
        yield self._asked("merge", self.merges)
        if abilities:
            yield self._asked("checkpointing", self.checkpoints)
            yield self._asked("layers", self.chooses)
            yield self._asked("operations", self.counts)

    def _asked(self, about: str, question: Callable[[], Finding]) -> Finding:
        """Return the finding of a check; any exception but `UserError` is a problem."""
        try:
            return question()
        except UserError:
            raise
        except Exception as error:
            return _broken(about, error)

    @contextmanager
    def lent(self, method: Any = None, **settings: Any) -> Iterator["Adapted"]:
        """Apply the method, or the same with other arguments, to the base; remove it on exit."""
        import torch

        from peftbench.core.seeds import stream
        from peftbench.single_run import adapt

        train = self.asked.train.model_copy(update=settings)
        asked = self.asked.model_copy(update={"train": train, "method": method or self.asked.method})
        torch.manual_seed(stream(0, "init"))
        try:
            adapted = adapt(self.base, self.method, asked)
            try:
                yield adapted
            finally:
                if adapted.remove is not None:
                    adapted.remove()
                del adapted
        finally:
            self.reloaded = self.base.restore()

    def fit(self, adapted: "Adapted", rate: float, **settings: Any) -> tuple[float, float]:
        """Train briefly; return the loss before and after."""
        from peftbench.engine.phase_meter import Meter
        from peftbench.engine.train import Trainer

        trainer = Trainer(adapted, self.asked.train.model_copy(update=settings), rate, "fp32", 0)
        before = trainer.loss(self.rows)
        trainer.fit(self.rows, self.rows, Meter(), lambda _event: None)
        return before, trainer.loss(self.rows)

    def logits(self, adapted: "Adapted") -> "Tensor":
        """Return logits [rows, vocabulary] of the first answer token, one row at a time."""
        import torch

        adapted.model.eval()
        return torch.cat([unbatched_reference.logits(adapted, row.prompt, []) for row in self.rows[:SHOWN]])

    # Parts of the contract

    def leaves_alone(self) -> Finding:
        """Check that a method without training has no trainable parameters and does not change the base."""
        with self.lent() as adapted:
            trained = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
        wrong = bool(trained) or self.reloaded
        return Finding("trains", f"{trained} parameters; the base is {'changed' if wrong else 'as before'}", wrong)

    def trains(self) -> Finding:
        """Check that the loss falls at one of the rates and only trainable parameters change."""
        from peftbench.engine.exceptions import DivergedError

        said = ""
        for self.rate in RATES:
            with self.lent() as adapted:
                asked = {name: p.requires_grad for name, p in adapted.model.named_parameters()}
                before = {name: p.detach().clone() for name, p in adapted.model.named_parameters()}
                try:
                    start, end = self.fit(adapted, self.rate)
                except DivergedError as problem:
                    said = str(problem)
                    continue
                now = dict(adapted.model.named_parameters())
                moved = [name for name, tensor in before.items() if not tensor.equal(now[name])]
                self.best = self.logits(adapted)
            if strayed := [name for name in moved if not asked[name]]:
                return Finding("trains", f"what asks for no gradient has moved: {', '.join(strayed[:3])}", True)
            if end < start:
                size = sum(before[name].numel() for name in before if asked[name])
                names = [name for name in asked if asked[name]]
                facts = {"trainable_parameters": size, "names": names, "before": start, "after": end, "rate": self.rate}
                return Finding(
                    "trains", f"{size:,} parameters and nothing else; loss {start:.3f} to {end:.3f}", facts=facts
                )
            said = f"loss {start:.3f} before and {end:.3f} after"
        return Finding("trains", f"the loss does not fall at any of the rates {RATES}: {said}", True)

    def repeats(self, adapted: "Adapted") -> Finding:
        """Check that a second training with the same seed gives bit-identical logits."""
        same = self.best is not None and bool(self.best.equal(self.logits(adapted)))
        return Finding("seed", f"trained again with the same seed: {'the same' if same else 'other'} numbers", not same)

    def answers(self, adapted: "Adapted") -> Finding:
        """Check that answers of a batch, decoded as in a run, equal those of single rows without a cache."""
        from peftbench.engine.decode_strategy import choose
        from peftbench.engine.generation import answers_in_order, generate

        adapted.model.eval()
        end, shown = self.base.tokenizer.eos_token_id, self.rows[:SHOWN]
        how = choose(adapted, shown, False, self.base.exact)
        together = answers_in_order(
            shown, how, SHOWN, lambda batch, cached: generate(adapted, batch, [end], TOKENS, cached)
        )
        alone = [unbatched_reference.reference_answer(adapted, row.prompt, TOKENS, end) for row in shown]
        same = sum(one == other for one, other in zip(together, alone, strict=True))
        said = f"{same} of {SHOWN} answered together ({how}) are those of the row alone and without a cache"
        return Finding("answers", said, same < SHOWN, {"same": same})

    def merges(self) -> Finding:
        """Check that a supported merge preserves the logits and can be undone, or is refused with a `UserError`."""
        with self.lent() as adapted:
            self.fit(adapted, self.rate)
            best, offered = self.logits(adapted), adapted.merge is not None
            try:
                with _merging(adapted):
                    apart = _apart(self.logits(adapted), best)
                restored = bool(self.logits(adapted).equal(best))
            except UserError as reason:
                return Finding("merge", f"refused: {reason}", facts={"merge": False, "why": str(reason)})
            except Exception as error:
                return Finding("merge", error_line(error), offered, {"merge": False, "why": str(error)})
        said = f"{'offered' if offered else 'not offered'}; merged, the logits differ by {apart:.0e} of the largest"
        said += "" if restored else ", and are others when it is taken apart again"
        exact = apart < MERGED and restored
        why = "taking it apart does not restore every bit" if apart < MERGED else "merged, it is another function"
        if self.base.quantise:
            why = "the base's weights are quantised, and would be quantised anew"
        facts = {"merge": exact, "difference": apart} | ({} if exact else {"why": why})
        return Finding("merge", said, offered and not exact, facts)

    def saves(self, adapted: "Adapted", folder: Path) -> Finding:
        """Check that the method can be saved."""
        from peftbench.engine.checkpoint import save_checkpoint

        self.best = self.logits(adapted)
        size = save_checkpoint(adapted, folder / "adapter")
        return Finding("size", f"{size:,} bytes to keep", not size, {"adapter_bytes": size})

    def leaves(self) -> Finding:
        """Report whether the base was bit-identical after removal, or changed and reloaded."""
        said = "changed, found out by its checksum, and loaded anew" if self.reloaded else "bit-identical afterwards"
        return Finding("base", said, facts={"base": "reloaded" if self.reloaded else "unchanged"})

    def loads(self, folder: Path) -> Finding:
        """Check that the saved method, loaded on a clean base, gives the logits of the best step."""
        from peftbench.engine.checkpoint import load_checkpoint

        again = load_checkpoint(self.base, self.asked.method, folder / "adapter")
        try:
            assert self.best is not None
            apart = _apart(self.logits(again), self.best)
        finally:
            if again.remove is not None:
                again.remove()
            self.base.restore()
        said = f"read back, the logits differ by {apart:.0e} of the largest"
        return Finding("saved", said, apart > SAME, {"difference": apart})

    def checkpoints(self) -> Finding:
        """Check that gradient checkpointing gives the same gradients, or is refused with a reason.

        Gradients are compared at one state, because rounding makes two trainings diverge at a high learning rate.
        """
        try:
            with self.lent(gradient_checkpointing=True) as adapted:
                self.fit(adapted, self.rate)
                found = unbatched_reference.gradient(adapted, self.rows)
                adapted.network.gradient_checkpointing_disable()
                apart = _apart(found, unbatched_reference.gradient(adapted, self.rows))
        except UserError as problem:
            why = str(problem).partition(": ")[2] or str(problem)
            return Finding("checkpointing", f"refused: {why}", facts={"gradient_checkpointing": False, "why": why})
        said = f"with it the gradients differ by {apart:.0e} of the largest"
        return Finding("checkpointing", said, apart > ROUNDED, {"gradient_checkpointing": apart <= ROUNDED})

    def chooses(self) -> Finding:
        """Check that layer selection works: one layer has some of the trainable parameters, at most all."""
        parameter = self.method.parameters.get("layers")
        if parameter is None or parameter.annotation != Layers:
            return Finding("layers", "no choice of layers", facts={"layers": False})
        arguments = self.asked.method.arguments
        counts = []
        for which in ("all", [0]):
            with self.lent(
                self.asked.method.model_copy(update={"arguments": arguments | {"layers": which}})
            ) as adapted:
                counts.append(sum(p.numel() for p in adapted.model.parameters() if p.requires_grad))
        said = f"{counts[1]:,} of {counts[0]:,} parameters in the first alone"
        return Finding("layers", said, not 0 < counts[1] <= counts[0], {"layers": True})

    def counts(self) -> Finding:
        """Report the operation count, from the configuration or, failing that, the loaded model."""
        from peftbench.profiling.parameters_and_flops import estimate_costs, forward_flops

        with self.lent() as adapted:
            flops = forward_flops(adapted)
        facts = {"loaded": flops, "meta": None}
        try:
            known = estimate_costs(self.base.config, self.asked.method.name, **self.asked.method.arguments)
            if known.forward_flops_512 is None:
                raise ValueError("; ".join(known.notes))
            facts["meta"] = known.forward_flops_512
        except Exception as error:
            said = f"{flops:,} in 512 tokens, counted on the loaded model: {error_line(error)}"
            return Finding("operations", said, facts=facts)
        return Finding(
            "operations", f"{known.forward_flops_512:,} in 512 tokens, by the configuration alone", facts=facts
        )


def _merging(adapted: "Adapted") -> Any:
    from peftbench.engine.merging import exactly

    if adapted.merge is not None:
        return exactly(adapted, adapted.merge)
    if adapted.lossy_merge is not None:
        return adapted.lossy_merge()
    raise NotImplementedError("nothing to fold into the weights")


def _apart(one: "Tensor", other: "Tensor") -> float:
    return float((one - other).abs().max() / other.abs().max())


def _broken(about: str, error: Exception) -> Finding:
    return Finding(about, error_line(error), True)
