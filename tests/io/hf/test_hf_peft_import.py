"""Adapters from PEFT's format: what was written comes back as the same change of the model."""

import json

import jax
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.hf.peft import export_peft
from jaxlm.io.hf.peft_import import import_peft
from jaxlm.models.lora import check_fits, merge
from tests.io.hf.test_hf_peft import CASES, case


@pytest.mark.parametrize("name", CASES)
def test_there_and_back_is_the_same_change(name, tmp_path):
    _, _, config, base, adapters, lora = case(name)
    export_peft(tmp_path / "adapter", config, adapters, lora)
    again, read = import_peft(tmp_path / "adapter", config)
    check_fits(base, again)
    assert read.rank == lora.rank  # of modules that hold several of our kernels each has its own rank back
    for ours, theirs in zip(
        jax.tree.leaves(merge(base, adapters, lora)), jax.tree.leaves(merge(base, again, read)), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


def test_what_is_no_adapter_of_this_model_is_refused(tmp_path):
    _, _, config, _, adapters, lora = case("qwen3")
    export_peft(tmp_path / "adapter", config, adapters, lora)
    with pytest.raises(UserError, match="cannot be read"):
        import_peft(tmp_path, config)
    with pytest.raises(UserError, match=r"belongs to another model|has no module|no adapter of this model"):
        import_peft(tmp_path / "adapter", case("gpt2")[2])
    path = tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(path.read_text())
    for change, words in (
        ({"use_dora": True}, "use_dora=True"),
        ({"peft_type": "IA3"}, "no LoRA"),
        ({"r": None}, "lacks r"),
    ):
        path.write_text(json.dumps(settings | change))
        with pytest.raises(UserError, match=words):
            import_peft(tmp_path / "adapter", config)
