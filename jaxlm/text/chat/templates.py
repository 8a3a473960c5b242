"""The chat formats that are built in, as Jinja. ``{% generation %}`` encloses what the model must say itself: its words
and the symbol that ends its turn, and no line break that the format puts after it.
"""

from jaxlm.text.chat.template import ChatTemplate

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""OpenAI 2023. The symbols are among those that every tokenizer trained here reserves."""

LLAMA3 = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message.content | trim + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
"""Meta 2024, without tools and dates."""

GEMMA = (
    "{{ bos_token }}"
    "{% set system = messages[0].content | trim + '\\n\\n' if messages[0].role == 'system' else '' %}"
    "{% set turns = messages[1:] if system else messages %}"
    "{% for message in turns %}"
    "{% if message.role == 'tool' or (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Gemma has the user and the assistant speak in turn, the user first') }}"
    "{% endif %}"
    "{% if message.role == 'assistant' %}"
    "{{ '<start_of_turn>model\\n' }}"
    "{% generation %}{{ message.content | trim + '<end_of_turn>' }}{% endgeneration %}"
    "{% else %}"
    "{{ '<start_of_turn>user\\n' + (system if loop.first else '') + message.content | trim + '<end_of_turn>' }}"
    "{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
"""Google 2024. There is no system turn: it stands before the first user's words, as Gemma 3 has it."""

ALPACA = (
    "{% set lead = 'Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.' %}"
    "{% set turns = messages %}"
    "{% if messages[0].role == 'system' %}"
    "{% set lead = messages[0].content %}{% set turns = messages[1:] %}"
    "{% endif %}"
    "{{ bos_token + lead }}"
    "{% for message in turns %}"
    "{% if message.role == 'assistant' %}"
    "{{ '\\n\\n### Response:\\n' }}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{% elif message.role == 'user' %}{{ '\\n\\n### Instruction:\\n' + message.content }}"
    "{% else %}{{ raise_exception('Alpaca has no turn of a tool') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n### Response:\\n' }}{% endif %}"
)
"""Taori et al. 2023, in the form without input, and with later turns set like the first. The tokenizer's end of text
ends an answer: its headings are ordinary text."""

TEMPLATES: dict[str, ChatTemplate] = {
    name: ChatTemplate(name, source)
    for name, source in {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "alpaca": ALPACA}.items()
}
