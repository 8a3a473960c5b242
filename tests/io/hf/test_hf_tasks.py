"""Fine-tuned runs as Hugging Face's models for texts and for tokens, and what has no form there."""

import dataclasses
import json

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.data.examples import encode_rows
from jaxlm.io.hf.exporting import export_hf
from jaxlm.io.hf.tokenizer_files import write_hf_tokenizer
from jaxlm.io.run_dir import write_json
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.encoder_config import EncoderConfig
from tests.io.hf.directories import MODELS, VOCAB
from tests.io.hf.tuned_runs import BERT, TASKS, tuned_run


def out(run, target):
    lines = []
    return export_hf(run, target, say=lines.append, tick=lambda *_: None), lines


@pytest.mark.parametrize(
    ("kind", "table", "problem"),
    [
        ("classify", "bert_classify", "single_label_classification"),
        ("regress", "bert_classify", "regression"),
        ("tag", "bert_tag", None),
    ],
)
def test_written_as_their_models(tmp_path, kind, table, problem):
    """The tensors that transformers writes for such a model, and the labels."""
    _, params = tuned_run(tmp_path / "run", TASKS[kind])
    figures, lines = out(tmp_path / "run", tmp_path / "hf")
    assert figures["architecture"] == MODELS[table]["config"]["architectures"][0]
    assert any("left out: pooler/bias, pooler/kernel" in line for line in lines) == (kind == "tag")
    written = load_file(tmp_path / "hf" / "model.safetensors")
    outputs = 1 if kind == "regress" else 3
    heads = {"classifier.weight": (outputs, 16), "classifier.bias": (outputs,)}
    wanted = {name: tuple(shape) for name, shape in MODELS[table]["tensors"].items()} | heads
    assert {name: array.shape for name, array in written.items()} == wanted
    held = flatten_with_paths(params)
    np.testing.assert_array_equal(written["classifier.weight"], held["classifier/kernel"].T)
    np.testing.assert_array_equal(written["classifier.bias"], held["classifier/bias"])
    if kind != "tag":
        np.testing.assert_array_equal(written["bert.pooler.dense.weight"], held["pooler/kernel"].T)
    hf = json.loads((tmp_path / "hf" / "config.json").read_text())
    names = list(TASKS[kind].labels) or ["LABEL_0"]
    assert hf["id2label"] == {str(number): name for number, name in enumerate(names)}
    assert hf["label2id"] == {name: number for number, name in enumerate(names)}
    assert (hf.get("problem_type"), hf["classifier_dropout"]) == (problem, 0.1)


@pytest.mark.parametrize(
    ("task", "model", "match"),
    [
        (TASKS["regress"], dataclasses.replace(BERT, pooler=False), "reads the first token without one.*pooler=True"),
        (dataclasses.replace(TASKS["classify"], pooling="mean"), BERT, "reads the mean without one.*pooling='first'"),
        (TASKS["tag"], EncoderConfig(vocab_size=VOCAB, model_dim=16, num_layers=1), "nearest is BertForMaskedLM"),
        (TASKS["classify"], DecoderConfig(vocab_size=VOCAB, model_dim=16, num_heads=2, num_layers=1), "has a bias"),
    ],
)
def test_what_has_no_form_there_says_why(tmp_path, task, model, match):
    tuned_run(tmp_path / "run", task, model)
    with pytest.raises(UserError, match=match):
        out(tmp_path / "run", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("group", "value"),
    [("task", []), ("task", {}), ("task", {"kind": "sort"}), ("data", None), ("imported", 3)],
)
def test_a_config_with_groups_of_other_types(tmp_path, group, value):
    tuned_run(tmp_path / "run", TASKS["tag"])
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    record["config"][group] = value
    write_json(tmp_path / "run" / "config.json", record)
    with pytest.raises(UserError, match=f"config.{group}"):
        out(tmp_path / "run", tmp_path / "hf")


@pytest.mark.parametrize("texts", [("one",), ("one", "two")])
def test_texts_are_read_as_in_training(tmp_path, texts):
    """<bos> text <eos>, and of a pair text <eos> after it, of the second type."""
    ours = ByteTokenizer()
    assert write_hf_tokenizer(ours, tmp_path, add_bos=True, add_eos=True, say=print)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(*texts)
    rows = encode_rows(ours, [texts], seq_len=32, words=False, token_types=True).arrays
    assert theirs.ids == rows["tokens"][0].tolist()
    assert theirs.type_ids == rows["token_types"][0].tolist()
