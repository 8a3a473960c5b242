"""The ladder of ``ladder`` further up, on one GPU: from 1e13 FLOPs to 1e15, to predict one of 1e16.

    python -m experiments.scaling sweep ladder_gpu --processes 4
    python -m experiments.scaling predict ladder_gpu --times 10 --law lowest       # then the same with --train

Text, sizes, steps and rates follow the rules of ``ladder``; products are bfloat16's, and states f32 as there. The three
runs of 1e13 are of widths that ``ladder`` has too: they say how far apart the two are. Its largest step compiles for an
H100 (`tools.compile_gpu`); no run of it has been trained yet.
"""

import dataclasses

from configs import ladder
from jaxlm.run.ladder_config import LadderConfig


def config() -> LadderConfig:
    on_cpu = ladder.config()
    run = on_cpu.run
    return dataclasses.replace(
        on_cpu,
        name="A ladder over Python source, on a GPU",
        run=dataclasses.replace(
            run,
            name="ladder-gpu",
            model=dataclasses.replace(run.model, compute_dtype="bfloat16"),
            log_every=500,
            eval_batch_size=256,
        ),
        budgets=(1e13, 3.16e13, 1e14, 3.16e14, 1e15),
        widths=(80, 112, 144, 192, 240, 304),
        tokens_per_param=(1.4, 90.0),
    )
