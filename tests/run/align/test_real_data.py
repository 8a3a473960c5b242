"""Real conversations through the preparation of a run: nothing is lost silently, prompts stay on one side."""

import pytest

from jaxlm.models.decoder import DecoderConfig
from jaxlm.run.align.config import RecordsConfig
from jaxlm.run.align.records import first_prompt, is_held_out
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.run.align.sft_data import prepare_conversations
from jaxlm.text.tokenizer import TokenizerConfig

FILES = {
    "sft/alpaca_seed_tasks.jsonl": 175,
    "chinese/belle_zh_seed_tasks.jsonl": 175,
    "sft/t0_templates/trec_trec1.jsonl": 200,
    "sft/alpaca_eval/text_davinci_001.model_outputs.json": 552,
}


@pytest.mark.parametrize("name", FILES)
def test_every_record_is_learnt_from_held_out_or_named(name, shared_data):
    from jaxlm.io.conversations import read_conversations

    path = shared_data / name
    config = SftConfig(
        model=DecoderConfig(num_layers=1, model_dim=16, num_heads=2, max_seq_len=2048),
        tokenizer=TokenizerConfig(kind="byte"),
        data=RecordsConfig(train=(str(path),), seq_len=2048, on_bad="skip"),
        num_steps=100,
    )
    said: list[str] = []
    made = prepare_conversations(config, said.append)
    kept = len(made.train.doc_offsets) - 1, len(made.validation.doc_offsets) - 1
    passed = [line for line in said if line.endswith("bad records passed over")]
    assert sum(kept) + (int(passed[0].split()[0]) if passed else 0) == FILES[name]
    assert 0 < kept[1] < kept[0]
    prompts = [first_prompt(one.messages) for one in read_conversations(path, on_bad=lambda error: None)]
    held_out = {prompt for prompt in prompts if is_held_out(prompt, 0.1)}
    assert 0 < len(held_out) < len(set(prompts))
    assert made.train.num_counted > 0
    decoded = made.tokenizer.decode(made.train.tokens[: made.train.doc_offsets[1]])
    assert decoded.startswith("user\n")  # the first turn, its symbol left out
