"""How the published tasks are put, read and scored: name -> form. Prompts are those of the papers that brought them."""

from jaxlm.evals.extraction import Extraction
from jaxlm.evals.prompting import Template
from jaxlm.evals.tasks.task import Form

_NUMBER = Form(
    "answer",
    extraction=Extraction("number"),
    cue="The answer (arabic numerals) is",
    cue_after_steps="Therefore, the answer (arabic numerals) is",
)
_YES_NO = Form(
    "choice",
    extraction=Extraction("yes_no"),
    choices=("yes", "no"),
    cue="The answer (Yes or No) is",
    cue_after_steps="Therefore, the answer (Yes or No) is",
    unconditional="A:",
)

_INSTRUCTION = Form("instruction", Template("{question}", between="\n\n"), stop=(), max_new_tokens=512)

FORMS: dict[str, Form] = {
    "aqua": Form(
        "choice",
        extraction=Extraction("letter"),
        cue="Among A through E, the answer is",
        cue_after_steps="Therefore, among A through E, the answer is",
        unconditional="A:",
    ),
    "bbh": Form(
        "answer",
        extraction=Extraction("exact", triggers=("answer is",)),
        opening="Let's think step by step.\n",
        lead="So the answer is ",
    ),
    "blimp": Form("pair", Template("{question}", gap="")),
    "cmmlu": Form(
        "choice",
        Template("题目：{question}\n答案是：", gap=""),
        instruction="以下是单项选择题，请直接给出正确答案的选项。",
        extraction=Extraction("letter", "ABCD"),
        choices=tuple("ABCD"),
        reasoning="让我们一步一步来思考。",
        cue_after_steps="所以答案是",
        lead="所以答案是",
        stop=("\n\n题目",),
        unconditional="答案是：",
    ),
    "coin_flip": _YES_NO,
    "gsm8k": _NUMBER,
    "ifeval": _INSTRUCTION,
    "instructions": _INSTRUCTION,
    "lambada": Form(
        "cloze", Template("{question}"), extraction=Extraction("word", triggers=()), stop=(), max_new_tokens=8
    ),
    "mmlu": Form(
        "choice",
        Template("{question}\nAnswer:"),
        extraction=Extraction("letter", "ABCD"),
        choices=tuple("ABCD"),
        cue_after_steps="Therefore, among A through D, the answer is",
        stop=("\n\n",),
        steps_stop=("\n\nQuestion",),  # paragraphs belong to the steps
        unconditional="Answer:",
    ),
    "multiarith": _NUMBER,
    "strategyqa": _YES_NO,
    "svamp": _NUMBER,
}
