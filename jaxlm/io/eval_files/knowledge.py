"""MMLU (Hendrycks et al. 2021) and CMMLU (Li et al. 2023): questions with four choices by subject, as CSV files."""

from collections.abc import Iterator
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.evals.tasks.task import Item
from jaxlm.io.eval_files.cmmlu_subjects import CMMLU_SUBJECTS
from jaxlm.io.eval_files.records import Content, csv_rows, find_files, stem

LETTERS = "ABCD"
PASSAGE = 200
"""Characters from which on the lines before a question's last one are a passage that questions may share."""


def load_mmlu(data: Path) -> Content:
    """Files ``test/SUBJECT_test.csv`` and ``dev/SUBJECT_dev.csv``: question, four choices, the answer as a letter or as
    a number from 0; with a line of names or without."""
    folders = ("icl/mmlu", "mmlu", "")
    items = _items("mmlu", find_files("mmlu", data, folders, "test/*_test.csv"), "_test")
    shots = _items("mmlu", find_files("mmlu", data, folders, "dev/*_dev.csv"), "_dev")
    about = "The following are multiple choice questions (with answers) about {}."
    return Content(items, shots, {item.group: about.format(item.group.replace("_", " ")) for item in items})


def load_cmmlu(data: Path) -> Content:
    """Files ``test/SUBJECT.csv`` and ``dev/SUBJECT.csv``: number, question, four choices, the answer's letter. A file
    of another name than those published is asked under no subject."""
    folders = ("chinese/cmmlu", "cmmlu", "")
    items = _items("cmmlu", find_files("cmmlu", data, folders, "test/*.csv"), "")
    shots = _items("cmmlu", find_files("cmmlu", data, folders, "dev/*.csv"), "")
    about = "以下是关于{}的单项选择题，请直接给出正确答案的选项。"
    known = {item.group for item in items} & set(CMMLU_SUBJECTS)
    return Content(items, shots, {subject: about.format(CMMLU_SUBJECTS[subject]) for subject in sorted(known)})


def _items(task: str, files: list[Path], ending: str) -> list[Item]:
    return [item for path in files for item in _subject(task, path, ending)]


def _subject(task: str, path: Path, ending: str) -> Iterator[Item]:
    subject = stem(path).removesuffix(ending)
    passages: dict[str, str] = {}
    rows = [(where, row) for where, row in csv_rows(path) if row[-1].strip().lower() != "answer"]
    for number, (where, row) in enumerate(rows):
        if len(row) not in (6, 7):
            raise UserError(f"{where} has {len(row)} columns: a question, four choices and the answer are 6")
        question, *choices, answer = row[-6:]
        place = _place(answer, where)
        name = f"{task}/{subject}:{'dev' if path.parent.name == 'dev' else ''}{number}"
        listed = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True)]
        passage, _, _ = question.strip().rpartition("\n")
        yield Item(
            name=name,
            question="\n".join([question.strip(), *listed]),
            answer=LETTERS[place],
            choices=tuple(LETTERS),
            gold=place,
            group=subject,
            cluster=passages.setdefault(passage, name) if len(passage) >= PASSAGE else "",
        )


def _place(answer: str, where: str) -> int:
    """Which choice a letter or a number from 0 names."""
    said = answer.strip()
    if not said:
        raise UserError(f"{where} has no gold answer: write A to D, or 0 to 3")
    place = int(said) if said.isdecimal() else LETTERS.find(said) if len(said) == 1 else -1
    if not 0 <= place < len(LETTERS):
        raise UserError(f"{where}: the gold answer {said!r} is out of range, there are choices A to D (or 0 to 3)")
    return place
