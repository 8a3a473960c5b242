"""Coin flip (Wei et al. 2022) and StrategyQA (Geva et al. 2021): questions answered by yes or no."""

from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.evals.tasks.task import Item
from jaxlm.io.eval_files.records import Content, field, find_files, read_json, read_text

CHOICES = ("yes", "no")


def load_coin_flip(data: Path) -> Content:
    """``{"examples": [{"question", "answer"}, ...]}``."""
    folders = ("reasoning/zero_shot_cot", "zero_shot_cot", "dataset/coin_flip", "coin_flip", "")
    path = find_files("coin_flip", data, folders, "*coin_flip.json")[0]
    value = read_json(path)
    examples = value.get("examples") if isinstance(value, dict) else None
    if not isinstance(examples, list):
        raise UserError(f"{path} holds no object with a list of 'examples'")
    items = []
    for number, record in enumerate(examples):
        where = f"{path} example {number + 1}"
        if not isinstance(record, dict):
            raise UserError(f"{where} is no object {{...}}")
        question = field(record, "question", where)
        items.append(_item("coin_flip", number, question, field(record, "answer", where), "", where))
    return Content(items, items)


def load_strategyqa(data: Path) -> Content:
    """Lines of question, answer and reasons with tabs between, as in FLAN's chain-of-thought sets."""
    path = find_files("strategyqa", data, ("reasoning/flan_cot", "flan_cot", ""), "strategyqa*.tsv")[0]
    items = []
    for number, line in enumerate(filter(str.strip, read_text(path).split("\n")), start=1):
        where, cells = f"{path} line {number}", line.rstrip("\r").split("\t")
        if len(cells) != 3:
            raise UserError(f"{where} has {len(cells)} columns: question, answer and reasons are 3")
        items.append(_item("strategyqa", number - 1, cells[0], cells[1], f"{cells[2].strip()} ", where))
    return Content(items, items)


def _item(task: str, number: int, question: str, answer: str, solution: str, where: str) -> Item:
    said = answer.strip().lower()
    if not said:
        raise UserError(f"{where} has no gold answer")
    if said not in CHOICES:
        raise UserError(f"{where}: the gold answer {answer!r} is neither yes nor no")
    return Item(f"{task}:{number}", question.strip(), said, CHOICES, CHOICES.index(said), solution=solution)
