"""Presentation of a gate's verdict: as text and as JUnit XML."""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from peftbench.core.text_escaping import visible
from peftbench.gating.decision import GateVerdict, TaskVerdict, difference_text
from peftbench.studies._text_format import ABSENT
from peftbench.studies.presentation_blocks import Section, Table

HEADINGS = ("Task", "Metric", "Candidate", "Baseline", "Chance", "Difference (95 %)", "")
OVERALL = "all tasks"
RULE = (
    "“No worse” means that the 95 % interval of the difference lies above -{0:g} points, on the mean of the tasks on"
    " which the baseline is above chance by more than {0:g}"
)


def gate_section(verdict: GateVerdict) -> Section:
    candidate, baseline = verdict.names
    lines: list[tuple[str, ...]] = [
        (
            task.task,
            task.metric,
            *map(_score, (task.candidate, task.baseline, task.chance)),
            difference_text(task.difference),
            state,
        )
        for task, state in zip(verdict.tasks, map(_state, verdict.tasks), strict=True)
    ]
    if verdict.difference and not verdict.failed:
        lines.append(
            (f"mean of {sum(t.counts for t in verdict.tasks)}", *[""] * 4, difference_text(verdict.difference), "")
        )
    facts = ", ".join(f"{key} {value}" for key, value in verdict.conditions.items())
    remarks = [f"candidate: {candidate}", f"baseline: {baseline}", facts]
    remarks.append(RULE.format(verdict.margin))
    remarks += [f"candidate: {cell}" for cell in verdict.failed] + [f"baseline: {cell}" for cell in verdict.gaps]
    return Section(
        name="gate",
        title=f"Gate: {verdict.outcome}",
        about=f"{verdict.outcome.capitalize()}: {verdict.reason}.",
        sheets=(Table("", HEADINGS, 2, tuple(lines)),) if lines else (),
        remarks=tuple(remarks),
        data=verdict.to_dict(),
    )


def _score(points: float | None) -> str:
    return ABSENT if points is None else f"{points:.1f}"


def _state(task: TaskVerdict) -> str:
    if task.worse:
        return "worse"
    return "" if task.counts else "does not count"


def junit(verdict: GateVerdict) -> str:
    """Return JUnit XML with a test case per task and one for the overall verdict.

    A task fails if the candidate is worse on it or has no score, is an error if the baseline has none, and is skipped
    if it does not count. The overall case fails if the candidate is worse, and is an error if the gate cannot tell.
    """
    root = Element("testsuites")
    suite = SubElement(root, "testsuite", name="peftbench gate")
    properties = SubElement(suite, "properties")
    names = dict(zip(("candidate", "baseline"), verdict.names, strict=True))
    for key, value in {**names, **verdict.conditions, "margin": verdict.margin}.items():
        SubElement(properties, "property", name=key, value=str(value))
    for task in verdict.tasks:
        case = _case(suite, task.task)
        difference = difference_text(task.difference)
        text = f"{task.metric}: {task.candidate:.2f}, baseline {task.baseline:.2f}, difference {difference}"
        if task.worse:
            _outcome(case, "failure", "worse", f"worse than the baseline by more than {verdict.margin:g} points")
        elif not task.counts:
            _outcome(case, "skipped", "", "the baseline is not above chance by more than the margin")
        SubElement(case, "system-out").text = text
    for kind, cells in (("failure", verdict.failed), ("error", verdict.gaps)):
        for task_name in dict.fromkeys(cell.task for cell in cells):
            lacks = "; ".join(str(cell) for cell in cells if cell.task == task_name)
            _outcome(_named(suite, task_name), kind, "no score", lacks)
    case = _case(suite, OVERALL)
    if verdict.outcome != "no worse":
        _outcome(case, "failure" if verdict.outcome == "worse" else "error", verdict.outcome, verdict.reason)
    SubElement(case, "system-out").text = f"{verdict.outcome}: {verdict.reason}"
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for kind, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(count, str(sum(case.find(kind) is not None for case in cases)))
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + visible(tostring(root, encoding="unicode"), keep="\n") + "\n"


def _case(suite: Element, name: str) -> Element:
    return SubElement(suite, "testcase", classname="peftbench.gating", name=name)


def _named(suite: Element, name: str) -> Element:
    """Return the test case of a task; it is created unless an earlier outcome has created it."""
    found = [case for case in suite.findall("testcase") if case.get("name") == name]
    return found[0] if found else _case(suite, name)


def _outcome(case: Element, kind: str, type_: str, message: str) -> None:
    # A test case has one outcome: the first one found.
    if any(case.find(other) is not None for other in ("failure", "error", "skipped")):
        return
    SubElement(case, kind, {"message": message} | ({"type": type_} if type_ else {}))
