"""What `report` writes, of stores of every kind: with and without failures, of one run, of none, of published rows."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from made_store import CURVE, failed, result, store
from peftbench.core.spec import RunResult
from test_cli import call

METHODS, TASKS = ("none", "lora"), ("sst2", "rte")
GOOD = [result(method, task, seed) for method in METHODS for task in TASKS for seed in (0, 1)]
KINDS: dict[str, list[RunResult]] = {
    "no failures": GOOD,
    "some failures": [*GOOD, failed("full", status="diverged", error="loss is not finite"), failed("full", seed=1)],
    "only failures": [failed(method, seed=seed) for method in METHODS for seed in (0, 1)],
    "one run": GOOD[:1],
    "one run that trained": [result("lora", curve=CURVE)],
    "trials alone": [
        result("lora", seed=1000, trial={"number": n}, train={"learning_rate": 1e-3 * (n + 1)}) for n in range(3)
    ],
}


class Text(HTMLParser):
    """What a page shows: its texts, and the attributes that are shown or sorted by."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.shown: list[str] = []
        self.failures: list[str] = []
        self.listed = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.inside.append(tag)
        self.listed = held.get("class") == "failed"
        self.shown += [held[name] or "" for name in ("title", "aria-label", "data-value", "style") if name in held]

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.inside):
            self.shown.append(data)
        if self.listed:
            self.failures.append(data)
            self.listed = False


def without_stand_ins(text: str) -> bool:
    return re.search(r"\b(nan|NaN|None|NaT|inf|<NA>)\b", text) is None


RARE = ("some failures", "one run that trained", "trials alone")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in RARE else []) for kind in KINDS]
)
def test_no_page_shows_a_number_that_is_none(kind: str, tmp_path: Path) -> None:
    store(tmp_path / "results", *KINDS[kind])
    done = call("report", "--store", tmp_path / "results", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    html = (tmp_path / "out" / "index.html").read_text("utf-8")
    page = Text(html)
    assert [text for text in page.shown if not without_stand_ins(text)] == []
    assert not re.search(r'="[^"]*\bnan\b[^"]*"', html), "in a figure"
    for text in (done.out, (tmp_path / "out" / "leaderboard.md").read_text("utf-8")):
        assert without_stand_ins(text), text
    lost = [one for one in KINDS[kind] if one.status not in ("ok", "pruned")]
    assert len(page.failures) == len(lost)
    assert all(any(f"{one.status} ({one.error})" in said for said in page.failures) for one in lost)
    if (tmp_path / "out" / "leaderboard.csv").exists():
        rows = list(csv.reader((tmp_path / "out" / "leaderboard.csv").open(newline="")))
        assert len(rows) == 1 + len({one.spec.method.name for one in KINDS[kind]})
        assert all(map(without_stand_ins, (cell for row in rows for cell in row)))


def test_a_report_of_published_figures_alone(tmp_path: Path) -> None:
    assert call("import", "peft-bench", "--store", tmp_path).code == 0
    done = call("report", "--store", tmp_path)
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "index.html",
        "leaderboard.md",
        "published.csv",
    ]
    page = Text((tmp_path / "report" / "index.html").read_text("utf-8"))
    assert all(map(without_stand_ins, page.shown))
    assert any("Published, not measured here" in text for text in page.shown)
    assert "Nothing was run here." in page.shown
    assert (tmp_path / "report" / "leaderboard.md").read_text("utf-8").startswith("## Published, not measured here")
    # What the figures were replaced by is not left beside them.
    store(tmp_path, *GOOD)
    assert call("report", "--store", tmp_path).code == 0
    assert (tmp_path / "report" / "leaderboard.csv").exists()


def test_reports_say_what_was_run(tmp_path: Path) -> None:
    made = [
        result(
            "lora", seed=seed, train={"gradient_accumulation_steps": 4, "num_train_epochs": 2}, settings={"workers": 3}
        )
        for seed in (0, 1)
    ]
    made += [
        result(
            "ia3",
            seed=seed,
            train={"gradient_accumulation_steps": 4, "num_train_epochs": 2},
            learning_rate=5e-3,
            steps=7,
        )
        for seed in (0, 1)
    ]
    made += [result("none", seed=seed) for seed in (0, 1)]
    cut = made[0].data
    assert cut is not None
    made[0] = made[0].model_copy(update={"data": cut.model_copy(update={"truncated_rows": 31})})
    store(tmp_path / "results", *made)
    done = call("report", "--store", tmp_path / "results", "--out", tmp_path / "out")
    page = " ".join(Text((tmp_path / "out" / "index.html").read_text("utf-8")).shown)
    markdown = (tmp_path / "out" / "leaderboard.md").read_text("utf-8")
    for text in (" ".join(done.out.split()), page, markdown.replace("\\", "")):
        for said in ("epochs 2", "batch 8", "accumulated 4", "training rows 100", "test rows 200", "precision fp32"):
            assert said in text, said
        assert "seeds 0, 1" in text
        assert all(heading in text for heading in ("Learning rate", "Steps", "Truncated"))
        assert "Up to 10 % of the rows of a run were truncated to max_length" in text
    assert re.search(r"lora +0\.001 +3 +0 % to 10 %", done.out)
    assert re.search(r"ia3 +0\.005 +7 ", done.out)
    rows = {row["method"]: row for row in csv.DictReader((tmp_path / "out" / "leaderboard.csv").open(newline=""))}
    assert (rows["lora"]["learning_rate"], rows["lora"]["seeds"], float(rows["lora"]["train_rows"])) == (
        "0.001",
        "0; 1",
        100,
    )
    assert (rows["none"]["learning_rate"], float(rows["lora"]["workers"])) == ("", 3)
    board = call("report", "--store", tmp_path / "results", "--out", tmp_path / "out", "--json").json["leaderboards"][0]
    assert board["conditions"]["ia3"]["learning_rate"] == [0.005]
    assert board["conditions"]["none"]["learning_rate"] == []
    listed = call("list", "runs", "--store", tmp_path / "results").out
    assert "lr 0.005, 2 epochs, 7 steps, batch 8 × 4, 100 rows, 200 tested, fp32" in listed


def test_sizes_beyond_the_rows_are_said(tmp_path: Path) -> None:
    made = [result(method, task, size=1000) for method in ("none", "lora") for task in ("sst2", "cb")]
    short = made[1].data
    assert short is not None
    short = short.model_copy(update={"train_rows": 250})
    made = [one.model_copy(update={"data": short}) if one.spec.task.name == "cb" else one for one in made]
    store(tmp_path, *made)
    done = call("report", "--store", tmp_path)
    said = "Fewer training rows than the 1,000 requested: cb has 250."
    assert said in " ".join(done.out.split())
    assert said in (tmp_path / "report" / "leaderboard.md").read_text("utf-8")


def test_intervals_end_where_the_scale_does(tmp_path: Path) -> None:
    """Two seeds that differ by 60 points: without a scale, the interval would be wider than all scores there are."""
    from peftbench.core.spec import Score

    made = [
        result(
            method,
            "cola" if metric == "matthews" else "sst2",
            seed,
            scores={metric: Score(value=value, standard_error=4.0)},
        )
        for method, values in {"lora": (90.0, 30.0), "ia3": (95.0, 20.0)}.items()
        for metric in ("accuracy", "matthews")
        for seed, value in enumerate(values)
    ]
    store(tmp_path, *made)
    board = call("report", "--store", tmp_path, "--json").json["leaderboards"][0]
    for row in board["rows"]:
        assert (row["scores"]["sst2"]["low"], row["scores"]["sst2"]["high"]) == (0, 100)
        assert (row["scores"]["cola"]["low"], row["scores"]["cola"]["high"]) == (-100, 100)
        assert row["mean"]["high"] == 100
        assert row["scores"]["sst2"]["standard_error"] > 30
    (pair,) = board["comparisons"]
    assert -150 <= pair["difference"]["low"] < pair["difference"]["high"] <= 150
    text = call("report", "--store", tmp_path).out
    page = " ".join(Text((tmp_path / "report" / "index.html").read_text("utf-8")).shown)
    assert re.search(r"60\.0 \[-?\d+\.\d, 100\.0\]", text)
    assert re.search(r"60\.0 \[-?\d+\.\d, 100\.0\]", page)
    assert "±" not in text + page


def test_what_is_not_shown_to_differ_is_no_tie(tmp_path: Path) -> None:
    made = [result(method, task, seed) for method in ("lora", "full", "ia3") for task in TASKS for seed in (0, 1, 2)]
    store(tmp_path, *made)
    done = call("report", "--store", tmp_path)
    texts = [done.out, (tmp_path / "report" / "leaderboard.md").read_text("utf-8")]
    texts.append(" ".join(Text((tmp_path / "report" / "index.html").read_text("utf-8")).shown))
    for text in texts:
        plain = " ".join(text.replace("\\", "").split())
        assert not re.search(r"\bties?\b|\btied\b", plain)
        assert "not shown to differ" in plain
        assert re.search(
            r"Not shown to differ from \w+, with what would show .* points: [\d,]+ (seeds|test rows)", plain
        )
    board = call("report", "--store", tmp_path, "--json").json["leaderboards"][0]
    assert any(isinstance(found, dict) and (found["seeds"] or found["rows"]) for found in board["to_show"].values())
    # With one seed nobody can say how many would be needed.
    store(tmp_path / "one", *[one for one in made if one.spec.seed == 0])
    alone = " ".join(call("report", "--store", tmp_path / "one").out.split())
    assert "what would show it is not known, because" in alone
