"""Grids and mirrors through the Hub's real clients, in processes of their own, against a stand-in on this machine."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from peftbench.results.store import Store
from peftbench.tasks import TASKS
from peftbench.tasks._loading import key, read_rows

TOOLS, MIRROR = SHARED / "tools", SHARED / "data"
SETS = ("sst2", "ag_news", "boolq")
"""Tasks of three repositories. The stand-in serves the samples of the mirror, at the commits that are pinned."""
GRID = """
models = ["pocket"]
methods = ["none", "lora"]
tasks = ["sst2", "ag_news", "boolq"]
sizes = [16]
[train]
max_steps = 2
validation_rows = 4
[eval]
test_rows = 8
"""

pytestmark = pytest.mark.skipif(
    not (TOOLS / "hub_standin.py").is_file() or not MIRROR.is_dir(), reason="no stand-in for the Hub, or no rows for it"
)


@dataclass
class Place:
    """A stand-in, and a folder with an empty cache to use it from."""

    hub: Any
    root: Path

    def serve(self, name: str, revision: str | None = None) -> None:
        """Have the data set of a task, at the commit it pins or at another one alone."""
        source = TASKS[name].facts.source
        main, config = self.root / "hub" / source.name, source.config or "default"
        for repository in main.parent.glob(f"{main.name}*"):
            shutil.rmtree(repository)
        for folder in (main, main.with_name(f"{main.name}@{revision or source.revision}")):
            shutil.copytree(MIRROR / source.name / config, folder / config)

    def call(self, *arguments: str | Path, home: str = "home", **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of peftbench."""
        private = {"HF_HOME": str(self.root / home), "PEFTBENCH_CACHE": str(self.root / "cache"), "HF_HUB_OFFLINE": "0"}
        settings = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "PEFTBENCH_DATA")}
        return subprocess.run(
            [sys.executable, "-m", "peftbench", *map(str, arguments)],
            env=settings | private | {"HF_ENDPOINT": self.hub.url} | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def fetch(self, *names: str, to: str = "mirror", home: str = "home") -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit status, and what became of each file."""
        done = self.call("fetch", *names, "--to", self.root / to, "--json", home=home)
        return done.returncode, {one["file"]: one for one in json.loads(done.stdout)["files"]}

    def run(self, store: str, *options: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.root / "grid.toml").write_text(GRID)
        given = ("--store", self.root / store, "--workers", "1", *options)
        return self.call("run", self.root / "grid.toml", *given, **environment)

    def told(self, store: str) -> dict[tuple[str, str], str | None]:
        """The error of each run, None where there is none."""
        results = Store(self.root / store).results().values()
        return {(one.spec.task.name, one.spec.method.name): one.error for one, _ in results}

    def data(self, store: str) -> dict[str, tuple[str, str | None]]:
        """Fingerprint and revision of the rows of each run, by its id."""
        results = Store(self.root / store).results().items()
        return {id_: (one.data.fingerprint, one.data.revision) for id_, (one, _) in results if one.data}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.syspath_prepend(str(TOOLS))
    from hub_standin import Hub

    class Pinned(Hub):  # type: ignore[misc]  # the stand-in is no typed package
        """Serves the folder NAME@<commit> as that commit."""

        def load(self, kind: str, folder: Path) -> Any:
            revision = super().load(kind, folder)
            if named := re.search(r"@([0-9a-f]{40})$", folder.name):
                revision.commit = named[1]
            return revision

    (tmp_path / "hub").mkdir()
    with Pinned(datasets=tmp_path / "hub") as hub:
        yield Place(hub, tmp_path)


def test_fetch_keeps_what_is_whole(place: Place) -> None:
    place.serve("sst2")
    place.serve("ag_news")
    code, first = place.fetch("sst2", "ag_news")
    files = ["fancyzhx/ag_news/default/test", "fancyzhx/ag_news/default/train"]
    files = [f"{name}.parquet" for name in (*files, "nyu-mll/glue/sst2/train", "nyu-mll/glue/sst2/validation")]
    assert (code, sorted(first), {one["status"] for one in first.values()}) == (0, files, {"fetched"})
    for name in ("sst2", "ag_news"):
        source = TASKS[name].facts.source
        for split in (source.train, str(source.test)):
            there, original = read_rows(source, split, place.root / "mirror"), read_rows(source, split, MIRROR)
            assert (there.rows, there.fingerprint) == (original.rows, original.fingerprint)
            assert (there.origin, there.revision) == ("mirror", source.revision)
    with (place.root / "mirror" / "MANIFEST.csv").open(newline="") as lines:
        line = {tuple(one[k] for k in ("hub_id", "config", "split")): one for one in csv.DictReader(lines)}
    told = line[key(TASKS["sst2"].facts.source, "train")]
    assert (told["rows"], told["label_names"]) == ("600", "label=negative|positive")
    assert told["revision"] == TASKS["sst2"].facts.source.revision

    damaged, before = place.root / "mirror" / files[0], len(place.hub.requests)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    whole = {name: (place.root / "mirror" / name).stat().st_mtime_ns for name in files[1:]}
    code, second = place.fetch("sst2", "ag_news")
    assert (code, [name for name in files if second[name]["status"] == "fetched"]) == (0, files[:1])
    assert second[files[0]]["sha256"] == first[files[0]]["sha256"]
    assert {name: (place.root / "mirror" / name).stat().st_mtime_ns for name in files[1:]} == whole
    assert not any("glue" in request["path"] for request in place.hub.requests[before:])


@pytest.mark.slow
def test_fetch_goes_on_after_failures_and_resumes(place: Place) -> None:
    place.serve("sst2")
    place.serve("boolq", revision="0" * 40)
    code, done = place.fetch("boolq", "rte", "sst2", "pocket_sentiment")
    assert code == 1
    assert [done[f"nyu-mll/glue/sst2/{split}.parquet"]["status"] for split in ("train", "validation")] == 2 * [
        "fetched"
    ]
    boolq, rte = (done[f"{name}/train.parquet"] for name in ("aps/super_glue/boolq", "nyu-mll/glue/rte"))
    assert f"Revision '{TASKS['boolq'].facts.source.revision}' doesn't exist" in boolq["why"]
    assert "BuilderConfig 'rte' not found" in rte["why"]
    assert all(
        one["why"].endswith("To load it, correct the task's source and repeat the command") for one in (boolq, rte)
    )

    place.serve("boolq")
    place.hub.gated.append("aps/*")
    code, done = place.fetch("boolq", "ag_news", home="second home")
    assert code == 2
    why = {name: one["why"] for name, one in done.items()}
    assert "gated" in why["aps/super_glue/boolq/train.parquet"]
    assert "HF_TOKEN" in why["aps/super_glue/boolq/train.parquet"]
    assert "'fancyzhx/ag_news' doesn't exist on the Hub" in why["fancyzhx/ag_news/default/train.parquet"]

    place.hub.gated.clear()
    place.serve("ag_news")
    code, done = place.fetch("boolq", "ag_news", "sst2", home="second home")
    assert (code, [one["status"] for one in done.values()]) == (0, 4 * ["fetched"] + 2 * ["kept"])


@pytest.mark.slow
def test_fetch_over_a_dropped_connection(place: Place) -> None:
    place.serve("sst2")
    place.hub.faults["drop-after"] = 20_000
    code, done = place.fetch("sst2")
    assert (code, {one["status"] for one in done.values()}) == (2, {"failed"})
    for one in done.values():
        assert "\n" not in one["why"]
        assert one["why"].endswith("To load it, connect to the Hub and repeat the command")
    assert not list((place.root / "mirror").rglob("*.parquet*"))
    place.hub.faults.clear()
    code, done = place.fetch("sst2")
    assert (code, {one["status"] for one in done.values()}) == (0, {"fetched"})
    assert place.call("data", "check", place.root / "mirror").returncode == 0


@pytest.mark.slow
def test_a_grid_over_a_failing_hub_and_then_offline(place: Place) -> None:
    def spread(errors: dict[str, str | None]) -> dict[tuple[str, str], str | None]:
        return {(task, method): error for task, error in errors.items() for method in ("none", "lora")}

    # One set is gated, one is missing: rows with their reasons, and the third set's runs are done.
    place.serve("sst2")
    place.serve("ag_news")
    place.hub.gated.append("fancyzhx/*")
    done = place.run("results")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    told = place.told("results")
    assert (told["sst2", "none"], told["sst2", "lora"]) == (None, None)
    for task, cause, way_out in (("ag_news", "gated dataset", "HF_TOKEN"), ("boolq", "doesn't exist on the Hub", "")):
        for method in ("none", "lora"):
            line = told[task, method] or ""
            assert [cause in line, way_out in line, "\n" in line] == [True, True, False]
            assert f"failed: {task} · {method} · seed 0: {line}" in done.stderr

    assert "4 failed: `peftbench status` shows why, --retry-failed runs them again" in done.stderr

    # The same again after another kind of trouble each: a commit that is not there, a connection that breaks.
    place.hub.gated.clear()
    place.serve("ag_news", revision="0" * 40)
    place.serve("boolq")
    place.hub.faults["drop-after"] = 20_000
    finished = {path: path.stat().st_mtime_ns for path in (place.root / "results").rglob("sst2/**/result.json")}
    assert len(finished) == 2
    assert "6 done before" in place.run("results").stderr
    retried = place.run("results", "--retry-failed")
    assert "2 done before" in retried.stderr
    assert "doesn't exist" in (place.told("results")["ag_news", "lora"] or "")
    # A connection that breaks is a fault of the machine: it is tried again, and what stood there stays.
    assert place.told("results")["boolq", "lora"] == told["boolq", "lora"]
    assert retried.stderr.count("fault of this machine: boolq") == 3
    last = retried.stderr.splitlines()[-1]
    assert last.startswith("error: 2 runs could not be done because of faults")
    assert "peer closed connection" in last
    assert retried.returncode == 1

    # The Hub is well again: the same command completes, and what was done is left alone.
    place.hub.faults.clear()
    place.serve("ag_news")
    place.run("results", "--retry-failed")
    assert place.told("results") == spread(dict.fromkeys(SETS))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished

    # From a mirror without a network: the same rows at the same commits, so the same fingerprints.
    assert place.fetch(*SETS)[0] == 0
    requests = len(place.hub.requests)
    offline = place.run("offline", "--data", place.root / "mirror", home="empty home", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert place.told("offline") == spread(dict.fromkeys(SETS))
    assert place.data("offline") == place.data("results")
    pins = {revision for _, revision in place.data("results").values()}
    assert pins == {TASKS[name].facts.source.revision for name in SETS}
    assert len(place.hub.requests) == requests


@pytest.mark.slow
def test_a_run_says_which_rows_it_used(place: Place) -> None:
    place.serve("sst2")
    (place.root / "one.toml").write_text(
        GRID.replace('["none", "lora"]', '["none"]').replace(', "ag_news", "boolq"', "")
    )
    assert place.fetch("sst2")[0] == 0
    for store, options in (("hub", ()), ("offline", ("--data", place.root / "mirror"))):
        given = ("--store", place.root / store, "--workers", "1", *options)
        done = place.call("run", place.root / "one.toml", *given, HF_HUB_OFFLINE=str(int(store == "offline")))
        assert done.returncode == 0, done.stderr
    found = {store: next(iter(Store(place.root / store).results().values()))[0].data for store in ("hub", "offline")}
    hub, offline = found["hub"], found["offline"]
    assert hub is not None
    assert offline is not None
    assert (hub.source, offline.source) == ("hub: nyu-mll/glue", "mirror: nyu-mll/glue")
    assert hub.revision == offline.revision == TASKS["sst2"].facts.source.revision
    assert hub.fingerprint == offline.fingerprint
