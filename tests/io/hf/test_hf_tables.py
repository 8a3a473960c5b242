"""Our tables against what transformers itself writes: `transformers_models.json`, made by ``reference.py tables``."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlm.core.errors import UserError
from jaxlm.io.hf.exporting import export_hf
from jaxlm.io.hf.families import NO_MATTER
from jaxlm.io.hf.importing import import_hf, open_hf
from tests.io.hf.directories import MODELS, write_directory

SAID_OTHERWISE = {
    "gpt2": ("n_inner",),  # null for 4 n_embd: ours says the number
    "qwen3": ("max_window_layers",),  # these two by layer_types
    "gemma3": ("_sliding_window_pattern",),
    "qwen3_moe": ("num_local_experts",),  # num_experts, as the published files have it
}
"""Settings that our config.json expresses by others."""
FAMILIES = ("gpt2", "bert", "llama", "qwen3", "gemma3", "mixtral", "qwen3_moe")


def arrays_of(name):
    rng = np.random.default_rng(0)
    return {tensor: rng.standard_normal(shape, np.float32) for tensor, shape in MODELS[name]["tensors"].items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_exactly_their_tensors(tmp_path, name):
    """Import takes these tensors of these shapes, none left over; export writes them, values and all."""
    arrays = arrays_of(name)
    source = write_directory(tmp_path / "hf", MODELS[name]["config"], arrays)
    opened = open_hf(source)
    assert {piece.tensor: list(piece.shape) for piece in opened.pieces} == MODELS[name]["tensors"]
    assert not opened.accounted.left_out
    import_hf(source, tmp_path / "run", say=print, tick=lambda *_: None)
    export_hf(tmp_path / "run", tmp_path / "back", say=print, tick=lambda *_: None)
    written = load_file(tmp_path / "back" / "model.safetensors")
    assert written.keys() == arrays.keys()
    for tensor, array in arrays.items():
        np.testing.assert_array_equal(written[tensor], array)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tensor_of_another_name_is_refused(tmp_path, name):
    arrays = arrays_of(name)
    last = sorted(arrays)[-1]
    arrays[f"{last}s"] = arrays.pop(last)
    with pytest.raises(UserError, match=f"lack tensor {last}"):
        open_hf(write_directory(tmp_path / "hf", MODELS[name]["config"], arrays))


@pytest.mark.parametrize("name", FAMILIES)
def test_exactly_their_settings(tmp_path, name):
    """What decides a model in their config.json, ours says alike."""
    config = MODELS[name]["config"]
    source = write_directory(tmp_path / "hf", config, arrays_of(name))
    import_hf(source, tmp_path / "run", say=print, tick=lambda *_: None)
    export_hf(tmp_path / "run", tmp_path / "back", say=print, tick=lambda *_: None)
    ours = json.loads((tmp_path / "back" / "config.json").read_text())
    wanted = {key: value for key, value in config.items() if key not in (*NO_MATTER, *SAID_OTHERWISE.get(name, ()))}
    assert {key: ours.get(key) for key in wanted} == wanted
