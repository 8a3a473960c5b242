"""``python -m tools.plan align NAME``: what each stage from text to an aligned model costs, pretraining to PPO.

A table goes to stderr, one JSON object to stdout. See docs/plan.md.
"""

import json
import math
import sys
from typing import Any

from jaxlm.core.errors import UserError
from jaxlm.io.page import text_table
from jaxlm.models.presets import PRESETS, preset
from jaxlm.plan.alignment import LLAMA_70B, AlignmentSizes, describe_plan, plan_on_chip
from jaxlm.plan.topology import CHIPS
from jaxlm.run.parsers import Parser

PROG = "python -m tools.plan align"
KINDS = {kind: kind for kind in ("H200", "H100", "A100", "L4")} | {name: f"TPU {name}" for name in CHIPS}
"""As a user names it, TPUs as in the other plans -> as jax does."""
WORDS = {
    "pretrain_tokens": "tokens of pretraining",
    "pretrain_seq_len": "tokens in a row of it",
    "sft_tokens": "tokens of SFT, all passes",
    "seq_len": "tokens in a row of SFT",
    "reward_pairs": "comparisons that the reward model learns from",
    "prompt_tokens": "of a prompt, mean",
    "answer_tokens": "of an answer, mean",
    "rollouts": "rollouts of PPO",
    "answers": "answers in a rollout",
    "decoded_together": "answers that share one reading of the weights",
}


def main(argv: list[str]) -> int:
    """``NAME [--chip KIND] [--mfu U] [sizes]``. Raises UserError for an unknown name or an impossible size."""
    options = _parser().parse_args(argv)
    config = preset(options.name)
    if options.chip not in KINDS:
        raise UserError(f"--chip {options.chip!r} is not known: there are {', '.join(KINDS)}")
    if not 0 < options.mfu <= 1:
        raise UserError(f"--mfu {options.mfu:g} is a share of the peak: give one above 0, at most 1")
    sizes = AlignmentSizes(**{name: _size(name, getattr(options, name)) for name in WORDS})
    if max(sizes.pretrain_seq_len, sizes.seq_len, sizes.prompt_tokens + sizes.answer_tokens) > config.max_seq_len:
        raise UserError(
            f"rows of {sizes.pretrain_seq_len} and {sizes.seq_len} tokens, answers of "
            f"{sizes.prompt_tokens + sizes.answer_tokens} with their prompts: the context of {options.name} is "
            f"{config.max_seq_len}; give a shorter --pretrain-seq-len and --seq-len"
        )
    on: dict[str, Any] = {"chip": KINDS[options.chip], "utilisation": options.mfu}
    stages, about = plan_on_chip(config, sizes, **on), describe_plan(options.name, sizes, **on)
    total = sum(one["flops"] for one in stages)
    rows = [
        (one["stage"], f"{one['flops']:.3g}", f"{one['flops'] / total:.4%}", f"{one['seconds'] / 86400:,.4g}")
        for one in stages
    ]
    print(about, file=sys.stderr)
    print(text_table(("stage", "FLOPs", "share", "accelerator-days"), rows), file=sys.stderr)
    print(json.dumps({"model": options.name, "about": about, "stages": stages}))
    return 0


def _size(name: str, value: Any) -> Any:
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"--{name.replace('_', '-')} {value:g} must be above 0")
    return value


def _parser() -> Parser:
    parser = Parser(prog=PROG, description="what each stage from text to an aligned model costs")
    parser.add_argument("name", metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument("--chip", default="H100", help=f"{', '.join(KINDS)}; default %(default)s")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the bf16 peak that is reached; %(default)s")
    for name, words in WORDS.items():
        value: Any = getattr(LLAMA_70B, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"{words}; default %(default)g"
        )
    return parser
