"""GPT-3 175B on 1,024 chips of TPU v5p at its own batch, 3.2 million tokens (Brown et al. 2020, table 2.1).

python -m tools.compile_tpu gpt3_175b --topology v5p:8x8x16
"""

import dataclasses

from configs.gpt3 import gpt3_175b
from jaxlm.run.config import PretrainConfig


def config() -> PretrainConfig:
    return dataclasses.replace(gpt3_175b(), loss_chunk=512)
