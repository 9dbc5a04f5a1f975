"""`peftbench gate`: what is run, what is taken from the store, and what it says and writes."""

import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest

from peftbench.core import provenance
from peftbench.core.registry import UserError
from peftbench.core.spec import DataFacts, RunResult, RunSpec
from peftbench.gating import gate_runs
from peftbench.gating.gate_runs import GateDesign, arms, current, to_do
from peftbench.launch import After, Options, Watch, launchers, local, worker_process
from peftbench.results.digests import RESULT
from peftbench.results.store import Store
from peftbench.tasks import resolve
from peftbench.tasks._scoring import NOTHING, chance, score_task
from peftbench.tasks._splits import RowLimits, split
from sealing import rewrite
from test_cli import Done, call

ROOT = Path(__file__).parent.parent
WORSE = (
    '{ use = "lora", alpha = 32, dropout = 0.0, modules = ["q", "k", "v", "o", "gate", "up", "down"],'
    " learning_rate = 1e-7 }"
)
OTHER = '''
from typing import Any
from peftbench.methods import METHODS, Adapted, method

@method(learning_rate=2e-3)
def lora_by_another_name(model: Any) -> Adapted:
    """LoRA as the baseline of the gate has it."""
    modules = ["q", "k", "v", "o", "gate", "up", "down"]
    return METHODS["lora"].function(model, alpha=32, dropout=0.0, modules=modules)
'''


def planted(spec: RunSpec, share: float, store: Store, status: Any = "ok") -> None:
    """A run that answered so large a share of the test rows rightly; which rows is up to its method and seed."""
    task = resolve(spec.task.name, spec.task.arguments)
    rows = split(
        task, {}, spec.size, spec.seed, RowLimits(spec.train.validation_rows, spec.eval.test_rows), root=None
    ).test
    rng = random.Random(f"{spec.method.name}{spec.seed}")
    given = [row.target if rng.random() < share else "nothing" for row in rows]
    kept = [{"prediction": text, "references": list(row.answers)} for text, row in zip(given, rows, strict=True)]
    result = RunResult(
        id=spec.id,
        spec=spec,
        status=status,
        **(score_task(task, rows, given) if status == "ok" else NOTHING)._asdict(),
        chance=chance(task, rows),
        data=DataFacts(source="x", fingerprint="of these", train_rows=8, validation_rows=8, test_rows=len(rows)),
        versions=provenance.versions(),
        code=provenance.code(),
        error=None if status == "ok" else "loss is not finite",
    )
    store.finish(store.begin(spec), result, kept)


Share = Callable[[RunSpec], float]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """In the place of training: `share` of right answers by spec (a status instead: how it ends), `done` what ran."""
    held: dict[str, Any] = {"share": lambda _spec: 0.9, "done": []}

    def launch(
        specs: list[RunSpec], store: Store, _options: Options, _watch: Watch, _after: After | None = None
    ) -> None:
        for spec in specs:
            share = held["share"](spec)
            held["done"].append(spec)
            if isinstance(share, str):
                planted(spec, 0, store, share)
            else:
                planted(spec, share, store)

    monkeypatch.setitem(cast("dict[str, Any]", launchers()), "local", launch)
    return held


def gate(folder: Path, *more: str) -> Done:
    return call("gate", *more, "--store", folder / "store", "--eval", "test_rows=100", "--seeds", "3")


def test_no_worse_is_0_and_everything_is_written(tmp_path: Path, runs: dict[str, Any]) -> None:
    summary, xml = tmp_path / "summary.md", tmp_path / "new" / "gate.xml"
    summary.write_text("before\n")
    runs["share"] = lambda _spec: 1.0
    done = gate(tmp_path, "dora", "--summary", str(summary), "--junit", str(xml))
    assert done.code == 0
    assert "No worse: +0.0 (-1.9 to +1.9) points: above minus the margin of 3." in done.out
    assert "12 runs in this gate, 0 done before" in done.err
    assert summary.read_text().startswith("before\n\n## Gate: no worse")
    suite = ET.parse(xml).getroot()[0]
    assert [case.get("name") for case in suite.iter("testcase")] == ["pocket_choice", "pocket_topic", "all tasks"]


def test_worse_is_1_and_cannot_tell_is_2(tmp_path: Path, runs: dict[str, Any]) -> None:
    runs["share"] = lambda spec: 0.5 if spec.train.learning_rate == 1e-7 else 0.95
    done = gate(tmp_path, WORSE, "--json")
    assert (done.code, done.json["outcome"], done.json["exit_code"]) == (1, "worse", 1)
    runs["share"] = lambda spec: random.Random(spec.id).uniform(0.75, 1.0)
    done = gate(tmp_path, "dora")
    assert (done.code, "Cannot tell: " in done.out) == (2, True)


def test_a_candidate_that_diverges_is_worse_and_a_baseline_that_does_tells_nothing(
    tmp_path: Path, runs: dict[str, Any]
) -> None:
    runs["share"] = lambda spec: "diverged" if spec.method.name == "dora" and spec.seed == 1 else 0.9
    done = gate(tmp_path, "dora", "--junit", str(tmp_path / "a.xml"))
    assert done.code == 1
    assert "pocket_choice, seed 1: diverged (loss is not finite), and 1 more" in done.out
    done = gate(tmp_path, "lora", "--baseline", "dora")
    assert (done.code, "the baseline has no score" in done.out) == (2, True)


def test_the_baseline_is_run_once_and_the_candidate_anew_if_asked(tmp_path: Path, runs: dict[str, Any]) -> None:
    gate(tmp_path, "dora")
    runs["done"].clear()
    gate(tmp_path, "dora")
    assert runs["done"] == []
    gate(tmp_path, "dora", "--again")
    assert {spec.method.name for spec in runs["done"]} == {"dora"}
    runs["done"].clear()
    gate(tmp_path, "ia3")
    assert {spec.method.name for spec in runs["done"]} == {"ia3"}


def test_what_trains_nothing_is_run_on_one_seed(tmp_path: Path, runs: dict[str, Any]) -> None:
    runs["share"] = lambda spec: 0.3 if spec.method.name == "none" else 0.9
    assert gate(tmp_path, "none").code == 1
    assert sorted(spec.seed for spec in runs["done"] if spec.method.name == "none") == [0, 0]
    assert len(runs["done"]) == 8


def test_an_adapter_is_known_by_its_files_and_asked_for_its_base(
    tmp_path: Path, runs: dict[str, Any], tiny_models: dict[str, Path]
) -> None:
    """A fully trained model stands for an adapter: both are the method `saved`."""
    runs["share"] = lambda _spec: 1.0
    done = gate(tmp_path, "--adapter", str(tiny_models["llama"]), "--model", str(tiny_models["llama"]))
    assert (done.code, len(runs["done"])) == (0, 8), done.err
    assert {spec.method.name for spec in runs["done"]} == {"saved", "lora"}
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "other/base", "peft_type": "LORA"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    done = gate(tmp_path, "--adapter", str(tmp_path))
    assert (done.code, "was made for other/base, not for" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("code", {"peftbench": {"source": "of another day"}}),
        ("versions", {"torch": "1.0"}),
        ("status", "failed"),
        ("status", "out-of-memory"),
    ],
)
def test_what_other_code_found_is_not_taken(tmp_path: Path, key: str, value: Any) -> None:
    found, store = arms(GateDesign("dora", seeds=2, eval={"test_rows": 8})), Store(tmp_path)
    for spec in found.runs():
        planted(spec, 1, store)
    assert to_do(found, store) == []
    first = found.candidate.first
    path = store.folder(first) / RESULT
    rewrite(path, lambda content: content.update({key: value}))
    assert current(store, first) is None
    assert to_do(found, store) == [first]


def test_a_plugin_that_changed_is_run_again_and_the_baseline_is_not(tmp_path: Path, runs: dict[str, Any]) -> None:
    plugin = tmp_path / "gate_plugin.py"
    plugin.write_text(OTHER)
    provenance.code.cache_clear()
    arguments = ("lora-by-another-name", "--plugin", str(plugin))
    assert gate(tmp_path, *arguments).code in (0, 2)
    plugin.write_text(OTHER + "# changed\n")
    provenance.code.cache_clear()
    runs["done"].clear()
    gate(tmp_path, *arguments)
    assert {spec.method.name for spec in runs["done"]} == {"lora-by-another-name"}
    provenance.code.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either a method or --adapter DIR"),
        (["lora", "--adapter", "."], "the candidate is not clear"),
        (["lroa"], "did you mean 'lora'?"),
        (["{ use = "], "not valid TOML"),
        (['{ use = "lora", rank = [4, 8] }'], "candidate: several runs on pocket_choice"),
        (["lora", "--baseline", "lora"], "candidate and baseline are the same, lora: give another with --baseline"),
        (["lora", "--tasks", "pocket_choise"], "did you mean 'pocket_choice'?"),
        (["lora", "--size", "some"], "--size some is not valid: give a number of training rows, or all"),
        (["lora", "--train", "epochs"], "--train epochs: give KEY=VALUE"),
        (["lora", "--train", "epochs=3"], "unknown key of [train] 'epochs'"),
        (["lora", "--margin", "0"], "margin 0: give a number of points above 0"),
        (["lora", "--adapter-dir", "x"], "No such option"),
    ],
)
def test_what_the_user_can_put_right(tmp_path: Path, runs: dict[str, Any], arguments: list[str], said: str) -> None:
    done = call("gate", *arguments, "--store", tmp_path / "store")
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert runs["done"] == []


def test_a_gate_that_breaks_has_no_verdict(
    tmp_path: Path, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(gate_runs, "verdict", broken)
    done = gate(tmp_path, "dora")
    assert (done.code, len(runs["done"])) == (2, 12)
    assert "RuntimeError: out of luck" in done.err
    assert "no verdict: the gate itself failed" in done.err


def test_runs_on_other_data_are_not_compared(tmp_path: Path) -> None:
    found, store = arms(GateDesign("dora", seeds=2, eval={"test_rows": 8})), Store(tmp_path)
    for one in found.runs():
        planted(one, 1, store)
    path = store.folder(found.candidate.first) / RESULT
    rewrite(path, lambda content: content["data"].update(fingerprint="of other rows"))
    with pytest.raises(UserError, match="pocket_choice: its data changed between the runs"):
        gate_runs.verdict(found, store)


def test_the_workflow_asks_for_what_there_is(tmp_path: Path, runs: dict[str, Any]) -> None:
    """The command of the example, as its runner would give it."""
    text = (ROOT / "examples" / "github" / "peftbench-gate.yml").read_text()
    command = text.split("run: >-\n")[1]
    words = command.split("      - name")[0].split()
    assert words[:2] == ["peftbench", "gate"]
    given = [str(ROOT / "examples" / word) if word == "my_method.py" else word for word in words[2:]]
    given = [str(tmp_path / "summary.md") if "GITHUB" in word else word for word in given]
    given = [str(tmp_path / word) if word == "gate.xml" else word for word in given]
    runs["share"] = lambda _spec: 1.0
    assert gate(tmp_path, *given).code == 0
    assert (tmp_path / "gate.xml").is_file()
    assert "permissions:\n  contents: read\n" in text


@pytest.mark.slow
def test_a_planted_worse_method_is_found_and_a_planted_equal_one_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA under another name, and LoRA that learns nothing, in the time of two cores for five minutes."""
    # Workers as the command starts them: children of this process, whose time is known when they have ended.
    monkeypatch.setattr(local, "start_worker", worker_process.start_worker)
    plugin = tmp_path / "other.py"
    plugin.write_text(OTHER)
    store = ["--store", str(tmp_path / "store")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    equal = call("gate", "lora-by-another-name", "--plugin", plugin, *store, "--json")
    worse = call("gate", WORSE, *store, "--json")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (equal.code, equal.json["outcome"]) == (0, "no worse"), equal.out + equal.err
    assert equal.json["difference"]["mean"] == 0
    assert -1 < equal.json["difference"]["low"] < 0 < equal.json["difference"]["high"] < 1
    assert (worse.code, worse.json["outcome"]) == (1, "worse"), worse.out + worse.err
    # Time of the processors, as the clock's depends on what else the machine does.
    assert 20 < used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 2 * 300
