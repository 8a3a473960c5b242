"""Tokens and masks against transformers' ``apply_chat_template``, conversation by conversation, in each template."""

import json
import warnings
from typing import Any

import pytest

from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Conversation, Message
from jaxlm.text.chat.template import ChatTemplate
from jaxlm.text.chat.templates import TEMPLATES
from tests.text.chat.tokenizers_for_chat import SETTINGS, hf_tokenizer, tokenizer_json

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers: Any = pytest.importorskip("transformers", reason="needs jaxlm[hf]")

pytestmark = pytest.mark.filterwarnings("ignore")

CONVERSATIONS = {
    "one turn": [("user", "One?"), ("assistant", "Two.")],
    "a system turn": [("system", "Be short."), ("user", "One?"), ("assistant", "Two.")],
    "several turns": [("user", "One?"), ("assistant", "Two."), ("user", "Three?"), ("assistant", "Four lines.")],
    "system and several": [
        ("system", "Speak as a model.\nBriefly."),
        ("user", "One"), ("assistant", "Two"), ("user", "3"), ("assistant", "4"),
    ],
    "the user last": [("user", "One?"), ("assistant", "Two."), ("user", "Three?")],
    "white space": [("user", "  One? \n\n"), ("assistant", " Two.  \n"), ("user", "\tx"), ("assistant", "a\n\nb")],
    "code": [("user", "def f(x):\n    return x"), ("assistant", "```\nf(1) # 1\n```")],
    "Chinese and more": [("user", "床前明月光?"), ("assistant", "疑是地上霜。🙂")],
    "Jinja as text": [("user", "{{ 7 * 7 }} {% raise %}"), ("assistant", "{# no #}")],
    "long": [("user", "word " * 200), ("assistant", "answer " * 150)],
}  # fmt: skip

UNTRIMMED = "{% for m in messages %}" + (
    "{%- if m['role'] == 'assistant' %}\n"
    "  {{- '<|im_start|>assistant\\n' }}\n"
    "  {%- generation %}\n"
    "    {{- m['content'] }}\n    {{- '<|im_end|>' }}\n"
    "  {%- endgeneration %}\n"
    "  {{- '\\n' }}\n"
    "{%- else %}\n"
    "  {{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- endfor %}"
)
ALL = TEMPLATES | {"by lines": ChatTemplate("by lines", UNTRIMMED)}


@pytest.fixture(scope="module")
def theirs():
    import tokenizers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer_json()), **SETTINGS
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_tokens_and_masks_are_theirs(theirs, name, conversation):
    messages = CONVERSATIONS[conversation]
    wanted = theirs.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        chat_template=ALL[name].source,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    found = ChatFormat(ALL[name], hf_tokenizer()).encode(Conversation(tuple(Message(*m) for m in messages)))
    assert found.tokens.tolist() == wanted["input_ids"]
    assert found.loss_mask.tolist() == wanted["assistant_masks"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_theirs(theirs, name):
    messages = CONVERSATIONS["system and several"][:4]
    wanted = theirs.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        chat_template=TEMPLATES[name].source,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    found = ChatFormat(TEMPLATES[name], hf_tokenizer()).prompt([Message(*m) for m in messages])
    assert found == wanted["input_ids"]


def test_the_tokenizers_are_the_same(theirs):
    assert theirs.convert_tokens_to_ids("<|im_end|>") == hf_tokenizer().special_tokens["<|im_end|>"]
    assert json.loads(tokenizer_json())["model"]["type"] == "BPE"
