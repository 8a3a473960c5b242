"""Run by an interpreter with torch, transformers and peft: logits of a base with an adapter directory.

    python peft_reference.py BASE ADAPTER TOKENS.npy OUT.npy

OUT.npy holds [2, b, t, v]: with the adapter beside the weights, and merged into them.
"""

import sys

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from peft import PeftModel  # pyright: ignore[reportMissingImports]
from transformers import AutoModelForCausalLM  # pyright: ignore[reportMissingImports]

base, adapter, tokens, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
model = PeftModel.from_pretrained(model, adapter).eval()
ids = torch.tensor(np.load(tokens))
with torch.no_grad():
    beside = model(ids).logits
    merged = model.merge_and_unload()(ids).logits
np.save(out, torch.stack([beside, merged]).numpy())
