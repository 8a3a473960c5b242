"""Reinforcement learning from rewards: ``python -m experiments.ppo CONFIG [--field.sub value ...] [--run-dir DIR]``."""

import sys

from jaxlm.run.align.ppo import main
from jaxlm.run.cli import run_main

if __name__ == "__main__":
    sys.exit(run_main(main))
