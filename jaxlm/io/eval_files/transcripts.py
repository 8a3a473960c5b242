"""Logs of the zero-shot chain-of-thought experiments (Kojima et al. 2022): what was asked and written, item by item.

An item is a block between lines of stars: ``Q: ...`` and the whole prompt, then for each text that was drawn
``pred_before : `` (what the model wrote behind the words that ask for the answer), and ``GT : `` (the right answer).
The log ends with ``accuracy : ``. Commas between digits are left out of the texts: the experiments' own reader dropped
every comma before it looked for a number ("2,2,2" counted as 222), and their figures follow from that.
"""

import re
from pathlib import Path

from jaxlm.core.errors import UserError
from jaxlm.evals.grading import Output
from jaxlm.evals.tasks.answers import Written
from jaxlm.io.eval_files.records import read_text

_BLOCK = re.compile(r"^\*{25}\n", re.MULTILINE)
_QUESTION = re.compile(r"^Q: (.*?)\nA:", re.MULTILINE | re.DOTALL)
_WRITTEN = re.compile(r"^pred_before : (.*?)\npred_after : ", re.MULTILINE | re.DOTALL)
_COMMA = re.compile(r"(?<=\d),(?=\d)")
_GOLD = re.compile(r"^GT : (.*)$", re.MULTILINE)


def read_transcripts(path: Path) -> list[Output]:
    """The texts of every item, all behind the words that ask for the answer.

    Raises UserError for a log that breaks off or holds no item.
    """
    text = read_text(path)
    if not re.search(r"^accuracy : ", text, re.MULTILINE):
        raise UserError(f"{path} is half-written: a finished log ends with its accuracy")
    outputs = []
    for block in _BLOCK.split(text):
        question, gold = _QUESTION.search(block), _GOLD.search(block)
        if not question:
            continue
        where = f"{path} item {len(outputs) + 1}"
        written = tuple(_COMMA.sub("", text) for text in _WRITTEN.findall(block))
        if not written or not gold or not gold.group(1).strip():
            raise UserError(f"{where} has no {'gold answer' if written else 'answer'}: mend or remove it")
        outputs.append(
            Output(where, question=question.group(1), gold=gold.group(1).strip(), written=Written(written, True))
        )
    if not outputs:
        raise UserError(f"{path} holds no item with 'Q: ' in it: it is no log of zero-shot chain of thought")
    return outputs
