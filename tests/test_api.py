"""The Python API: every example of its page runs as a plain script, and importing it takes little."""

import inspect
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import peftbench
from peftbench.results.store import Store

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
QUICK = [
    example for example in EXAMPLES if ".run(" not in example and ".gate(" not in example and ".advise(" not in example
]


def script(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    command = [sys.executable, "script.py"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=400, env=os.environ | environment
    )


def test_it_is_all_there() -> None:
    assert set(peftbench.__all__) <= set(dir(peftbench))
    for name in peftbench.__all__:
        assert inspect.getdoc(getattr(peftbench, name)), name
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        peftbench.runs  # noqa: B018


def test_importing_it_is_light(tmp_path: Path) -> None:
    done = script(
        "import sys, peftbench\nprint([m for m in ('torch', 'transformers', 'pandas', 'rich') if m in sys.modules])",
        tmp_path,
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(QUICK)))
def test_quick_examples(number: int, tmp_path: Path) -> None:
    done = script(QUICK[number], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_first_example_and_what_it_leaves(tmp_path: Path) -> None:
    """Real worker processes; then the same store by the other functions, in this process."""
    done = script(EXAMPLES[0], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ok ") == 4
    results = peftbench.load_results(tmp_path / "store")
    assert len(results.runs) == 4
    (board,) = results.leaderboard()
    assert {row.method for row in board.rows} == {"none", "lora(learning_rate=0.005)"} or len(board.rows) == 2
    assert [path.name for path in results.report(tmp_path / "out")] == [
        "leaderboard.md",
        "leaderboard.csv",
        "index.html",
    ]
    with pytest.raises(peftbench.UserError, match="unknown study 'stabilty'"):
        results.study("stabilty")
    grid = {"methods": ["none"], "tasks": ["pocket_topic"], "sizes": [16], "seeds": [0, 1]}
    more = {"train": {"max_steps": 4, "validation_rows": 4}, "eval": {"test_rows": 8}}
    assert peftbench.plan(grid | more, tmp_path / "store")["done"] == 2
    assert peftbench.plan(grid | more, tmp_path / "store", methods=["none", "bitfit"])["missing"] == 2
    with pytest.raises(peftbench.UserError, match="unknown launcher 'slurm': known: local"):
        peftbench.run(grid | more, tmp_path / "store", launcher="slurm")


def test_a_plan_with_costs(tmp_path: Path) -> None:
    grid = {"methods": ["none", "bitfit"], "tasks": ["pocket_topic"], "sizes": [16], "seeds": [0, 1]}
    plan = peftbench.plan(grid, tmp_path / "store", costs=True, workers=1)
    assert plan.done_ids == set()
    assert plan.forecast is not None
    assert [(cell.method, cell.seeds) for cell in plan.forecast.cells] == [("none", 2), ("bitfit", 2)]
    assert [(each.methods, each.seeds) for each in plan.resolutions] == [(2, 2)]
    assert peftbench.plan(grid, tmp_path / "store").forecast is None


def test_advice_from_published_figures_in_place_of_runs_warns(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has no scores; using published figures instead"):
        (answer,) = peftbench.advise("pocket", task="sst2", store=tmp_path, top=1)
    assert answer.advice.published


def test_damaged_results_warn(tmp_path: Path) -> None:
    grid = {"methods": ["none"], "tasks": ["pocket_topic"], "sizes": [16]}
    (spec,) = peftbench.plan(grid, tmp_path)["specs"]
    path = Store(tmp_path).folder(spec) / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.warns(UserWarning, match=f"{path}: .* Its content counts as missing"):
        assert peftbench.plan(grid, tmp_path)["missing"] == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(peftbench.UserError, match="no such folder"):
        peftbench.load_results(tmp_path / "nothing")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_by_the_wheel(number: int, wheel: Path, tmp_path: Path) -> None:
    done = script(EXAMPLES[number], tmp_path, PYTHONPATH=str(wheel))
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as the wheel has it, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"the wheel cannot be built here: {made.stderr.strip()[-200:]}")
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "package")
        assert not [name for name in archive.namelist() if "pretraining/" in name]
    return folder / "package"
