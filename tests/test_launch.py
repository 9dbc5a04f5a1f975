"""Launching: runs are claimed and done once, whatever methods, machines and other launchers do."""

import errno
import json
import os
import random
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import peftbench
from peftbench.core import machine_resources
from peftbench.core.machine_faults import DISK, environment_fault
from peftbench.core.registry import UserError, load_plugin
from peftbench.launch import Event, StoppedError, local
from peftbench.launch.capacity import default_workers
from peftbench.launch.time_limits import LEAST, UNKNOWN, Forecasts, TimeLimit
from peftbench.methods import METHODS
from peftbench.results.run_claims import Claims, Owner, myself

GRID: dict[str, Any] = {
    "methods": ["bitfit"],
    "tasks": ["pocket_topic"],
    "sizes": [8],
    "train": {"max_steps": 1, "validation_rows": 4, "max_length": 96},
    "eval": {"test_rows": 4},
}
TRAINED = """
def trained(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    return Adapted(model, model)
"""
HEAD = f"""
import ctypes, errno, os, pathlib, signal, sys, time
from peftbench.methods import Adapted, method
{TRAINED}
def log(path, model, what):
    "Write down that a run began: methods are also called on a model without values, to count operations."
    if not next(model.parameters()).is_meta:
        with open(path, "a") as out:
            out.write(str(what) + chr(10))
"""


def plugin(folder: Path, name: str, text: str) -> Path:
    """A plugin file of methods; names of units are the same in all tests of a process, so they must differ."""
    path = folder / f"{name}.py"
    path.write_text(HEAD + textwrap.dedent(text))
    return path


def result_files(store: Path) -> list[Path]:
    return sorted(store.glob("*/*/*/*/*/result.json"))


def assert_clean(store: Path) -> None:
    """Nothing of an unfinished run is left."""
    assert not [path for name in (".work", ".claims") for path in (store / name).glob("*")]


# What methods do to their worker


def test_what_a_method_does_to_its_process_is_its_row(tmp_path: Path) -> None:
    """Exit, interrupt, crash and hang: one row each with a reason, and the rest of the grid goes on."""
    units = plugin(
        tmp_path,
        "ends",
        """
        @method(learning_rate=1e-3)
        def ends_by_sys_exit(model):
            print("before the end")
            sys.exit("enough")

        @method(learning_rate=1e-3)
        def ends_by_crash(model):
            os.kill(os.getpid(), signal.SIGSEGV)

        @method(learning_rate=1e-3)
        def ends_never(model):
            time.sleep(3600)
        """,
    )
    methods = ["ends-by-crash", "ends-by-sys-exit", "none"]
    peftbench.run(GRID | {"methods": methods}, tmp_path / "store", plugins=[units], workers=2)
    peftbench.run(GRID | {"methods": ["ends-never"]}, tmp_path / "store", plugins=[units], workers=1, timeout=1)
    rows = peftbench.table(tmp_path / "store").set_index("method")
    assert dict(rows["status"]) == dict.fromkeys(methods[:2], "failed") | {"ends-never": "timeout", "none": "ok"}
    assert rows.loc["ends-by-sys-exit", "error"] == "the run ended its process: SystemExit: enough"
    assert rows.loc["ends-by-crash", "error"] == "the worker process died with signal SIGSEGV, 2 times"
    assert re.match(r"stopped after \d+ s, its time limit of 1 s", str(rows.loc["ends-never", "error"]))
    folders = {path.parents[2].name: path.parent for path in result_files(tmp_path / "store")}
    assert (folders["ends-by-sys-exit"] / "output.txt").read_text() == "before the end\n"
    assert "Fatal Python error: Segmentation fault" in (folders["ends-by-crash"] / "output.txt").read_text()
    for folder in folders.values():
        found = json.loads((folder / "result.json").read_text())
        assert found["machine"], "also what the launcher records says on which machine"
    assert_clean(tmp_path / "store")


# Faults of the machine


def test_a_fault_of_the_machine_is_no_result_of_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk that empties, one that stays full, and a worker that is always killed; other runs are done."""
    monkeypatch.setattr(local, "WAITS", (0.05, 0.1))
    units = plugin(
        tmp_path,
        "faulty",
        f"""
        LOG = {str(tmp_path / "begun")!r}

        @method(learning_rate=1e-3)
        def faulty_for_a_while(model):
            log(LOG, model, "a-while")
            if pathlib.Path(LOG).read_text().split().count("a-while") < 3:
                raise RuntimeError("cannot write") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/cache")
            return trained(model)

        @method(learning_rate=1e-3)
        def faulty_by_killing(model):
            log(LOG, model, "killing")
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    seen: list[Event] = []
    grid = GRID | {"methods": ["faulty-for-a-while", "faulty-by-killing", "none"]}
    with pytest.raises(
        StoppedError, match=r"1 runs could not be done .*SIGKILL \(out of memory\?\).*repeat the command"
    ) as e:
        peftbench.run(grid, tmp_path / "store", plugins=[units], workers=1, watch=seen.append)
    assert "\n" not in str(e.value)
    table = peftbench.table(tmp_path / "store").set_index("method")
    assert dict(table["status"]) == {"faulty-for-a-while": "ok", "none": "ok"}
    assert Counter((tmp_path / "begun").read_text().split()) == {"a-while": 3, "killing": 3}
    assert [e.data["wait"] for e in seen if e.kind == "fault" and "killing" in e.spec.method.name] == [0.05, 0.1, None]
    assert peftbench.plan(grid, tmp_path / "store")["missing"] == 1
    assert_clean(tmp_path / "store")


@pytest.mark.slow
def test_a_full_store_stops_the_grid_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some runs are under way when the store cannot be written any more; what is done stays."""
    monkeypatch.setattr(local, "WAITS", (0.05, 0.05))
    units = plugin(
        tmp_path,
        "unwritable",
        f"""
        @method(learning_rate=1e-3)
        def unwritable(model):
            work = pathlib.Path({str(tmp_path / "store" / ".work")!r})
            os.rename(work, work.with_name("away"))
            work.write_text("in the way")
            return trained(model)
        """,
    )
    with pytest.raises(StoppedError, match="2 runs could not be done"):
        peftbench.run(
            GRID | {"methods": ["none", "unwritable", "bitfit"]}, tmp_path / "store", plugins=[units], workers=1
        )
    assert peftbench.table(tmp_path / "store")["method"].tolist() == ["none"]


def answered(status: int) -> Exception:
    """The Hub's answer with an error."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    response = httpx2.Response(status, request=httpx2.Request("GET", "https://hub"))
    return HfHubHTTPError("an error", response=response)


def caused(problem: Exception, cause: Exception) -> Exception:
    problem.__cause__ = cause
    return problem


@pytest.mark.parametrize(
    ("problem", "of_the_machine"),
    [
        *((OSError(number, os.strerror(number)), True) for number in (errno.ENOSPC, errno.EIO, errno.EROFS)),
        *((OSError(number, os.strerror(number)), True) for number in (errno.EDQUOT, errno.ENFILE, errno.EMFILE)),
        *((OSError(number, os.strerror(number)), True) for number in (errno.EHOSTUNREACH, errno.ECONNREFUSED)),
        *((OSError(number, os.strerror(number)), False) for number in (errno.ENOENT, errno.EACCES, errno.EISDIR)),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("the loss is not what it was"), False),
        (TimeoutError("timed out"), True),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), True),
        (answered(503), True),
        (answered(429), True),
        (answered(404), False),
        (answered(401), False),
        (caused(UserError("data set x: cannot be had"), answered(500)), True),
        (caused(UserError("data set x: cannot be had"), answered(403)), False),
        (caused(OSError("We couldn't connect to the Hub"), TimeoutError()), True),
        (KeyError("a name"), False),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_a_fault_of_the_machine(
    problem: Exception, of_the_machine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert (environment_fault(problem) is not None) is of_the_machine
    # Who has said that there is no network has lost none.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    disk = isinstance(problem, OSError) and problem.errno in DISK
    assert (environment_fault(problem) is not None) is (disk or "No space" in str(problem))


# Several launchers


COUNTED = """
@method(learning_rate=1e-3)
def {name}(model):
    import torch
    log({log!r}, model, torch.initial_seed())
    return trained(model)
"""


def test_launchers_share_a_grid(tmp_path: Path) -> None:
    """Two at once: every run is begun once, and each of them has the whole table."""
    units, log = plugin(tmp_path, "shared_grid", COUNTED.format(name="shared", log=str(tmp_path / "log"))), []
    grid = GRID | {"methods": ["shared"], "seeds": list(range(8))}
    load_plugin(units)
    told: dict[int, list[str]] = {number: [] for number in range(2)}

    def go(number: int) -> None:
        table = peftbench.run(
            grid, tmp_path / "store", plugins=[units], workers=1, watch=lambda e: told[number].append(e.kind)
        )
        log.append(table["status"].tolist())

    threads = [threading.Thread(target=go, args=(number,)) for number in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log == [["ok"] * 8] * 2
    begun = (tmp_path / "log").read_text().split()
    assert len(begun) == len(set(begun)) == 8
    assert sum(kinds.count("done") for kinds in told.values()) == 8
    assert [kinds.count("done") + kinds.count("elsewhere") for kinds in told.values()] == [8] * 2
    beside = {json.loads(path.read_text())["settings"]["workers"] for path in result_files(tmp_path / "store")}
    assert beside <= {1, 2}
    assert_clean(tmp_path / "store")


@pytest.fixture
def owner() -> Owner:
    return myself()


def another(**changes: Any) -> Owner:
    """A living process of another machine."""
    return Owner(**(vars(myself()) | {"boot": "another", "pid": 1} | changes))


def test_a_claim_is_had_by_one_until_it_is_dropped(tmp_path: Path, owner: Owner) -> None:
    first, second = Claims(tmp_path, owner), Claims(tmp_path, myself())
    assert [first.take("a"), second.take("a"), second.take("b"), first.take("b")] == [True, False, True, False]
    second.drop("a")
    assert not second.take("a"), "a claim is dropped by its owner alone"
    first.drop("a")
    assert second.take("a")


def test_a_dead_process_has_no_claim(tmp_path: Path, owner: Owner) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "from peftbench.results.run_claims import *; import sys; from pathlib import Path;"
         "print(Claims(Path(sys.argv[1]), myself()).take('a'))", str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert gone.stdout.strip() == "True"
    assert Claims(tmp_path, owner).take("a")
    # What it left is removed, and what the living have claimed is kept.
    dead = Owner(**(vars(myself()) | {"started": "1"}))
    assert Claims(tmp_path, dead).take("c")
    (tmp_path / ".claims" / ".new.cut-off").write_text(json.dumps(vars(dead)))
    Claims(tmp_path, owner).clean()
    assert [path.name for path in (tmp_path / ".claims").glob("*")] == ["a"]
    # A number that was given to another process since is not the same process.
    reused = Owner(**(vars(myself()) | {"started": "1"}))
    assert Claims(tmp_path, reused).take("b")
    assert Claims(tmp_path, owner).take("b")


def test_a_claim_of_another_machine_lasts_as_long_as_it_is_renewed(tmp_path: Path, owner: Owner) -> None:
    far, near = Claims(tmp_path, another()), Claims(tmp_path, owner, lease=0.3)
    assert far.take("a")
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        assert far.renew("a")
        assert not near.take("a")
        time.sleep(0.05)
    # Time stamps do not matter, as clocks differ: only that nothing changes.
    os.utime(tmp_path / ".claims" / "a", (1e9, 1e9))
    assert not near.take("a")
    time.sleep(0.35)
    assert near.take("a")
    assert not far.renew("a")
    far.drop("a")
    assert (tmp_path / ".claims" / "a").exists()


def test_of_many_watchers_one_takes_a_dead_claim(tmp_path: Path) -> None:
    dead = Owner(**(vars(myself()) | {"started": "1"}))
    ids = [str(number) for number in range(40)]
    assert all(Claims(tmp_path, dead).take(id_) for id_ in ids)
    taken: list[str] = []

    def watch(seed: int) -> None:
        claims = Claims(tmp_path, myself())
        taken.extend(id_ for id_ in random.Random(seed).sample(ids, len(ids)) if claims.take(id_))

    threads = [threading.Thread(target=watch, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_claims_without_hard_links(tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first, second = Claims(tmp_path, owner), Claims(tmp_path, myself())
    assert [first.take("a"), second.take("a"), first.renew("a")] == [True, False, True]
    first.drop("a")
    assert second.take("a")


# Time limits


class Told(Forecasts):
    """A forecast that is there at once."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__(None)
        self.told = seconds

    def seconds(self, _spec: Any) -> tuple[bool, float | None]:
        return True, self.told


@pytest.mark.parametrize(("forecast", "limit"), [(1.0, LEAST), (100.0, 1000.0), (None, UNKNOWN)])
def test_the_default_limit_is_ten_forecasts(forecast: float | None, limit: float) -> None:
    (spec,) = peftbench.plan(GRID, "/nowhere")["specs"]
    made = TimeLimit(spec, 0.0, None, Told(forecast))
    times = [t for t in (1.0, LEAST - 1, limit - 1, limit + 1) if t > 0]
    stopped = [made.passed(t, used=t) is not None for t in times]
    assert stopped == [False] * (len(times) - 1) + [True]


def test_what_stands_still_is_stopped() -> None:
    (spec,) = peftbench.plan(GRID, "/nowhere")["specs"]
    hung = TimeLimit(spec, 0.0, None, Told(None))
    # Start and loading take processor time; then there is none, but for what an idle process uses.
    times = range(0, 1400, 10)
    stopped = [t for t in times if hung.passed(t, used=min(t, 300) + t * 1e-4)]
    assert stopped[0] == 910
    busy, waiting = TimeLimit(spec, 0.0, None, Told(None)), TimeLimit(spec, 0.0, None, Told(None))
    for t in times:
        waiting.progress(t)
        assert busy.passed(t, used=t * 0.01) is waiting.passed(t, used=0.0) is None
    assert TimeLimit(spec, 0.0, 5.0, Told(None)).passed(6.0, used=6.0) == "its time limit of 5 s"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1.5min", 90)])
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    from peftbench.core.number_parsing import seconds as read

    assert read(text) == seconds
    with pytest.raises(UserError, match="--timeout soon: give a number and one of the units"):
        read("soon")


# How many workers


def control_group(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files: dict[str, str]) -> None:
    (folder / "cgroup").write_text(lines)
    monkeypatch.setattr(machine_resources, "CONTROL_GROUP", folder / "cgroup")
    monkeypatch.setattr(machine_resources, "CONTROL_GROUPS", folder / "fs")
    for name, text in files.items():
        (folder / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fs" / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("lines", "files", "cpus", "memory"),
    [
        ("0::/job/step", {"job/cpu.max": "300000 100000", "job/step/cpu.max": "max 100000"}, 3, None),
        ("0::/job", {"job/cpu.max": "50000 100000", "job/memory.max": "4000000000"}, 1, 4_000_000_000),
        ("0::/of/the/host", {"cpu.max": "200000 100000", "memory.max": "max"}, 2, None),
        (
            "4:memory:/a\n3:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000",
             "memory/a/memory.limit_in_bytes": "3000000000"},
            2, 3_000_000_000,
        ),
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 6, None),
    ],
)  # fmt: skip
def test_what_a_process_may_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: str,
    files: dict[str, str],
    cpus: int,
    memory: int | None,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(6)))
    monkeypatch.setattr(machine_resources, "memory_bytes", lambda: 64_000_000_000)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    control_group(tmp_path, monkeypatch, lines, files)
    assert (machine_resources.usable_cpus(), machine_resources.usable_memory()) == (cpus, memory or 64_000_000_000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert default_workers() == min(cpus, (memory or 64_000_000_000) // 1_500_000_000)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert default_workers() == 1


def test_workers_fit_into_memory_with_their_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control_group(tmp_path, monkeypatch, "0::/", {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(machine_resources, "memory_bytes", lambda: 8_000_000_000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    specs = peftbench.plan(GRID, "/nowhere")["specs"]
    assert default_workers() == 5
    assert default_workers(specs) == 5
    monkeypatch.setattr("peftbench.launch.capacity.weight_bytes", lambda _folder: 1_000_000_000)
    assert default_workers(specs) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert default_workers(specs) == 3


def test_torchrun_is_refused_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^WORLD_SIZE is 2: .* without torchrun") as caught:
        peftbench.run(GRID, tmp_path / "store")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert peftbench.run(GRID, tmp_path / "store", workers=1)["status"].tolist() == ["ok"]
    (path,) = result_files(tmp_path / "store")
    assert json.loads(path.read_text())["settings"]["workers"] == 1


# From Python


@pytest.mark.slow
def test_a_script_without_a_guard_with_a_method_of_its_own(tmp_path: Path) -> None:
    """Real worker processes, from another folder, beside a file that has the name of a module."""
    (tmp_path / "torch.py").write_text("raise ImportError('the file beside the script')")
    (tmp_path / "helper.py").write_text("import peftbench.methods\nSTEP = 1\n")
    script = tmp_path / "scripts" / "mine.py"
    script.parent.mkdir()
    script.write_text(SCRIPT.format(store=str(tmp_path / "store")))
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"mine": "ok"}
    (path,) = result_files(tmp_path / "store")
    version = json.loads(path.read_text())["spec"]["method"]["version"]
    assert re.fullmatch(r"1-[0-9a-f]{12}", version), "a digest of its code is part of which run it is"


OWN = """
from peftbench.methods import Adapted, method
WORD, unused = "norm", 1
@method(learning_rate=1e-3)
def of_a_script(model, *, rank: int = 2):
    return [chosen(name) for name in {"norm", "bias"}]
def chosen(name):
    return WORD in name
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("", "", True),
        ('unused = "norm", 1', 'unused = "norm", 2', True),
        ("def chosen", "# A comment\n\n\ndef chosen", True),
        ('"bias"', '"bass"', False),
        ("WORD in name", "WORD not in name", False),
        ('WORD, unused = "norm"', 'WORD, unused = "bias"', False),
        ("learning_rate=1e-3", "learning_rate=2e-3", False),
        ("rank: int = 2", "rank: int = 4", False),
    ],
)
def test_a_changed_unit_of_a_script_is_another_version(
    old: str, new: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(METHODS)
    monkeypatch.setattr(METHODS, "_units", dict(METHODS._units))
    versions = []
    for code in (OWN, OWN.replace(old, new)):
        exec(compile(code, "<a cell>", "exec"), {"__name__": "__main__"})
        versions.append(METHODS["of-a-script"].facts.version)
        (tmp_path / "script.py").write_text(
            code + "from peftbench.methods import METHODS\nprint(METHODS['of-a-script'].facts.version)"
        )
    assert (versions[0] == versions[1]) is same
    # Another process, with other hashes, takes it for the same.
    if not new:
        other = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == versions[1]


SCRIPT = """
from __future__ import annotations
from typing import Any
import peftbench
from peftbench.methods import Adapted, method

WORD = "norm"

def chosen(name: str) -> bool:
    return WORD in name

@method(learning_rate=1e-3)
def mine(model: Any, *, all_of: bool = False) -> Adapted:
    "Trains norms."
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(all_of or chosen(name))
    return Adapted(model, model)

GRID = {{
    "methods": ["mine"], "tasks": ["pocket_topic"], "sizes": [8],
    "train": {{"max_steps": 1, "validation_rows": 4, "max_length": 96}}, "eval": {{"test_rows": 4}},
}}
print(peftbench.run(GRID, {store!r}, workers=1).set_index("method")["status"].to_json())
"""
