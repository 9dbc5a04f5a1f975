"""Accuracy with the same weight for every subject."""

from collections import defaultdict

from peftbench.metrics import Answers, metric


@metric(needs=("subject",), paper="arXiv:2009.03300")
def subject_accuracy(answers: Answers) -> float:
    """Mean, over the subjects that occur (`details["subject"]`), of the share of correct labels.

    Raises `ValueError` if a row has no subject.
    """
    subjects: dict[str, list[bool]] = defaultdict(list)
    for given, wanted, details in zip(answers.predictions, answers.references, answers.details, strict=True):
        if not details.get("subject"):
            raise ValueError("subject_accuracy needs the subject of each row, as details['subject']")
        subjects[details["subject"]].append(given in wanted)
    return 100.0 * sum(sum(right) / len(right) for right in subjects.values()) / len(subjects)
