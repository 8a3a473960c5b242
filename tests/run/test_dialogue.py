"""A dialogue in a model's chat template: what falls away, and what a refused turn changes."""

from types import SimpleNamespace
from typing import Any

import pytest

from jaxlm.core.errors import UserError
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.run.chat import Chat, Dialogue
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.template import ChatTemplate
from jaxlm.text.chat.templates import CHATML


@pytest.mark.parametrize("number", [0, -5])
def test_a_turn_of_no_tokens_is_refused(number):
    model: Any = SimpleNamespace(context=200)
    with pytest.raises(UserError, match=f"max_new_tokens={number} must be at least 1"):
        Chat(model, SamplingConfig(), 0, number)


def test_a_refused_turn_changes_nothing_and_the_oldest_falls_away():
    tokenizer = ByteTokenizer()
    form = ChatFormat(ChatTemplate("chatml", CHATML), tokenizer)
    model: Any = SimpleNamespace(context=200, tokenizer=tokenizer)
    talk = Dialogue(model, form, max_new_tokens=40)
    for said in ("one", "two"):
        talk.prompt_ids(said)
        talk.answered(tokenizer.encode("yes"))
    before = list(talk.messages)
    with pytest.raises(UserError, match="there is room for 160: say less"):
        talk.prompt_ids("x" * 300)
    assert talk.messages == before
    assert talk.forgot == 0
    talk.prompt_ids("y" * 90)
    assert talk.forgot > 0
    assert talk.messages[-1].content == "y" * 90
    assert len(talk.messages) < len(before) + 1
