"""What the README, and the pages that it leads to, show works as it stands there."""

import re
from pathlib import Path

import pytest

import peftbench
from peftbench.core.registry import load_plugin
from peftbench.grid.expand import expand

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GRID_FILES = (ROOT / "docs" / "grid-files.md").read_text()
DATASETS = (ROOT / "docs" / "datasets.md").read_text()


def block(language: str, starts: str, page: str = README) -> str:
    found = [code for kind, code in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL) if kind == language]
    (chosen,) = [code for code in found if code.startswith(starts)]
    return str(chosen)


def test_the_first_grid() -> None:
    import tomllib

    text = block("toml", "# mine.toml")
    assert len(text.splitlines()) <= 11
    specs = expand(tomllib.loads(text))
    assert {str(spec.method) for spec in specs} == {"none", "full", "lora(rank=4)", "lora"}
    assert len(specs) == 4 * 2 * 3


def test_the_grid() -> None:
    import tomllib

    specs = expand(tomllib.loads(block("toml", "# mine.toml", GRID_FILES)))
    methods = {str(spec.method) for spec in specs}
    assert methods == {"none", "full", "lora", "lora(rank=4)", "lora(modules=q+v)"}
    assert not any(spec.method.name == "full" and spec.size == 1000 for spec in specs)
    tasks = {spec.task.name for spec in specs}
    assert len(specs) == (5 + 4) * 3 * len(tasks)
    assert "sst2" in tasks


def test_where_to_adapt() -> None:
    import tomllib

    specs = expand(tomllib.loads(block("toml", "# where.toml", GRID_FILES)))
    assert len({spec.method.model_dump_json() for spec in specs}) == 5 + 1 + 1 + 2


def test_your_own_data(tmp_path: Path) -> None:
    grid = tmp_path / "reviews.toml"
    grid.write_text(block("toml", "# reviews.toml", DATASETS))
    rows = "".join(f"Day {i},It was so {i}.,{'good' if i % 2 else 'bad'}\n" for i in range(30))
    (tmp_path / "reviews.csv").write_text("title,text,verdict\n" + rows)
    specs = expand(grid)
    assert [str(spec.method) for spec in specs] == ["none", "lora(rank=4)", "lora", "ia3"]
    assert {str(spec.task) for spec in specs} == {"reviews"}
    numbers = rows.replace("good", "1").replace("bad", "0")
    (tmp_path / "reviews.csv").write_text("title,text,verdict\n" + numbers)
    from peftbench.tasks import resolve
    from peftbench.tasks._splits import RowLimits, split

    (spec, *_) = expand(grid)
    task = resolve(spec.task.name, spec.task.arguments)
    found = split(task, spec.task.arguments, "all", 0, RowLimits(), root=None)
    assert len(found.test) == 6
    assert {e.target for e in found.train} == {"bad", "good"}


def test_the_method(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(block("python", "# mine.py"))
    load_plugin(plugin)
    grid = {
        "models": [str(tiny_models["llama"])],
        "methods": [{"use": "last-layer", "layers": 2}],
        "tasks": ["pocket_sentiment"],
        "sizes": [8],
        "train": {"max_steps": 2, "validation_rows": 4},
        "eval": {"test_rows": 4},
    }
    (spec,) = expand(grid)
    from peftbench.single_run import Worker, run

    result, _ = run(spec, Worker(), tmp_path, lambda _event: None)
    assert result.status == "ok", result.error
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64
    assert result.costs.trainable_parameters == 2 * layer
    assert result.base_reloaded


def test_the_score() -> None:
    call = re.search(r"peftbench\.pscp\(([^,]+), (\{.*?\})\)", README)
    assert call
    costs = {name: float(number) for name, number in re.findall(r'"(\w+)": ([\d_.]+)', call[2])}
    assert peftbench.pscp(float(call[1]), costs) == pytest.approx(60.08, abs=0.01)


PAGES = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    heads = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_linked_file_and_heading_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        there = ROOT / page.parent / path if path else ROOT / page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_named_source_file_is_there(page: Path) -> None:
    """`package/file.py` in backticks, by its place in the package or in the repository; the changelog has old names."""
    if page.name == "CHANGELOG.md":
        return
    for name in re.findall(r"`((?:[\w-]+/)+[\w-]+\.py)`", (ROOT / page).read_text()):
        if Path(name).stem != "NAME":
            assert (ROOT / name).exists() or (ROOT / "src" / "peftbench" / name).exists(), name
