"""The ``jaxlm`` command: a table of subcommands, and how their errors end."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

import jaxlm
from jaxlm.core.errors import UserError, full_disk_line, is_full_disk
from jaxlm.run.heap import share_one_heap
from jaxlm.run.libtpu import quiet_without_tpu

Main = Callable[[list[str]], int]

COMMANDS: dict[str, tuple[str, str]] = {
    "corpus": ("jaxlm.run.corpus.build:main", "collect, clean, deduplicate and mix text: jaxlm corpus CONFIG"),
    "pretrain": ("jaxlm.run.pretrain:main", "train a language model: jaxlm pretrain CONFIG [--field.sub value ...]"),
    "finetune": ("jaxlm.run.finetune:main", "teach it a task from labelled data: jaxlm finetune CONFIG --base RUN"),
    "sft": ("jaxlm.run.align.sft:main", "teach it to answer, from conversations: jaxlm sft CONFIG --base RUN"),
    "reward": ("jaxlm.run.align.reward:main", "a model that judges answers: jaxlm reward CONFIG --base RUN"),
    "best-of": (
        "jaxlm.run.align.best_of:main",
        "the best of n answers, to tune on: jaxlm best-of RUN --prompts FILE --judge JUDGE --out FILE",
    ),
    "ppo": ("jaxlm.run.align.ppo:main", "reinforcement learning from rewards: jaxlm ppo CONFIG --base RUN"),
    "dpo": (
        "jaxlm.run.align.dpo:main",
        "fit it to preferences, by pairs or judged answers: jaxlm dpo CONFIG --base RUN",
    ),
    "align": (
        "jaxlm.run.align.road:main",
        "the whole road on a made-up world, text to aligned models side by side: jaxlm align CONFIG",
    ),
    "mixture": ("jaxlm.run.mixture:main", "which mixture of sources to train on, by small runs: jaxlm mixture CONFIG"),
    "cleaning": ("jaxlm.run.cleaning_study:main", "what each cleaning step is worth: jaxlm cleaning CONFIG"),
    "tokenizers": ("jaxlm.run.tokenizer_study:main", "tokenizers side by side on your text: jaxlm tokenizers CONFIG"),
    "generations": (
        "jaxlm.run.generations:main",
        "n-gram, RNN, LSTM, GRU, decoder and encoder side by side: jaxlm generations CONFIG",
    ),
    "small-large": (
        "jaxlm.run.small_large:main",
        "a small model tuned against a larger one prompted: jaxlm small-large CONFIG --large RUN",
    ),
    "supervise": (
        "jaxlm.run.supervise:main",
        "start a training run again when its process dies: jaxlm supervise pretrain CONFIG --run-dir DIR",
    ),
    "transfer": ("jaxlm.run.transfer:main", "the best rate by width, with and without muP: jaxlm transfer CONFIG"),
    "scaling": ("jaxlm.run.scaling:main", "scaling laws of finished runs: jaxlm scaling fit --csv FILE --columns ..."),
    "lr-finder": ("jaxlm.run.lr_finder:main", "a learning rate, by raising it step by step: jaxlm lr-finder CONFIG"),
    "coordinates": ("jaxlm.run.coordinates:main", "the coordinate check of muP: jaxlm coordinates CONFIG"),
    "generate": ("jaxlm.run.generate:main", "complete prompts: jaxlm generate RUN --prompt 'Once upon'"),
    "chat": ("jaxlm.run.chat:main", "write with a model in the terminal: jaxlm chat RUN"),
    "evaluate": (
        "jaxlm.run.evaluate:main",
        "what a model can do: jaxlm evaluate RUN --tasks lambada,blimp --data DIR [--shots K]",
    ),
    "emergence": (
        "jaxlm.run.laboratory.laboratory:main",
        "a laboratory: how abilities come in small models, with pictures: jaxlm emergence CONFIG",
    ),
    "report": ("jaxlm.run.report:main", "write a run's report.html again: jaxlm report RUN"),
    "inspect": ("jaxlm.run.pretrain:inspect_main", "show decoded batches, masks and segments: jaxlm inspect CONFIG"),
    "doctor": ("jaxlm.run.doctor:main", "what this machine has, and what is wrong with it: jaxlm doctor"),
}
"""Name -> (module:function, what it does). The module is imported when the command is run."""


def main(argv: Sequence[str] | None = None) -> int:
    """``jaxlm COMMAND ...``; returns the exit code: 0, 1 (the run failed), 2 (bad input) or 130 (interrupted)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_main(_dispatch, argv)


def run_main(main_fn: Main, argv: Sequence[str] | None = None) -> int:
    """Runs the main function of a command, its errors turned into one line on stderr and an exit code.

    Scripts end with ``sys.exit(run_main(main))``.
    """
    quiet_without_tpu()
    share_one_heap()
    try:
        return main_fn(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) left: no error, but the interpreter must not flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if not is_full_disk(error):
            raise
        print(f"error: {full_disk_line(error)}", file=sys.stderr)
        return 2


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"jaxlm {jaxlm.__version__}")
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        from jaxlm.io.config_json import near_names

        raise UserError(f"unknown command {name!r}{near_names(name, COMMANDS)} (there are {', '.join(COMMANDS)})")
    module, _, function = COMMANDS[name][0].partition(":")
    return getattr(importlib.import_module(module), function)(rest)


def usage() -> str:
    """The text of ``jaxlm --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            f"jaxlm {jaxlm.__version__}: language models in JAX",
            "",
            "usage: jaxlm COMMAND ...    (jaxlm COMMAND --help shows its options)",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
