"""The leaderboard as terminal text, Markdown, CSV and a page."""

import io
import json
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from drawn import data_rows, texts
from peftbench.report import figures, write_report
from peftbench.report.columns import NOT_SHOWN, ONE_SEED, columns
from peftbench.report.tables import failures, leaderboards_csv, leaderboards_markdown
from peftbench.report.terminal import View
from peftbench.studies import pscp_sensitivity, study
from peftbench.studies._figure_style import styles
from peftbench.studies._leaderboard_figures import learning_curves, score_cost
from peftbench.studies._missing_cells import MissingCell
from peftbench.studies._setting_selection import compared_runs
from peftbench.studies._text_format import count_text, missing_cells_text
from peftbench.studies.leaderboard import Leaderboard, leaderboards
from peftbench.studies.study_input import run_data
from synthetic_table import METHODS, curves, run, table

EVIL = "<script>alert('x')</script>|$x$"
VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    return leaderboards(table())[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report")
    evil = pd.DataFrame(
        [run(EVIL, task, seed) for task in ("emotions", "arithmetic", "data_to_text") for seed in (0, 1)]
    )
    runs = pd.concat([table(), evil], ignore_index=True)
    context = {"title": "A & B", "machine": {"cpu": "16 <cores>"}, "versions": {"torch": "2.9"}}
    files = write_report(run_data(runs, curves(runs)), context, out)
    assert [file.name for file in files] == ["leaderboard.md", "leaderboard.csv", "index.html"]
    return files[2].read_text("utf-8")


class Reader(HTMLParser):
    """Checks that elements close in order; keeps attributes by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_its_ids_are_unique(page: str) -> None:
    reader = Reader(page)
    assert not reader.open
    ids = [attributes["id"] for _, attributes in reader.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for tag, a in reader.seen if tag == "a"}
    assert targets <= {f"#{held}" for held in ids}


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    for tag, attributes in Reader(page).seen:
        for key in ("src", "href", "xlink:href", "action", "poster", "data"):
            assert (attributes.get(key) or "#").startswith(("#", "data:")), (tag, attributes)
    # Of what draws the figures, which loads what a specification names; none names anything.
    assert page.count(figures.runtime()) == 1
    page = page.replace(figures.runtime(), "")
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert '"url"' not in page
    assert set(re.findall(r"https?://[^\"' <]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_method_is_on_the_page_and_none_is_code(page: str) -> None:
    for method in METHODS:
        assert f'<th scope="row" class="method">{method}</th>' in page
    assert EVIL not in page
    scripts = [attributes.get("type") for tag, attributes in Reader(page).seen if tag == "script"]
    assert [kind for kind in scripts if kind != "application/json"] == ["module", "module", None]
    assert unescape(page).count(EVIL) > 5
    assert "16 &lt;cores&gt;" in page
    assert "<title>A &amp; B</title>" in page


def test_the_page_says_ties_gaps_and_failures(page: str) -> None:
    text = unescape(page)
    assert NOT_SHOWN in text
    assert "vera lacks emotions seed 1: absent" in text
    assert "prefix-tuning on arithmetic, qwen2.5-0.5b, 1000 rows, seed 1, cpu-16: diverged" in text
    assert "1~" in text


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    runs = table()
    both = [write_report(run_data(runs, curves(runs)), {}, tmp_path / name) for name in ("one", "two")]
    assert [file.read_bytes() for file in both[0]] == [file.read_bytes() for file in both[1]]


def test_every_pair_is_a_win_a_loss_or_a_tie(tmp_path: Path) -> None:
    section = study("pairwise_differences").section(run_data(table(), curves(table())))
    assert section is not None
    matrix, beside = section.sheets
    names = matrix.headings[1:]
    said = {(line[0], other): cell for line in matrix.lines for other, cell in zip(names, line[1:], strict=True)}
    turned = {"W": "L", "L": "W", "~": "~"}
    assert all(turned[said[a, b][0]] == said[b, a][0] for a in names for b in names if a != b)
    assert said["dora", "ia3"].startswith("W +")
    for name, record, *_ in beside.lines:
        wins, losses, ties = map(int, record.split("–"))
        assert [sum(said[name, b][:1] == sign for b in names) for sign in "WL~"] == [wins, losses, ties]
    (figure,) = section.figures
    assert {f"{line[0]} {line[2]}" for line in beside.lines} <= set(texts(figure))
    ranks = section.data[0]["ranks"]
    assert [(row["from"], row["to"]) for row in data_rows(figure, "from", "to") if "said" not in row] == [
        pytest.approx((ranks["mean"][group[0]] - 0.03, ranks["mean"][group[-1]] + 0.03)) for group in ranks["groups"]
    ]
    assert any("3 tasks are too few" in remark for remark in section.remarks)
    text = write_report(run_data(table(), curves(table())), {}, tmp_path)[0].read_text("utf-8")
    assert "## Wins, losses, not shown to differ" in text
    data = run_data(table(), curves(table()))
    assert section.name not in [shown.name for shown in data.printed_sections]
    assert section.name in [shown.name for shown in data.sections]


def test_what_cannot_be_compared_has_no_verdicts() -> None:
    one = table().query("method == 'lora'")
    assert study("pairwise_differences").section(run_data(one, curves(one))) is None
    two = table().query("method in ['lora', 'ia3']")
    section = study("pairwise_differences").section(run_data(two, curves(two)))
    assert section is not None
    assert not section.figures


def test_with_six_tasks_signed_ranks_are_tested() -> None:
    several = [
        run(m, f"task{t}", 0, score=s + t) for m, s in {"lora": 80, "ia3": 70, "vera": 60}.items() for t in range(8)
    ]
    section = study("pairwise_differences").section(run_data(pd.DataFrame(several), curves(table()[:0])))
    assert section is not None
    assert "Holm's correction: lora over ia3, lora over vera, ia3 over vera." in section.remarks[-1]


def test_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to report"):
        write_report(run_data(table()[:0], curves(table()[:0])), {}, tmp_path)


def test_an_unknown_interval_is_not_drawn(tmp_path: Path) -> None:
    runs = pd.DataFrame([run("lora", "emotions", 0, score_error=None), run("ia3", "emotions", 0, score_error=None)])
    page = write_report(run_data(runs, curves(runs)), {}, tmp_path)[2].read_text("utf-8")
    assert "interval not known" in page
    assert '<b style="left' not in page
    assert "[?]" in page


def test_csv_round_trip(board: Leaderboard) -> None:
    back = pd.read_csv(
        io.StringIO(leaderboards_csv([board])), dtype={"size": str}, keep_default_na=False, na_values=[""]
    )
    expected = board.to_frame().replace("", None)
    assert list(back.columns) == list(expected.columns)
    for column in back.select_dtypes("number"):
        np.testing.assert_allclose(back[column], expected[column].astype(float))
    assert back["method"].tolist() == expected["method"].tolist()


def test_markdown_round_trip(board: Leaderboard) -> None:
    first, _, _ = leaderboards_markdown([board]).partition(pscp_sensitivity.ABOUT)
    lines = [line for line in first.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len({len(line) for line in cells}) == 1
    assert [line[1] for line in cells[2:]] == [row.method for row in board.rows]
    for line, row in zip(cells[2:], board.rows, strict=True):
        assert line[2].partition(" ")[0] == (f"{row.mean.mean:.1f}" if row.mean else "–")


def test_markdown_escapes_what_would_break_the_table() -> None:
    text = leaderboards_markdown(leaderboards(pd.DataFrame([run(EVIL, "emotions", 0)])))
    assert "<script" not in text
    assert "\\|$x$" in text
    assert ONE_SEED in text


@pytest.mark.parametrize("width", [200, 80, 40])
def test_the_terminal_loses_nothing_at_any_width(board: Leaderboard, width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(View(board))
    text = out.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    for method in METHODS:
        assert method in text
    for wanted in ("Mean", "PSCP relative", "74.3 [73.3, 75.3]", "4.40M (0.88 %)", "diverged"):
        assert wanted in text
    assert " ".join(NOT_SHOWN.split()) in " ".join(text.split())


def test_mixed_machines_are_said(board: Leaderboard) -> None:
    other = table()[lambda runs: runs["method"] == "ia3"].assign(machine_class="h200")
    runs = pd.concat([table()[lambda runs: runs["method"] != "ia3"], other])
    text = leaderboards_markdown(leaderboards(runs, pool_machines=True))
    assert "Costs are not compared: costs of different machine classes: cpu-16, h200." in text
    assert leaderboards_markdown([board]).count("Costs are not compared") == 0


def test_figures_show_every_method_as_the_table_does(board: Leaderboard) -> None:
    looks = styles(METHODS)
    figure = score_cost(board, looks)
    assert figure is not None
    named = {row.method for row in board.rows if row.rank and row.method != "none"} | {"none (trains nothing)"}
    assert named <= set(texts(figure))
    points = {row["method"]: (row["mean"], row["low"], row["high"]) for row in data_rows(figure, "mean")}
    assert points == {row.method: (row.mean.mean, row.mean.low, row.mean.high) for row in board.rows if row.mean}
    panels = learning_curves(board, compared_runs(table()), curves(table()), looks)
    assert panels is not None
    assert {*board.tasks, *METHODS} - {"vera"} <= set(texts(panels))


def test_a_figure_is_drawn_alike_each_time_and_in_the_colours_of_the_page(board: Leaderboard) -> None:
    one, other = (score_cost(board, styles(METHODS)) for _ in range(2))
    assert one is not None
    assert one == other
    assert figures.page_svg(one) == figures.page_svg(one)
    assert "var(--ink" in figures.page_svg(one)
    assert "var(" not in figures.svg(one)


def test_a_page_has_each_figure_drawn_and_as_data(tmp_path: Path) -> None:
    shown = run_data(table(), curves(table()))
    page = write_report(shown, {}, tmp_path)[2].read_text("utf-8")
    made = figures.of_report(shown)
    held = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    assert held == [figure.spec for figure in made]
    for figure in made:
        assert texts(figure)
        assert page.count(figures.page_svg(figure)) == 1
        assert f'role="img" aria-label="{figure.alt}"' in unescape(page)
    assert len({figure.title for figure in made}) == len(made)


def test_a_page_without_figures_has_no_script_for_them(tmp_path: Path) -> None:
    runs = pd.DataFrame([run("lora", "emotions", 0, status="failed", score=float("nan"), error="no memory")])
    page = write_report(run_data(runs, curves(runs)), {}, tmp_path)[-1].read_text("utf-8")
    assert "vegaEmbed" not in page


def test_a_method_looks_the_same_in_all_figures(board: Leaderboard) -> None:
    shown = run_data(table(), curves(table()))
    looks = shown.styles
    made = [score_cost(board, looks), learning_curves(board, shown.compared, shown.curves, looks)]
    made += [*pscp_sensitivity.sensitivity_figures(board, looks), *(f for s in shown.sections for f in s.figures)]
    found: dict[str, set[str]] = {}
    for figure in made:
        assert figure is not None
        for names, colours in colour_scales(figure.spec):
            for name, colour in zip(names, colours, strict=True):
                found.setdefault(name, set()).add(colour)
    assert found == {name: {looks[name].colour} for name in found}
    assert found.keys() >= {row.method for row in board.rows if row.rank}


def colour_scales(part: Any) -> Iterator[tuple[list[str], list[str]]]:
    if isinstance(part, dict):
        if isinstance(part.get("color"), dict):
            yield part["color"]["scale"]["domain"], part["color"]["scale"]["range"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from colour_scales(one)


def test_equal_costs_and_odd_names_are_drawn() -> None:
    names = [EVIL, "a.b[c]", "{{datum}}", "\\", "'\"", ""]
    runs = pd.DataFrame(
        [run(name, "<i>t.a[s]k</i>", seed, trainable_parameters=7) for name in names for seed in (0, 1)]
    )
    shown = run_data(runs, curves(runs))
    (board,) = shown.leaderboards
    figure = score_cost(board, shown.styles)
    panels = learning_curves(board, shown.compared, shown.curves, shown.styles)
    assert figure is not None
    assert panels is not None
    assert set(names) - {""} <= set(texts(figure))
    assert {"<i>t.a[s]k</i>", *names} - {""} <= set(texts(panels))


def timed(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.assign(latency_ms=20.0 + 4 * runs["method"].str.len())


@pytest.mark.slow
def test_weights_and_who_leads_are_said_in_every_form(board: Leaderboard, tmp_path: Path) -> None:
    weights = "Weights of PSCP: paper v1, relative v1, exponential v1."
    lead = "full up to 0.00553, then lora"
    out = io.StringIO()
    Console(file=out, width=500).print(View(board))
    assert weights in out.getvalue()
    assert f"Highest PSCP (paper v1), one exponent for all costs from 0 to 3: {lead}." in out.getvalue()
    text = leaderboards_markdown([board])
    assert f"- {weights}" in text
    assert f"| paper v1 | one for all costs | {lead} |" in text
    page = unescape(write_report(run_data(table(), curves(table())), {}, tmp_path)[2].read_text("utf-8"))
    assert weights in page
    assert f"<dt>paper v1, one for all costs</dt><dd>{lead}</dd>" in page
    assert page.count("<h4>PSCP ") == 2, "no latency, so no figure of the exponential form"


def test_a_pscp_that_no_method_has_is_a_remark_and_not_a_column(board: Leaderboard) -> None:
    titles = [column.title for column in columns(board)]
    assert titles[-2:] == ["PSCP paper", "PSCP relative"]
    assert "No PSCP (exponential): costs lack latency\\_ms: latency = true under" in leaderboards_markdown([board])
    (measured,) = leaderboards(timed(table()))
    assert [column.title for column in columns(measured)][-4:] == ["ms/tok", *titles[-2:], "PSCP exponential"]


def test_the_figure_of_who_leads_names_everyone(board: Leaderboard) -> None:
    (measured,) = leaderboards(timed(table()), weights=["relative", {"name": "<a> \\1", "latency_ms": (9.0, 1.0)}])
    found = pscp_sensitivity.sensitivity_figures(measured, styles(METHODS))
    assert [figure.title for figure in found] == [f"PSCP {name} v1: {board.title}" for name in ("relative", "<a> \\1")]
    for figure in found:
        assert {row.method for row in board.rows if row.rank} <= set(texts(figure))
    sweeps = [sweep for sweep in measured.sensitivity if sweep.weights == "relative"]
    assert [(row["varied"], row["from"], row["to"], row["said"]) for row in data_rows(found[0], "varied", "from")] == [
        (sweep.varied, span.low, span.high, " and ".join(span.winners)) for sweep in sweeps for span in sweep.spans
    ]
    several = texts(found[0])
    assert {"all costs", "trainable_parameters", "extra_forward_tflops", "peak_memory_gb"} <= set(several)
    assert several.count("lora") == 5, "in the legend, and on each of four bars"
    alone = leaderboards(table()[table()["method"] == "lora"])[0]
    assert alone.rows[0].pscp["paper"].value
    assert alone.sensitivity == ()
    assert pscp_sensitivity.sensitivity_figures(alone, styles(METHODS)) == ()


def test_many_methods_look_different() -> None:
    looks = styles(f"m{i}" for i in range(60))
    assert len({(look.colour, look.shape) for look in looks.values()}) == 60


def test_every_one_of_many_methods_is_named_in_a_figure() -> None:
    names = [f"method {i}" for i in range(65)]
    (board,) = leaderboards(pd.DataFrame([run(name, "emotions", seed) for name in names for seed in (0, 1)]))
    figure = score_cost(board, styles(names))
    assert figure is not None
    assert set(names) <= set(texts(figure))


def test_what_cannot_be_drawn_is_left_out(tmp_path: Path) -> None:
    runs = pd.DataFrame([run("lora", "emotions", 0, status="failed", score=float("nan"), error="no\nmemory")])
    shown = run_data(runs, curves(runs))
    assert score_cost(shown.leaderboards[0], styles(["lora"])) is None
    write_report(shown, {}, tmp_path)
    assert failures(runs) == ["lora on emotions, qwen2.5-0.5b, 1000 rows, seed 0, cpu-16: failed (no)"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (17_920, "17.9k"), (4_399_104, "4.40M"), (999_999, "1.00M"), (7e9, "7.00B")],
)
def test_counts_are_short(number: float, text: str) -> None:
    assert count_text(number) == text


def test_missing_cells_are_told_by_task_and_reason() -> None:
    cells = [MissingCell("qa", seed, "absent") for seed in (2, 0, 1)]
    cells += [MissingCell("cb", seed, "absent") for seed in (0, 4)] + [MissingCell("qa", 3, "failed", "why")]
    assert missing_cells_text(cells) == ["qa seeds 0 to 2, cb seeds 0, 4: absent", "qa seed 3: failed (why)"]


def test_a_curve_is_of_the_chosen_setting() -> None:
    rows = [
        run("lora", "emotions", 0, id=name, training=f"learning_rate={rate}", validation_loss=loss)
        for name, rate, loss in (("good", 0.1, 0.5), ("bad", 9.0, 5.0))
    ]
    runs = pd.DataFrame(rows)
    points = pd.DataFrame([("good", 1, 0.5), ("bad", 1, 5.0)], columns=["id", "step", "validation_loss"])
    (board,) = leaderboards(runs)
    drawn = [learning_curves(board, compared_runs(runs), held, styles(["lora"])) for held in (points, points[:1])]
    assert drawn[0] == drawn[1]
    assert drawn[0] is not None
