"""LAMBADA (Paperno et al. 2016) and BLiMP (Warstadt et al. 2020): tasks that likelihoods alone answer."""

from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.evals.tasks.task import Item
from jaxlm.io.eval_files.records import Content, field, find_files, stem
from jaxlm.io.json_records import json_lines


def load_lambada(data: Path) -> Content:
    """Objects with ``text``; the last word is what a model is to go on with."""
    items = []
    for path in find_files("lambada", data, ("icl/lambada", "lambada", ""), "lambada*.jsonl"):
        for where, record in json_lines(path):
            context, _, word = field(record, "text", where).rpartition(" ")
            if not context.strip() or not word.strip():
                raise UserError(f"{where} has no gold answer: its text has no last word behind a space")
            items.append(Item(f"lambada:{len(items)}", context, word))
    return Content(items, items)


def load_blimp(data: Path) -> Content:
    """A file a paradigm, objects with ``sentence_good`` and ``sentence_bad``; groups are TERM/PARADIGM."""
    items = []
    for path in find_files("blimp", data, ("icl/blimp", "blimp", "data", ""), "*.jsonl"):
        for number, (where, record) in enumerate(json_lines(path)):
            good, bad = field(record, "sentence_good", where), field(record, "sentence_bad", where)
            paradigm = str(record.get("UID", stem(path)))
            term = record.get("linguistics_term")
            group = f"{term}/{paradigm}" if term else paradigm
            items.append(Item(f"blimp/{paradigm}:{number}", "", good, (good, bad), 0, group=group))
    return Content(items)
