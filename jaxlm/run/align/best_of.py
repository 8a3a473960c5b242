"""``jaxlm best-of RUN --prompts FILE --judge JUDGE --out FILE.jsonl``: n answers to each prompt, the best one kept.

The file is conversations, to tune on (rejection sampling, Touvron et al. 2023: ``jaxlm sft``). With --pairs the best
and the worst answer to each prompt are written as pairs too (``jaxlm dpo``: a round of iterative DPO). The last line on
stdout is one JSON object.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxlm.core.errors import UserError
from jaxlm.io.conversations import read_prompts
from jaxlm.io.json_records import json_lines
from jaxlm.io.run_dir import write_text
from jaxlm.io.writing import check_new_file
from jaxlm.run.align.reward_functions import Answer, RewardFunction, call_function, find_function
from jaxlm.run.align.reward_lm import RewardLM
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.devices import use_compilation_cache
from jaxlm.run.handle import load
from jaxlm.run.parsers import Parser
from jaxlm.text.chat.messages import Message, Prompt


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = Parser(prog="jaxlm best-of", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory of a model that answers")
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help=".jsonl or .json")
    parser.add_argument("--judge", required=True, help="a run of jaxlm reward, or FILE.py:FUNCTION")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".jsonl of conversations")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help=".jsonl of the best and the worst answers")
    parser.add_argument("--num-samples", type=int, default=8, metavar="N", help="answers to each; default %(default)s")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="default %(default)s")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="default %(default)s")
    parser.add_argument("--least", type=float, metavar="R", help="keep no answer with a lower reward")
    parser.add_argument("--keep-cut", action="store_true", help="keep answers that reached --max-new-tokens too")
    parser.add_argument(
        "--time-limit", type=float, default=60.0, metavar="S", help="of a function, for one prompt; default %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="judge these, which a call whose judge failed has kept: draw none"
    )
    options = vars(parser.parse_args(argv))
    use_compilation_cache()
    figures = best_of(options.pop("run"), options.pop("prompts"), options.pop("judge"), options.pop("out"), **options)
    print(json.dumps(figures))
    return 0


def best_of(
    run: str | Path,
    prompts: str | Path,
    judge: str,
    out: str | Path,
    *,
    pairs: str | Path | None = None,
    num_samples: int = 8,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    least: float | None = None,
    keep_cut: bool = False,
    time_limit: float = 60.0,
    seed: int = 0,
    answers: str | Path | None = None,
    functions: Mapping[str, RewardFunction] | None = None,
) -> dict[str, Any]:
    """Draws ``num_samples`` answers to each prompt, and writes the one with the highest reward; returns the figures:
    mean rewards of all and of the best answers, how many were cut at their limit, and how many were longer than a
    reward run reads, which are not judged.

    ``time_limit``: seconds that a function may take for the answers to one prompt. Where it fails, the answers are kept
    beside ``out``, and the error says where; ``answers`` names that file, and nothing is drawn.

    ``judge``: a reward run, ``FILE.py:FUNCTION`` (`run.align.reward_functions`), or a name of ``functions``. Of equal
    rewards the first answer is kept; never an empty answer, nor one that did not end within ``max_new_tokens`` unless
    ``keep_cut``.

    Raises UserError for bad input, before anything is drawn, and for a function that fails.
    """
    for path in (out, *(() if pairs is None else (pairs,))):
        check_new_file(path)
        if Path(path).suffix != ".jsonl":
            raise UserError(f"{path}: name a .jsonl file")
    paths = [Path(path).resolve() for path in (prompts, out, pairs) if path is not None]
    if len(set(paths)) < len(paths):
        raise UserError("--prompts, --out and --pairs name one file twice: what is written would replace it")
    if num_samples < 2:
        raise UserError(f"num_samples={num_samples} leaves nothing to choose: ask for 2 or more")
    if least is not None and math.isnan(least):
        raise UserError(f"least={least} is no number: give the lowest reward to keep, or leave it out")
    if not 0 < time_limit < math.inf:
        raise UserError(f"time_limit={time_limit:g} must be a number of seconds above 0")
    asked = list(read_prompts(prompts))
    judging = _Judge(judge, functions or {}, time_limit)
    judging.check(asked)
    if answers is None:
        how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        drawn = _draw(run, asked, num_samples, **how)
    else:
        drawn = _read_answers(Path(answers), asked)
    texts = [[one.text if keep_cut or one.ended else "" for one in row] for row in drawn]
    try:
        rewards = judging.rewards(asked, texts)
    except UserError as error:
        if answers is not None:
            raise
        kept = Path(out).with_suffix(".answers.jsonl")
        _write(kept, [{"prompt": _turns(one), "answers": row} for one, row in zip(asked, drawn, strict=True)])
        raise UserError(f"{error}. The answers are kept: mend the function, and give --answers {kept}") from error
    best_lines, pair_lines, best = [], [], []
    for prompt, row, values in zip(asked, texts, rewards, strict=True):
        order = [i for i in np.argsort(-values, kind="stable") if np.isfinite(values[i])]
        if not order or (least is not None and values[order[0]] < least):
            continue
        first, last = order[0], order[-1]
        turns = _turns(prompt)
        best_lines.append({"messages": [*turns, {"role": "assistant", "content": row[first]}]})
        best.append(values[first])
        if values[first] > values[last]:
            pair_lines.append({"prompt": turns, "chosen": row[first], "rejected": row[last]})
    if not best_lines:
        raise UserError(
            f"no answer to {len(asked)} prompts was kept: lower --least, raise --max-new-tokens, or tune first"
        )
    _write(out, best_lines)
    if pairs is not None:
        _write(pairs, pair_lines)
    every = rewards[np.isfinite(rewards)]
    return {
        "num_prompts": len(asked),
        "num_kept": len(best_lines),
        "num_pairs": len(pair_lines),
        "num_cut": sum(not one.ended for row in drawn for one in row),
        "num_too_long": judging.num_too_long,
        "reward_mean": float(every.mean()),
        "reward_of_best": float(np.mean(best)),
        "out": str(out),
    }


class _Drawn(NamedTuple):
    text: str
    ended: bool
    """By itself, not at ``max_new_tokens``."""


def _draw(run: str | Path, asked: Sequence[Prompt], num_samples: int, **how: Any) -> list[list[_Drawn]]:
    """``num_samples`` answers to each prompt."""
    lm = load(run)
    if not isinstance(lm, CausalLM):
        raise UserError(f"{run} is of family {lm.family!r}, which cannot answer: use another run")
    drawn = lm.answer([one.messages for one in asked], num_samples=num_samples, **how)
    answers = [_Drawn(one.text, one.finish == "stop") for one in drawn]
    return [answers[i : i + num_samples] for i in range(0, len(answers), num_samples)]


def _read_answers(path: Path, asked: Sequence[Prompt]) -> list[list[_Drawn]]:
    """What an earlier call has kept, as many for every prompt; raises UserError where they answer other prompts."""
    rows = []
    for where, record in json_lines(path):
        try:
            rows.append((record["prompt"], [_Drawn(str(text), bool(ended)) for text, ended in record["answers"]]))
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{where} is not what best-of keeps: leave --answers out, and draw again") from None
    if [prompt for prompt, _ in rows] != [_turns(one) for one in asked] or len({len(row) for _, row in rows}) != 1:
        raise UserError(f"{path} does not answer these prompts: give the --prompts that it was drawn for")
    return [row for _, row in rows]


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in prompt.messages]


class _Judge:
    """A reward run, or a function."""

    def __init__(self, name: str, functions: Mapping[str, RewardFunction], time_limit: float):
        self.name, self.time_limit, self.function, self.num_too_long = name, time_limit, None, 0
        self.model: RewardLM | None = None
        if name not in functions and Path(name).is_dir():
            found = load(name)
            if not isinstance(found, RewardLM) or found.judge.of != "answers":
                raise UserError(f"judge={name} is no reward model of answers: name a run of jaxlm reward")
            self.model = found
        else:
            self.function = find_function(name, functions, field="judge")

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises UserError for a prompt that leaves no room for an answer."""
        for prompt in prompts:
            if not self._reads(prompt, "."):
                assert self.model is not None
                raise UserError(
                    f"{prompt.where} is longer than the {self.model.context} tokens that judge={self.name} reads: cut "
                    "it, or train the judge on longer rows"
                )

    def _reads(self, prompt: Prompt, text: str) -> bool:
        return self.model is None or self.model.reads((*prompt.messages, Message("assistant", text)))

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> np.ndarray:
        """f64 [prompts, n]; -inf for an empty answer, which nothing is learnt from, and one that is too long."""
        told = [(i, j) for i, row in enumerate(texts) for j, text in enumerate(row) if text.strip()]
        where = [(i, j) for i, j in told if self._reads(prompts[i], texts[i][j])]
        self.num_too_long = len(told) - len(where)
        out = np.full((len(texts), len(texts[0])), -np.inf)
        if not where:
            return out
        if self.function is not None:
            values = []
            for i, group in itertools.groupby(where, key=lambda place: place[0]):
                one = prompts[i]
                answers = [Answer(one.messages[-1].content, texts[i][j], one.record, one.where) for _, j in group]
                values += list(call_function(self.function, answers, name=self.name, time_limit=self.time_limit))
        else:
            assert self.model is not None
            turns = [(*prompts[i].messages, Message("assistant", texts[i][j])) for i, j in where]
            values = self.model.reward(turns)
        for (i, j), value in zip(where, values, strict=True):
            out[i, j] = float(value)
        return out


def _write(path: str | Path, lines: Sequence[dict[str, Any]]) -> None:
    write_text(Path(path), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
