"""``jaxlm generate`` and ``jaxlm chat``, as functions and as real processes."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from jaxlm.core.errors import UserError
from jaxlm.run.align.best_of import main as best_of_main
from jaxlm.run.causal_lm import CausalLM, make_sampling
from jaxlm.run.chat import Chat, Continuation
from jaxlm.run.chat import main as chat_main
from jaxlm.run.chat import make_parser as chat_parser
from jaxlm.run.devices import cache_root
from jaxlm.run.generate import main, read_prompts
from jaxlm.run.handle import load
from tools.judge import main as judge_main
from tools.text_scores import main as text_scores_main

ENV = os.environ | {"JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run):
    path = tmp_path_factory.mktemp("runs") / "byte"
    make_run(path)
    return path


def test_the_last_stdout_line_is_one_json_object(run, capsys, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("or\n\nnot\r\n")
    options = [
        "--prompts-file",
        str(prompts),
        "--max-new-tokens",
        "5",
        "--seed",
        "3",
        "--num-samples",
        "2",
        "--top-k",
        "9",
    ]
    assert main([str(run), "--prompt", "to be", *options]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)  # nothing else on stdout
    assert [c["prompt"] for c in record["completions"]] == ["to be", "to be", "or", "or", "not", "not"]
    assert record["step"] == 7
    assert record["num_tokens"] == sum(c["num_tokens"] for c in record["completions"])
    assert "--- 'to be'" in err

    assert main([str(run), "--prompt", "to be", "--prompt", "or", "--prompt", "not", *options[2:], "--json"]) == 0
    out, err = capsys.readouterr()
    again = json.loads(out)
    assert [c["text"] for c in again["completions"]] == [c["text"] for c in record["completions"]]
    assert not err
    assert all(len(c["logprobs"]) == len(c["tokens"]) == c["num_tokens"] for c in again["completions"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "x" * 50], r"prompts\[0\] has 51 tokens, more than the context of 32"),
        (["--top-p", "7"], "top_p=7.0"),
        (["--temperature", "warm"], "invalid float value: 'warm'"),
        (["--seed", "-4"], "seed=-4"),
        (["--prompts-file", "/nowhere/p.txt"], "/nowhere/p.txt cannot be read"),
        (["--tempreature", "1"], "unrecognized arguments"),
        (["--step", "5"], "no checkpoint for step 5"),
    ],
)
def test_bad_input_is_one_clear_error(run, options, message):
    with pytest.raises(UserError, match=message):
        main([str(run), *options])


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (main, ["RUN"]),
        (chat_main, ["RUN"]),
        (best_of_main, ["RUN", "--prompts", "lines.jsonl", "--judge", "RUN", "--out", "out.jsonl"]),
        (judge_main, ["--answers", "lines.jsonl", "--reference", "lines.jsonl", "--judge", "RUN"]),
        (text_scores_main, ["show", "RUN", "--text", "lines.jsonl"]),
    ],
)
def test_commands_that_open_a_model_keep_its_programs(command, argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = {"prompt": "to", "output": "be", "text": "to be"}
    (tmp_path / "lines.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "RUN").mkdir()
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        with pytest.raises(UserError, match="RUN"):  # it holds no model
            command(argv)
        assert jax.config.values["jax_compilation_cache_dir"] == str(cache_root() / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_prompts_files(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a\\nb"}\n{"text": 1}\n')
    with pytest.raises(UserError, match=r'p\.jsonl line 2: no text under "prompt"'):
        read_prompts(path)
    path.write_text('{"prompt": "a\\nb"}\n\n')
    assert read_prompts(path) == ["a\nb"]
    text = tmp_path / "p.txt"
    text.write_bytes(b"fine\n\xff\n")
    with pytest.raises(UserError, match=r"p\.txt line 2: .*utf-8"):
        read_prompts(text)
    text.write_text("\n\n")
    with pytest.raises(UserError, match="holds no prompt"):
        read_prompts(text)


def make_chat(run, *options):
    args = chat_parser().parse_args([str(run), "--max-new-tokens", "6", *options])
    model = load(run)
    assert isinstance(model, CausalLM)
    return Chat(model, make_sampling(args.temperature), args.seed, args.max_new_tokens)


def text_of(chat):
    """Token ids of all that was said, of a model that goes on from a text."""
    assert isinstance(chat.conversation, Continuation)
    return chat.conversation.ids


def test_chat_goes_on_from_its_own_text_and_commands_do_what_they_say(run, capsys):
    chat = make_chat(run)
    said = []
    chat.reply("to be", said.append)
    ids = list(text_of(chat))
    assert ids[:6] == [chat.model.tokenizer.bos_id, *chat.model.tokenizer.encode("to be")]
    assert 6 < len(ids) <= 12
    chat.reply(", or", said.append)
    assert text_of(chat)[: len(ids) + 4] == ids + chat.model.tokenizer.encode(", or")
    assert chat.turn == 2

    assert chat.command("/reset")
    assert text_of(chat) == [chat.model.tokenizer.bos_id]
    assert chat.command("/seed 0")
    assert chat.turn == 0
    again = []
    chat.reply("to be", again.append)
    assert text_of(chat) == ids  # the same seed and text: the same reply
    assert chat.command("/temperature 0")
    assert chat.sampling.temperature == 0
    assert "/reset" in (chat.command("/help") or "")
    assert chat.command("/quit") is None
    for bad in ("/temperature hot", "/temperature -1", "/seed", "/nonsense", "/seed '"):
        with pytest.raises(UserError):
            chat.command(bad)

    for _ in range(4):
        chat.reply("that is the question", said.append)  # the context of 32 fills up
    assert "oldest are forgotten" in capsys.readouterr().err
    assert len(text_of(chat)) <= 32
    with pytest.raises(UserError, match="max_new_tokens=32 leaves no room in the context of 32"):
        make_chat(run, "--max-new-tokens", "32")


def test_ctrl_c_stops_the_writing_only(run):
    chat = make_chat(run)
    said = []

    def interrupted(text):
        said.append(text)
        if len(said) == 2:
            raise KeyboardInterrupt

    chat.reply("to be", interrupted)
    assert len(said) == 2
    assert len(text_of(chat)) == 1 + 5 + 2


def test_real_processes(run):
    """A pipe of lines into chat, a Ctrl-C in it, and what generate's errors look like from a shell."""
    chat = subprocess.Popen(
        [sys.executable, "-m", "jaxlm", "chat", str(run), "--max-new-tokens", "20", "--temperature", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENV,
    )
    bad = subprocess.run(
        [sys.executable, "-m", "jaxlm", "generate", str(run), "--prompt", "x" * 50],
        capture_output=True,
        text=True,
        env=ENV,
    )
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.splitlines()[-1].startswith("error: prompts[0] has 51 tokens")

    try:
        assert chat.stdin
        assert chat.stdout
        assert chat.stderr
        assert b"/help lists the commands" in chat.stderr.readline()
        chat.send_signal(signal.SIGINT)  # at the prompt: a hint, no more
        time.sleep(0.5)
        chat.stdin.write(b"/temperature 0.5\n/bogus\nto be\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)  # writing has begun
        chat.send_signal(signal.SIGINT)
        out, err = chat.communicate(b"or not\n/quit\nunread\n", timeout=120)
    finally:
        chat.kill()
    assert chat.returncode == 0
    assert b"temperature 0.5" in err
    assert b"unknown command /bogus" in err
    assert out.endswith(b"\n")
    assert b"/quit or Ctrl-D leaves" in err
    assert b"Traceback" not in err
