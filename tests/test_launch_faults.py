"""Launching, for what takes long: real processes, signals, full disks, failing calls of the system, many kills."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import peftbench
from conftest import SHARED
from peftbench.profiling.devices import remember_speed
from test_launch import COUNTED, GRID, HEAD, assert_clean, plugin, result_files

pytestmark = pytest.mark.slow
FAULTS = SHARED / "cases" / "faults"
TIMES = [
    *"train_seconds validation_seconds eval_seconds load_seconds tokenize_seconds tokens_per_second workers".split(),
]


def grid_file(folder: Path, methods: str, seeds: int = 1) -> Path:
    path = folder / "grid.toml"
    path.write_text(
        f'methods = {methods}\ntasks = ["pocket_topic"]\nsizes = [8]\nseeds = {list(range(seeds))}\n'
        "[train]\nmax_steps = 1\nvalidation_rows = 4\nmax_length = 96\n[eval]\ntest_rows = 4\n"
    )
    return path


def command(grid: Path, store: Path, *more: str | Path) -> list[str]:
    return [sys.executable, "-m", "peftbench", "run", str(grid), "--store", str(store), *map(str, more)]


def started(given: list[str], **environment: str) -> "subprocess.Popen[str]":
    # A shell lets what it starts with `&` ignore Ctrl-C, and `nohup` a hang-up; children inherit that, these tests too.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = subprocess.Popen(
        given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    )
    for number, handler in before.items():
        signal.signal(number, handler)
    return process


def workers_of(launcher: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and b"peftbench.launch.worker" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_for(what: Any, seconds: float = 240) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that in time")


# Methods


@pytest.mark.skipif(not (FAULTS / "bad_methods.py").is_file(), reason="needs shared/cases")
def test_every_bad_method_is_one_row_and_the_grid_goes_on(tmp_path: Path) -> None:
    expected = {
        "os-exit": ("failed", "died with exit code 0, 2 times"),
        "sys-exit": ("failed", "SystemExit: 0"),
        "keyboard": ("failed", "KeyboardInterrupt"),
        "base-exc": ("failed", "BaseException: x"),
        "segfault": ("failed", "died with signal SIGSEGV, 2 times"),
        "alloc": ("out-of-memory", "MemoryError"),
        "closes-fds": ("failed", "died with exit code 1, 2 times"),
        "chdirs": ("ok", ""),
        "stdout-flood": ("ok", ""),
        "hang": ("timeout", "its time limit of 10 s"),
        "hang-deaf": ("timeout", "its time limit of 10 s"),
        "bitfit": ("ok", ""),
    }
    # What `alloc` takes is bounded, as the machine's memory is others' too.
    (tmp_path / "bound.py").write_text(
        "import pathlib, resource, sys\n"
        "if 'torch' in sys.modules:\n"
        "    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])\n"
        "    resource.setrlimit(resource.RLIMIT_AS, 2 * (pages * resource.getpagesize() + (1 << 30),))\n"
    )
    plugins = ("--plugin", FAULTS / "bad_methods.py", "--plugin", tmp_path / "bound.py")
    for methods, limit in (([name for name in expected if "hang" not in name], "20m"), (list(expected), "10s")):
        given = command(grid_file(tmp_path, json.dumps(methods)), Path("store"), *plugins, "--timeout", limit, "--json")
        done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, timeout=1500, check=False)
        assert "\x1b" not in done.stderr
    table = peftbench.table(tmp_path / "store").set_index("method")
    assert dict(table["status"]) == {name: status for name, (status, _) in expected.items()}, done.stderr
    for name, (_, why) in expected.items():
        assert why in str(table.loc[name, "error"])
    assert len(json.loads(done.stdout)["runs"]) == len(expected), "what methods print stays out of the output"
    assert_clean(tmp_path / "store")


# Signals and deaths


HANGING = """
@method(learning_rate=1e-3)
def {name}(model):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path({begun!r}).write_text(str(os.getpid()))
    {how}
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=str
)
def test_a_signal_stops_a_grid_cleanly(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """Also one whose method ignores it; what another launcher is doing is left alone."""
    text = HANGING.format(name="stopped_while_hanging", begun=str(tmp_path / "begun"), how="time.sleep(3600)")
    units = plugin(tmp_path, "hanging", text)
    grid, store = grid_file(tmp_path, '["none", "stopped-while-hanging"]'), tmp_path / "store"
    process = started(command(grid, store, "--plugin", units, "--workers", "1"))
    wait_for((tmp_path / "begun").exists)
    others = store / ".work" / "of-another"
    others.mkdir()
    before = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - before < 30
    assert process.returncode == code, said
    assert "repeat the command" in said.replace("\n", " ")
    assert not alive(int((tmp_path / "begun").read_text()))
    assert [path.name for path in (store / ".work").iterdir()] == ["of-another"]
    assert not list((store / ".claims").iterdir())
    assert peftbench.table(store)["method"].tolist() == ["none"]


@pytest.mark.parametrize(
    "how",
    [
        "time.sleep(3600)",
        "os.closerange(3, 256); time.sleep(3600)",
        "ctypes.CDLL(None); ctypes.PyDLL(None).sleep(3600)",
    ],
    ids=["deaf", "without its pipe", "in a native call that holds the interpreter"],
)
def test_workers_die_with_their_launcher(how: str, tmp_path: Path) -> None:
    units = plugin(tmp_path, "orphan", HANGING.format(name="orphan", begun=str(tmp_path / "begun"), how=how))
    process = started(
        command(grid_file(tmp_path, '["orphan"]'), tmp_path / "store", "--plugin", units, "--workers", "1")
    )
    wait_for(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text())
    (worker,) = workers_of(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: not alive(worker), 5)
    assert result_files(tmp_path / "store") == []


def test_a_second_launcher_takes_over_what_a_dead_one_was_doing(tmp_path: Path) -> None:
    """And its end does not touch what the first has finished."""
    grid, store = grid_file(tmp_path, '["bitfit", "ia3", "lntuning"]', 2), tmp_path / "store"
    first = started(command(grid, store, "--workers", "1"))
    wait_for(lambda: result_files(store))
    first.kill()
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in result_files(store)}
    subprocess.run(command(grid, store, "--workers", "1"), check=True, capture_output=True, timeout=300)
    assert len(result_files(store)) == 6
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert_clean(store)


# Disks


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that lets one call of the system fail."""
    compiler, source = shutil.which("cc"), FAULTS / "shim.c"
    if compiler is None or not source.is_file():
        pytest.skip("needs a C compiler and shared/cases")
    made = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True)
    return made


@pytest.mark.parametrize(
    ("call", "number", "at"),
    [
        ("write", errno.ENOSPC, 2),
        ("fsync", errno.EIO, 3),
        ("rename", errno.EROFS, 1),
    ],
    ids=lambda value: errno.errorcode.get(value, "") if isinstance(value, int) else value,
)
def test_a_call_that_fails_once_costs_a_wait(shim: Path, call: str, number: int, at: int, tmp_path: Path) -> None:
    grid, store = grid_file(tmp_path, '["none", "bitfit"]'), tmp_path / "store"
    fault = {
        "LD_PRELOAD": str(shim), "F_OP": call, "F_SUB": str(store / ".work"), "F_ERR": str(number), "F_AT": str(at),
        "F_MANY": "1", "F_ONCE": str(tmp_path / "happened"),
    }  # fmt: skip
    process = started(command(grid, store, "--workers", "1"), **fault)
    _, said = process.communicate(timeout=300)
    assert (tmp_path / "happened").exists(), said
    assert process.returncode == 0, said
    assert "fault of this machine" in said
    assert sorted(peftbench.table(store)["status"]) == ["ok", "ok"]
    assert_clean(store)


def test_a_call_that_always_fails_stops_the_grid(shim: Path, tmp_path: Path) -> None:
    grid, store = grid_file(tmp_path, '["none", "bitfit", "ia3"]'), tmp_path / "store"
    fault = {"LD_PRELOAD": str(shim), "F_OP": "fsync", "F_SUB": str(store), "F_ERR": str(errno.EIO)}
    process = started(command(grid, store, "--workers", "2"), **fault)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: 3 runs could not be done because of faults")
    assert result_files(store) == []
    subprocess.run(command(grid, store, "--workers", "2"), check=True, capture_output=True, timeout=300)
    assert sorted(peftbench.table(store)["status"]) == ["ok"] * 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_waited_for(small_disk: Path, tmp_path: Path) -> None:
    """It fills up while the grid runs, and is free again in time: nothing is recorded as the method's failure."""
    full = small_disk / "full"
    text = f"""
@method(learning_rate=1e-3)
def filling(model):
    if not os.path.exists({str(tmp_path / "filled")!r}):
        open({str(tmp_path / "filled")!r}, "w").close()
        with contextlib.suppress(OSError), open({str(full)!r}, "wb", buffering=0) as out:
            while True:
                out.write(bytes(4096))
    return trained(model)
"""
    units = plugin(tmp_path, "filling", "import contextlib\n" + text)
    grid, store = grid_file(tmp_path, '["filling", "bitfit"]'), small_disk / "store"
    process = started(command(grid, store, "--plugin", units, "--workers", "1"))
    assert process.stderr is not None
    said = next(line for line in process.stderr if "fault of this machine" in line)
    assert "No space left on device" in said
    full.unlink()
    _, rest = process.communicate(timeout=300)
    assert process.returncode == 0, rest
    assert sorted(peftbench.table(store)["status"]) == ["ok", "ok"]


# From Python


SNIPPET = f"""
{HEAD}
@method(learning_rate=1e-3)
def from_anywhere(model):
    return trained(model)

from peftbench.metrics import metric
from peftbench.tasks import Example, Source, task

LABELS = ("odd", "even")

def rows(split, count):
    start = dict(train=0, validation=100, test=200)[split]
    return [dict(number=start + i) for i in range(count)]

@metric(rowwise=True)
def own_share(answers):
    return [100.0 if text in given else 0.0 for text, given in zip(answers.predictions, answers.references)]

@task(source=Source("own", validation="validation", generator=rows), kind="classification", labels=LABELS,
      instruction="Is the number odd or even?", metrics=("own_share",), max_new_tokens=4)
def own_numbers(row):
    return Example(dict(number=str(row["number"])), LABELS[row["number"] % 2 == 0])

import peftbench
grid = {GRID!r} | {{"methods": ["from-anywhere"], "tasks": ["own_numbers"]}}
print(peftbench.run(grid, STORE, workers=1)["status"].tolist())
"""


@pytest.mark.parametrize("way", ["standard input", "exec", "IPython"])
def test_from_where_there_is_no_file(way: str, tmp_path: Path) -> None:
    """A method of one's own from standard input, or from code that was executed in `__main__`, as in a notebook."""
    code = SNIPPET.replace("STORE", repr(str(tmp_path / "store")))
    (tmp_path / "cell").write_text(code)
    execute = "import sys; del globals()['__file__']; exec(compile(open('cell').read(), '<cell 1>', 'exec'), globals())"
    given: list[str] = [sys.executable, "-"]
    if way == "exec":
        (tmp_path / "kernel.py").write_text(execute)
        given = [sys.executable, "kernel.py"]
    elif way == "IPython":
        pytest.importorskip("IPython")
        given = [sys.executable, "-m", "IPython", "--no-banner", "-c", code]
    done = subprocess.run(given, input=code, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert "['ok']" in done.stdout, done.stderr


def test_the_snippet_of_the_readme_is_a_script(tmp_path: Path) -> None:
    from test_readme import block

    snippet = block("python", "import peftbench")
    grid_file(tmp_path, '["none"]').rename(tmp_path / "mine.toml")
    (tmp_path / "script.py").write_text(snippet + "\nprint(table['status'].tolist())\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "['ok']" in done.stdout


# Forecasts


def test_a_forecast_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peftbench.launch.time_limits import Forecasts

    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    (spec,) = peftbench.plan(GRID, "/nowhere")["specs"]
    for rates in (None, (1e-11, 1e-5, 1e-9)):
        if rates is not None:
            remember_speed(rates)
        forecasts = Forecasts(None)
        known, seconds = wait_for(lambda made=forecasts: made.seconds(spec) if made.seconds(spec)[0] else None, 600)
        assert known
        assert seconds is None if rates is None else 0 < seconds < 100


# Everything at once


def without_times(store: Path) -> pd.DataFrame:
    return peftbench.table(store).drop(columns=TIMES)


def test_thirty_kills_three_launchers_and_a_full_disk(tmp_path: Path, shim: Path) -> None:
    """A hundred cells end like those of a calm grid, bit for bit; in calm operation nothing is begun twice."""
    calm, torn, log = tmp_path / "calm", tmp_path / "torn", tmp_path / "log"
    units = plugin(tmp_path, "chaos", COUNTED.format(name="chaos", log=str(log)))
    grid = grid_file(tmp_path, '["chaos"]', 100)
    given = ("--plugin", units, "--workers", "1")
    together = [started(command(grid, calm, *given)) for _ in range(3)]
    assert [process.communicate(timeout=900)[0] for process in together] == [None] * 3
    assert {process.returncode for process in together} == {0}
    begun = Counter(log.read_text().split())
    assert set(begun.values()) == {1}
    assert len(begun) == 100

    seed = time.time_ns() % 100_000
    rng, kills = random.Random(seed), 0
    full = {"LD_PRELOAD": str(shim), "F_OP": "fsync", "F_SUB": str(torn), "F_ERR": str(errno.ENOSPC), "F_AT": "12"}
    launchers: list[Any] = []
    until = time.monotonic() + 900
    while kills < 30 and len(result_files(torn)) < 100:
        assert time.monotonic() < until, f"seed {seed}: it takes too long"
        launchers = [process for process in launchers if process.poll() is None]
        while len(launchers) < 3:
            # In the middle, one of them finds the disk full.
            launchers.append(started(command(grid, torn, *given), **(full if kills == 15 else {})))
        time.sleep(rng.uniform(0.5, 4))
        chosen = rng.choice(launchers)
        workers = workers_of(chosen.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice([chosen.pid, *workers]), signal.SIGKILL)
            kills += 1
    for process in launchers:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    kept = {path: path.stat().st_mtime_ns for path in result_files(torn)}
    subprocess.run(
        command(grid, torn, "--plugin", units, "--workers", "2"), check=True, capture_output=True, timeout=900
    )
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, f"seed {seed}: a finished run was done again"
    pd.testing.assert_frame_equal(without_times(calm), without_times(torn), check_exact=True)
    answers = [
        {p.parent.name: (p.parent / "predictions.jsonl.gz").read_bytes() for p in result_files(s)} for s in (calm, torn)
    ]
    assert answers[0] == answers[1]
    assert_clean(torn)

    # Damage to one file in twenty: all of it is found, its runs are done again, and the table is the same once more.
    folders = [path.parent for path in result_files(torn)]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    spoilt = rng.sample([path for path in files if path.stat().st_size], len(files) // 20)
    for path in spoilt:
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content if rng.random() < 0.5 else content[: len(content) // 2])
    hurt = {folder for folder in folders if any(folder in path.parents for path in spoilt)}
    verify = [sys.executable, "-m", "peftbench", "verify", str(torn), "--json"]
    told = json.loads(subprocess.run(verify, check=False, capture_output=True, text=True, timeout=300).stdout)
    assert {Path(folder) for folder in told["run_again"]} == hurt, f"seed {seed}"
    subprocess.run(
        command(grid, torn, "--plugin", units, "--workers", "2"), check=True, capture_output=True, timeout=900
    )
    pd.testing.assert_frame_equal(without_times(calm), without_times(torn), check_exact=True)
    done = subprocess.run(verify, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
