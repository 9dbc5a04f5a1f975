"""One meaning per name: classes, functions, types and modules that share a name are listed here with the reason."""

import ast
from collections import defaultdict
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "peftbench"

FAMILY = "what every model family has; one protocol"
STUDY = "what every study has; one protocol"
VERB = "a verb of the command line, its file, and the function that it calls"
TWICE = {
    "advance": FAMILY,
    "auto": FAMILY,
    "encoder": FAMILY,
    "pass_over": FAMILY,
    "positions": FAMILY,
    "read": FAMILY,
    "target_logits": FAMILY,
    "analyse": STUDY,
    "present": STUDY,
    "advise": VERB,
    "check": "two groups of verbs: of units, and of a mirror",
    "check_method": VERB,
    "check_task": VERB,
    "evaluate": VERB,
    "gate": VERB,
    "plan": VERB,
    "reproduce": VERB,
    "run": f"{VERB}; and one run, in `experiment`",
    "score": VERB,
    "verify": VERB,
    "launch": "what every launcher has; one protocol",
    "main": "the entry of a program",
    "make": "the generator of the rows of a task",
    "multirc": "a task and its metric",
    "record": "a task and its metric",
    "presentation": "the result of a package as blocks",
}


def names() -> dict[str, list[str]]:
    """Where each public name is defined at the top of a file; constants, whose names are in capitals, are left out."""
    found = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        found[path.parent.name if path.stem == "__init__" else path.stem].append(f"module {module}")
        for node in ast.parse(path.read_text()).body:
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AnnAssign):
                targets = [node.target]
            held = [target.id for target in targets if isinstance(target, ast.Name) and not target.id.isupper()]
            held += [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
            for name in held:
                if not name.startswith("_"):
                    found[name].append(module)
    return found


def test_no_name_has_two_meanings() -> None:
    twice = {}
    for name, places in names().items():
        defined = [place for place in places if not place.startswith("module ")]
        modules = [place for place in places if place.startswith("module ")]
        # A module is named after what it holds.
        if len(defined) > 1 or len(modules) > 1:
            twice[name] = places
    assert not {name: places for name, places in twice.items() if name not in TWICE and name != "__main__"}


def test_the_list_has_no_name_that_is_there_once() -> None:
    found = names()
    assert not [name for name in TWICE if len(found.get(name, ())) < 2 and TWICE[name] != VERB]
