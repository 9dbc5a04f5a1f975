"""What a result depends on is recorded, and a run done again is compared to the bit."""

import json
import math
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from peftbench import single_run
from peftbench.core import environment_report, provenance, seeds
from peftbench.core.spec import Choice, Costs, DataFacts, Point, RunResult, RunSpec, Score
from peftbench.engine import train
from peftbench.results.run_diff import RunDiff, compare_runs
from peftbench.results.store import Store
from peftbench.single_run import Worker, run
from peftbench.tasks import _splits, resolve
from sealing import rewrite
from test_cli import Done, assert_one_line, call, write

SPEC = RunSpec(model=Choice(name="m"), method=Choice(name="lora"), task=Choice(name="t"), size=8, seed=3)
ANSWERS = [{"prediction": word, "references": ["joy"]} for word in ("joy", "anger", "joy")]


def result(**more: Any) -> RunResult:
    filled: dict[str, Any] = {
        "status": "ok",
        "scores": {"f1": Score(value=61.5, standard_error=2.0)},
        "costs": Costs(train_seconds=1.5, peak_memory_bytes=1000, peak_memory_source="tracked-tensors"),
        "curve": (Point(step=2, tokens=9, seconds=0.5, train_loss=1.25, validation_loss=0.1 + 0.2),),
        "versions": {"torch": "2.9.0"},
        "settings": {"threads": 1},
    }
    return RunResult(id=SPEC.id, spec=SPEC, **filled | more)


def compared(again: RunResult, answers: list[dict[str, Any]] = ANSWERS) -> RunDiff:
    return compare_runs(result(), again, (ANSWERS, answers))


def unlike(found: RunDiff) -> list[str]:
    return [line.what for line in found.lines if not line.same]


# What two runs have in common


def test_time_is_no_difference() -> None:
    costs = Costs(train_seconds=9, eval_seconds=1, peak_memory_bytes=1000, peak_memory_source="tracked-tensors")
    point = Point(step=2, tokens=9, seconds=7, train_loss=1.25, validation_loss=0.1 + 0.2)
    found = compared(result(costs=costs, curve=(point,), notes=("a note",)))
    assert found.same
    assert "costs.peak_memory_bytes" in [line.what for line in found.lines]
    assert not [line.what for line in found.lines if "seconds" in line.what]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"scores": {"f1": Score(value=math.nextafter(61.5, 62), standard_error=2.0)}}, "scores.f1.value"),
        ({"scores": {"f1": Score(standard_error=2.0)}}, "scores.f1.value"),
        ({"status": "diverged"}, "status"),
        ({"costs": Costs(peak_memory_bytes=1001, peak_memory_source="tracked-tensors")}, "costs.peak_memory_bytes"),
        ({"curve": (Point(step=2, tokens=9, seconds=0.5, train_loss=1.25, validation_loss=0.3),)}, "learning curve"),
        ({"curve": ()}, "learning curve"),
    ],
)
def test_the_last_bit_is_a_difference(more: dict[str, Any], what: str) -> None:
    assert unlike(compared(result(**more))) == [what]


def test_memory_of_an_allocator_is_not_compared() -> None:
    of_gpu = {"peak_memory_source": "cuda-allocator", "trainable_parameters": 5}
    one, other = (result(costs=Costs(peak_memory_bytes=n, **of_gpu)) for n in (1, 2))
    found = compare_runs(one, other, (ANSWERS, ANSWERS))
    assert found.same
    assert "costs.trainable_parameters" in [line.what for line in found.lines]


def test_answers_that_differ_are_counted_and_the_first_is_shown() -> None:
    changed = [row | {"prediction": "fear"} if row["prediction"] == "joy" else row for row in ANSWERS]
    line = compared(result(), changed).lines[0]
    assert (line.what, line.same) == ("predictions", False)
    assert line.first == '3 rows; row 1, prediction: "joy"'
    assert line.again == '2 differ, from row 1 on: "fear"'
    assert unlike(compared(result(), ANSWERS[:2])) == ["predictions"]


def test_losses_that_are_no_numbers_are_the_same() -> None:
    point = Point(step=2, tokens=9, seconds=0.5, train_loss=math.nan, validation_loss=math.inf)
    one = result(curve=(point,), status="diverged")
    assert compare_runs(one, one.model_copy(), (ANSWERS, ANSWERS)).same


def test_environments_are_compared_and_do_not_decide() -> None:
    data = DataFacts(source="hub: t", fingerprint="a", train_rows=8, validation_rows=4, test_rows=3)
    found = compared(result(versions={"torch": "2.10.0"}, settings={"threads": 2}, data=data))
    assert found.same
    assert [(line.what, line.first, line.again) for line in found.environment] == [
        ("versions.torch", "2.9.0", "2.10.0"),
        ("settings.threads", 1, 2),
        ("data", "not recorded", "recorded"),
    ]


# What is recorded


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a git checkout, importable."""
    folder = tmp_path / "checkout" / "a_method_of_mine"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("NUMBER = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "First")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def git(folder: Path, *words: str) -> str:
    top = ["git", "-C", str(folder.parent), *words]
    return subprocess.run(top, check=True, capture_output=True, text=True).stdout.strip()


class Installed:
    """A distribution with what an installer wrote of where it came from."""

    def __init__(self, origin: dict[str, Any] | None = None) -> None:
        self.origin = origin

    def read_text(self, _name: str) -> str | None:
        return json.dumps(self.origin) if self.origin else None


def test_a_checkout_has_a_commit_and_says_if_it_was_changed(checkout: Path) -> None:
    def origin() -> dict[str, Any]:
        return provenance._origin("a-method-of-mine", Installed())  # type: ignore[arg-type]

    commit = git(checkout, "rev-parse", "HEAD")
    assert origin() == {"commit": commit, "dirty": False}
    (checkout / "__init__.py").write_text("NUMBER = 2\n")
    assert origin() == {"commit": commit, "dirty": True}
    git(checkout, "-c", "user.name=n", "-c", "user.email=e", "commit", "-qam", "Second")
    assert origin() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    git(checkout, "rm", "-rq", "--cached", ".")
    (checkout.parent / ".gitignore").write_text("*\n")
    assert origin() == {}, "a folder that is ignored has not the commit of what is around it"


def test_an_installation_from_a_commit_has_that_commit() -> None:
    commit = "0123456789" * 4
    at_a_commit = Installed({"url": "https://somewhere", "vcs_info": {"vcs": "git", "commit_id": commit}})
    assert provenance._origin("no-such-module", at_a_commit) == {"commit": commit}  # type: ignore[arg-type]
    assert provenance._origin("no-such-module", Installed()) == {}  # type: ignore[arg-type]
    from_a_folder = Installed({"url": "file:///home/me/it", "dir_info": {}})
    assert provenance._origin("no-such-module", from_a_folder) == {}  # type: ignore[arg-type]


def test_the_digest_of_the_source_sees_every_change(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    seen = set()
    for texts in (("ab", "c"), ("a", "bc"), ("", "abc")):
        for path, text in zip((one, other), texts, strict=True):
            path.write_text(text)
        seen.add(provenance._digest([("one.py", one), ("other.py", other)]))
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (x@y)\n"
            "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
            "570.86.15",
        ),
    ],
)
def test_the_driver(text: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "DRIVER", tmp_path / "version")
    assert provenance._driver() is None
    (tmp_path / "version").write_text(text)
    assert provenance._driver() == version


def test_settings_are_those_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = provenance.settings()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        after = provenance.settings()
    finally:
        torch.use_deterministic_algorithms(False)
    assert before["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert {name for name in after if after[name] != before[name]} == {"deterministic_algorithms"}
    assert before["threads"] == torch.get_num_threads()


def test_a_result_has_the_seed_of_every_stream_that_was_drawn(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, int] = {}

    def watched(seed: int, name: seeds.Stream) -> int:
        return drawn.setdefault(name, seeds.stream(seed, name))

    for user in (single_run, _splits, train):
        monkeypatch.setattr(user, "stream", watched)
    (spec,) = _specs(tiny_models["llama"])
    found, _ = run(spec, Worker(), tmp_path, lambda _event: None)
    assert found.status == "ok", found.error
    assert drawn == found.seeds
    assert found.seeds["order"] != seeds.streams(0)["order"]
    assert {"commit", "dirty"} <= set(found.code["peftbench"]) or "source" in found.code["peftbench"]
    assert found.settings["threads"] == 1
    text = json.dumps([found.machine, found.versions, found.code, found.settings])
    for private in (str(Path.home()), str(Path(__file__).parent.parent), socket.gethostname()):
        assert private not in text


def _specs(model: Path) -> list[RunSpec]:
    from peftbench.grid.expand import expand

    train, tested = {"max_steps": 2, "validation_rows": 4}, {"test_rows": 4}
    grid = {"models": [str(model)], "methods": ["lora"], "tasks": ["pocket_entailment"], "sizes": [8], "seeds": [5]}
    return expand(grid | {"train": train, "eval": tested})


# env


def test_env() -> None:
    said = call("env", "--json")
    assert said.code == 0
    assert said.json["versions"] == provenance.versions()
    assert {"bitsandbytes", "sandbox", "NVML", "RAPL"} == set(said.json["optional"])
    plain = call("env").out
    for name in ("torch", "cpu", "threads", "source", "RAPL"):
        assert name in plain


def test_energy_counters_of_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_report, "POWER", tmp_path)
    assert environment_report._rapl() == (False, f"missing: no counter in {tmp_path}")
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.mkdir(parents=True)
    usable, why = environment_report._rapl()
    assert not usable
    assert why.startswith(f"not readable: {counter}: ")
    counter.rmdir()
    counter.write_text("12\n")
    assert environment_report._rapl() == (True, "readable")


def test_the_library_of_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, code: int) -> None:
            self.code = code

        def nvmlInit_v2(self) -> int:  # noqa: N802 (NVIDIA's name)
            return self.code

        def nvmlShutdown(self) -> int:  # noqa: N802
            return 0

    monkeypatch.setattr("ctypes.CDLL", lambda _name: Library(0))
    assert environment_report._nvml() == (True, "readable")
    monkeypatch.setattr("ctypes.CDLL", lambda _name: Library(9))
    assert environment_report._nvml() == (False, "libnvidia-ml.so.1 does not start: error 9")


# reproduce


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, Path]) -> tuple[Path, str]:
    """A store with a run of LoRA, and the id of that."""
    folder = tmp_path_factory.mktemp("done")
    grid = write(folder / "grid.toml", ["lora"], ["pocket_sentiment"], tiny_models["llama"])
    assert call("run", grid, "--store", folder / "results", "--workers", "1", "--threads", "2").code == 0
    (id_,) = Store(folder / "results").results()
    return folder / "results", id_


@pytest.fixture
def held(done: tuple[Path, str], tmp_path: Path) -> tuple[Store, Path, str]:
    """A copy of that store that may be spoilt, and the folder of the run."""
    import shutil

    store = Store(Path(shutil.copytree(done[0], tmp_path / "results")))
    return store, store.find(done[1])[1], done[1]


def again(store: Store, id_: str, *more: str | Path) -> Done:
    return call("reproduce", id_, "--store", store.root, *more)


def edit(folder: Path, **more: Any) -> str:
    """Change a result, and its id if its spec is changed; returns the id."""
    if "spec" in more:
        more["id"] = RunSpec.model_validate(more["spec"]).id
    rewrite(folder / "result.json", lambda content: content.update(more))
    return str(json.loads((folder / "result.json").read_text())["id"])


def test_a_run_is_reproduced(done: tuple[Path, str], tmp_path: Path) -> None:
    store, id_ = done
    said = call("reproduce", id_[:7], "--store", store, "--keep", tmp_path / "kept", "--json")
    assert said.code == 0, said.err + said.out
    assert (said.json["id"], said.json["same"]) == (id_, True)
    names = {line["what"] for line in said.json["lines"]}
    assert {"predictions", "learning curve", "scores.accuracy.value", "costs.peak_memory_bytes"} <= names
    assert {"costs.trainable_parameters", "costs.forward_flops_512", "costs.adapter_bytes"} <= names
    assert said.json["environment"] == []
    kept, _ = Store(tmp_path / "kept").find(id_)
    assert kept.settings["threads"] == 2, "the threads of a run are part of what it is"
    refused = call("reproduce", id_, "--store", store, "--keep", store)
    assert_one_line(refused, f"store {store} has a run {id_}, which this would replace")


@pytest.mark.slow
def test_a_run_that_is_not_reproduced(held: tuple[Store, Path, str]) -> None:
    store, folder, id_ = held
    found, _ = store.find(id_)
    score = next(iter(found.scores))
    spoilt = json.loads(found.model_dump_json(exclude_none=True))["scores"]
    spoilt[score]["value"] += 1
    edit(folder, scores=spoilt, row_scores=None, versions=found.versions | {"torch": "1.0"})
    said = again(store, id_)
    assert said.code == 1
    assert f"run {id_}: not the same: scores.{score}.value" in said.out
    assert "versions.torch  1.0" in said.out
    assert store.find(id_)[0].versions["torch"] == "1.0", "the run in the store stays as it was"


@pytest.mark.parametrize("status", ["failed", "out-of-memory"])
def test_a_run_that_found_nothing_is_not_repeated(held: tuple[Store, Path, str], status: str) -> None:
    store, folder, id_ = held
    edit(folder, status=status, error="no room")
    assert_one_line(again(store, id_), f"run {id_} ended as {status}: there is nothing to compare. no room")


def test_a_run_without_its_answers_is_not_repeated(held: tuple[Store, Path, str]) -> None:
    store, folder, id_ = held
    (folder / "predictions.jsonl.gz").unlink()
    assert_one_line(again(store, id_), f"predictions.jsonl.gz: it is missing. Run {id_} counts as missing")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("method", {"version": 99}, "method lora has changed: it was version 99 and is version"),
        ("method", {"name": "no-such-method"}, "unknown method 'no-such-method': "),
        ("model", {"version": "0123abcd"}, "has changed: it was version 0123abcd and is version"),
        ("task", {"version": 99}, "task pocket_sentiment has changed: it was version 99"),
    ],
)
def test_what_is_not_as_it_was(held: tuple[Store, Path, str], kind: str, change: dict[str, Any], message: str) -> None:
    store, folder, _ = held
    spec = json.loads((folder / "spec.json").read_text())
    id_ = edit(folder, spec=spec | {kind: spec[kind] | change})
    said = again(store, id_)
    assert_one_line(said, message)
    assert f"run {id_} cannot be reproduced here" in said.err
    assert ("--plugin FILE" in said.err) == ("name" in change)


@pytest.mark.slow
def test_data_that_cannot_be_had(held: tuple[Store, Path, str], tmp_path: Path) -> None:
    store, folder, _ = held
    spec = json.loads((folder / "spec.json").read_text())
    id_ = edit(folder, spec=spec | {"task": {"name": "rte", "version": resolve("rte", {}).facts.version}})
    (tmp_path / "mirror").mkdir()
    said = again(store, id_, "--data", tmp_path / "mirror")
    assert said.code == 2
    assert f"error: run {id_} cannot be reproduced here: failed: data set nyu-mll/glue (rte)" in said.err
    assert said.out == ""


def test_a_run_that_is_not_there(done: tuple[Path, str], tmp_path: Path) -> None:
    store, id_ = done
    typo = ("0" if id_[0] != "0" else "1") + id_[1:6]
    assert_one_line(call("reproduce", typo, "--store", store), f"did you mean '{id_}'?")
    assert_one_line(call("reproduce", typo, "--store", tmp_path), f"no run with an id that starts with '{typo}'")


def test_stopping_leaves_no_verdict(done: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("peftbench.launch.reproduce.launch", stop)
    said = call("reproduce", done[1], "--store", done[0])
    assert (said.code, said.out) == (130, "")
    assert "stopped before" in said.err
