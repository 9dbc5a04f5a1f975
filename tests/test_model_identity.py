"""Which model a run is of: the full name and the commit on the Hub, against a stand-in on this machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import SHARED
from made_store import result, store
from peftbench.core.spec import Choice, RunSpec
from peftbench.grid.expand import expand
from peftbench.results.store import Store
from test_cli import assert_one_line, call

TOOLS = SHARED / "tools"
NAMES = ("org-a/tiny", "org-b/tiny", "evil-org/pocket")
GRID = {"methods": ["none"], "tasks": ["pocket_sentiment"], "sizes": [8], "eval": {"test_rows": 4}}
ASK = """
import json, sys
from peftbench.grid.expand import expand
from peftbench.core.registry import UserError
for grid in map(json.loads, sys.stdin):
    try:
        print(json.dumps([spec.model_dump(mode="json") for spec in expand(grid)]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


@dataclass
class Place:
    """A stand-in for the Hub and a folder with what it serves, and with a cache of its client."""

    hub: Any
    root: Path

    def environment(self, **more: str) -> dict[str, str]:
        own = {"HF_HOME": str(self.root / "home"), "PEFTBENCH_CACHE": str(self.root / "cache"), "HF_HUB_OFFLINE": "0"}
        return {k: v for k, v in os.environ.items() if k != "HF_TOKEN"} | own | {"HF_ENDPOINT": self.hub.url} | more

    def expand(self, *models: Any, **environment: str) -> list[Any]:
        """The specs of a grid of each of these models, in one process; or what is wrong with it."""
        grids = "".join(json.dumps(GRID | {"models": one if isinstance(one, list) else [one]}) + "\n" for one in models)
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            input=grids,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [
            found if isinstance(found, str) else [RunSpec.model_validate(one) for one in found]
            for found in map(json.loads, done.stdout.splitlines())
        ]

    def run(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "peftbench", *map(str, arguments)]
        env = self.environment(**environment)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)

    def change(self, name: str) -> None:
        """A new commit upstream."""
        readme = self.root / "hub" / name / "README.md"
        readme.write_text(f"{readme.read_text() if readme.exists() else ''}changed\n")


@pytest.fixture
def place(tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.syspath_prepend(str(TOOLS))
    hub = pytest.importorskip("hub_standin", reason="no stand-in for the Hub")
    for name in NAMES:
        shutil.copytree(tiny_models["llama"], tmp_path / "hub" / name)
    shutil.copytree(tiny_models["llama"], tmp_path / "hub" / "org-a" / "tiny@v1")
    with hub.Hub(models=tmp_path / "hub") as serving:
        yield Place(serving, tmp_path)


def test_the_commit_is_part_of_what_is_asked(place: Place) -> None:
    place.change("org-a/tiny")
    main, pinned, again, unknown, lost = place.expand(
        "org-a/tiny", "org-a/tiny@v1", "org-a/tiny@main", "org-a/tiny@v2", "org-c/tiny"
    )
    assert main[0].model.name == pinned[0].model.name == "org-a/tiny"
    assert all(len(str(spec.model.version)) == 40 for spec in (main[0], pinned[0]))
    assert main[0].model.version != pinned[0].model.version
    assert main[0].id != pinned[0].id
    assert main[0].id == again[0].id, "a branch is the commit that it means"
    assert "revision 'v2'" in unknown
    assert "org-c/tiny" in lost
    assert "\n" not in unknown + lost
    commit = str(main[0].model.version)
    place.change("org-a/tiny")
    changed, kept, both = place.expand("org-a/tiny", f"org-a/tiny@{commit}", ["org-a/tiny", f"org-a/tiny@{commit}"])
    assert changed[0].id != main[0].id, "a changed upstream is another run"
    assert kept[0].id == main[0].id
    assert len({spec.id for spec in both}) == 2
    # Without a network the cache says what was last meant; without that nothing is known, and a commit is what it is.
    nowhere = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place.root / "empty")}
    (last,) = place.expand("org-a/tiny", HF_HUB_OFFLINE="1")
    assert last[0].id == changed[0].id
    offline, commit_alone = place.expand("org-a/tiny", f"org-a/tiny@{commit}", **nowhere)
    assert offline[0].model.version == 1
    assert commit_alone[0].id == main[0].id
    (away,) = place.expand("org-a/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert away[0].id == changed[0].id, "a Hub that cannot be reached is as no network"


@pytest.mark.slow
def test_a_model_of_the_hub_is_run_at_its_commit(place: Place) -> None:
    (place.root / "g.toml").write_text(
        'methods = ["none"]\ntasks = ["pocket_sentiment"]\nsizes = [8]\n[eval]\ntest_rows = 4\n'
    )
    grid, options = place.root / "g.toml", ("--workers", "1", "--store", place.root / "r")
    models = [word for name in NAMES for word in ("--model", name)]
    done = place.run("run", grid, *models, *options)
    assert done.returncode == 0, done.stderr
    assert all(f"{name}, 8 training rows" in done.stdout for name in NAMES)
    held = {one.spec.model.name: one for one, _ in Store(place.root / "r").results().values()}
    assert {one.base["commit"] for one in held.values()} == {one.spec.model.version for one in held.values()}
    # Without a network the cache says which commit it is: nothing is run again.
    again = place.run("run", grid, *models, *options, HF_HUB_OFFLINE="1")
    assert "3 done before" in again.stderr
    place.change("org-a/tiny")
    assert "2 done before" in place.run("run", grid, *models, *options).stderr
    pinned = ("--model", f"org-a/tiny@{held['org-a/tiny'].spec.model.version}")
    assert "1 done before" in place.run("run", grid, *pinned, *options).stderr
    report = place.run("report", "--store", place.root / "r", "--json")
    assert sorted(board["model"].partition(" [")[0] for board in json.loads(report.stdout)["leaderboards"]) == sorted(
        [*NAMES, "org-a/tiny"]
    )


@pytest.mark.slow
def test_no_two_models_have_one_name_on_a_board(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    """Of one last name, on the Hub and in folders; and at two commits."""
    models = [
        Choice(name="pocket"),
        Choice(name="evil-org/pocket", version="a" * 40),
        Choice(name="org/pocket", version="b" * 40),
        Choice(name="org/pocket", version="c" * 40),
        Choice(name=str(tmp_path / "x" / "llama"), version="0a"),
        Choice(name=str(tmp_path / "y" / "llama"), version="0b"),
        Choice(name=str(tmp_path / "z" / "llama"), version="0a"),
    ]
    store(tmp_path / "r", *[result(method, model=model) for model in models for method in ("none", "lora")])
    boards = call("report", "--store", tmp_path / "r", "--json").json["leaderboards"]
    names = {
        *("pocket", "evil-org/pocket", f"org/pocket [{'b' * 12}]", f"org/pocket [{'c' * 12}]"),
        *("llama [x/llama]", "llama [y/llama]", "llama [z/llama]"),
    }
    assert {board["model"] for board in boards} == names
    assert all(row["mean"] for board in boards for row in board["rows"]), "no mean is lost"
    # A folder that is called as a model of ours is never shown as that.
    shutil.copytree(tiny_models["llama"], tmp_path / "mine" / "pocket")
    specs = expand(GRID | {"models": ["pocket", str(tmp_path / "mine" / "pocket"), "evil-org/pocket"]})
    assert [spec.model_name for spec in specs] == ["pocket", "mine/pocket", "evil-org/pocket"]


@pytest.mark.parametrize(("base", "fits"), [("evil-org/pocket", False), ("pocket", True), ("org/POCKET", False)])
def test_an_adapter_of_another_organisation_is_refused(base: str, fits: bool, tmp_path: Path) -> None:
    from peftbench.core.registry import UserError
    from peftbench.methods._saved_files import check_base, examine
    from peftbench.models import find

    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    if fits:
        check_base(examine(tmp_path), find("pocket"))
    else:
        with pytest.raises(UserError, match=f"made for {base}"):
            check_base(examine(tmp_path), find("pocket"))


def test_a_bundled_model_has_no_revisions(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text('models = ["pocket@main"]\nmethods = ["none"]\ntasks = ["pocket_topic"]\n')
    assert_one_line(call("plan", tmp_path / "g.toml", "--no-costs"), "model pocket@main: pocket is no model of the Hub")
