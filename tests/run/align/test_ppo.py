"""Reinforcement learning as people run it: it learns, resumes to the bit, and refuses in one line."""

import dataclasses
import json
import shutil
import time

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.core.errors import STOPPED_CODE, UserError
from jaxlm.generate.rollout import sample_answers
from jaxlm.io.config_json import config_to_dict
from jaxlm.io.run_dir import text_of
from jaxlm.io.tokenizers import ByteTokenizer, load_tokenizer
from jaxlm.models.lora import LoraConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.config import RecordsConfig
from jaxlm.run.align.ppo import PolicyRun, ppo
from jaxlm.run.align.ppo_config import CriticConfig, PpoConfig, PromptsConfig, RewardConfig, RolloutConfig
from jaxlm.run.align.ppo_data import prepare
from jaxlm.run.align.reward import reward
from jaxlm.run.align.reward_config import RewardModelConfig
from jaxlm.run.align.reward_functions import answer_text
from jaxlm.run.training import exit_code
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from jaxlm.text.chat.encoding import ChatFormat
from jaxlm.text.chat.messages import Message
from jaxlm.text.chat.template import ChatTemplate
from jaxlm.text.chat.templates import CHATML
from jaxlm.train.collapse import CollapseConfig
from jaxlm.train.policy_objectives import CRITIC
from jaxlm.train.rollouts import KlConfig
from tests.run.align.policy_runs import exactly_right, right_answer, write_base, write_prompts, write_rankings
from tests.run.commands import saved

FUNCTIONS = {"right": right_answer, "gold": exactly_right}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("base")
    write_base(root / "base", num_steps=40, model_dim=32, num_layers=1, num_kv_heads=2, vocab_multiple=2)
    write_prompts(root / "train.jsonl", 40, 1)
    write_prompts(root / "validation.jsonl", 12, 2)
    return root


def config(root, algorithm="grpo", **fields):
    whole = {
        "base": str(root / "base"),
        "algorithm": algorithm,
        "prompts": PromptsConfig((str(root / "train.jsonl"),), (str(root / "validation.jsonl"),)),
        "rewards": (RewardConfig("right", function="right"), RewardConfig("gold", 0.0, function="gold")),
        "rollout": RolloutConfig(num_prompts=4 if algorithm != "ppo" else 16, group_size=None, max_new_tokens=8),
        "optimizer": OptimizerConfig(peak_lr=1e-3, schedule="constant", b2=0.999, weight_decay=0.0),
        "num_rollouts": 4, "num_minibatches": 2, "ppo_epochs": 2, "log_every": 4,
        "mesh": MeshConfig(data=8),
    }  # fmt: skip
    return PpoConfig(**(whole | fields))


def lines(run_dir, prefix="rollout/"):
    """What was logged of each rollout, by step."""
    found = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    kept = [{k: v for k, v in line.items() if k == "step" or k.startswith(prefix)} for line in found]
    return [line for line in kept if len(line) > 1]


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A finished run of PPO, whose steps go on within a rollout."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    figures = ppo(config(base, "ppo", kl=KlConfig(coef=0.1, target=2.0)), run_dir, functions=FUNCTIONS)
    return run_dir, figures


def test_a_run_says_what_rollouts_were_like(whole):
    run_dir, figures = whole
    assert figures["step"] == 16
    assert [line["step"] for line in lines(run_dir)] == [1, 5, 9, 13]
    assert figures["rollout/gap_max"] < 1e-5
    assert figures["rollout/reward"] == pytest.approx(figures["rollout/score/right"])
    assert 0 < figures["perf/rollout_share"] < 1
    coefs = [line["rollout/kl_coef"] for line in lines(run_dir)]
    assert coefs[0] == pytest.approx(0.1)
    assert len(set(coefs)) == 4
    assert "eval/score/gold" in figures
    samples = [json.loads(line) for line in (run_dir / "samples.jsonl").read_text().splitlines()]
    assert {sample["rollout"] for sample in samples} == {0, 1, 2, 3}
    assert set(samples[0]["scores"]) == {"right", "gold"}
    assert jaxlm.load(run_dir).generate(["abcd"], max_new_tokens=2)
    page = (run_dir / "report.html").read_text()
    assert "KL to the reference" in page


@pytest.mark.slow
def test_an_interrupted_run_ends_bit_for_bit_as_one_that_was_not(whole, base, tmp_path):
    """A reward that fails in the third rollout leaves the state that two have made."""
    run_dir, _ = whole
    calls = []

    def fails(prompts, answers, records):
        calls.append(len(answers))
        if len(calls) == 3:
            raise ValueError("the judge is asleep")
        return right_answer(prompts, answers, records)

    asked = config(base, "ppo", kl=KlConfig(coef=0.1, target=2.0))
    with pytest.raises(UserError, match=r"the judge is asleep.* 16 answers together"):
        ppo(asked, tmp_path / "run", functions={"right": fails, "gold": exactly_right})
    assert saved(tmp_path / "run")[1]["data"]["cursor"] == 8
    ppo(asked, tmp_path / "run", functions=FUNCTIONS)
    assert lines(tmp_path / "run") == lines(run_dir)
    (ours, meta), (theirs, whole_meta) = saved(tmp_path / "run"), saved(run_dir)
    assert meta == whole_meta
    for name, value in theirs.items():
        assert ours[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize(
    "algorithm", ["grpo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dr_grpo", "rloo"))]
)
def test_the_first_step_of_a_group_algorithm_clips_nothing(base, tmp_path, algorithm):
    figures = ppo(
        config(base, algorithm, num_rollouts=1, ppo_epochs=1, num_minibatches=1, log_every=1),
        tmp_path / "run",
        functions=FUNCTIONS,
    )
    assert figures["train/term/clip_fraction"] == 0
    assert figures["train/term/old_kl"] == pytest.approx(0, abs=1e-6)
    assert figures["rollout/kl"] == pytest.approx(0, abs=1e-4), "the policy is the reference"


@pytest.mark.slow
def test_a_mesh_draws_and_learns_the_same(base, tmp_path):
    def first(name, mesh, rows_at_once):
        rollout = RolloutConfig(num_prompts=16, max_new_tokens=8, rows_at_once=rows_at_once)
        ppo(
            config(base, "ppo", num_rollouts=2, ppo_epochs=1, mesh=mesh, rollout=rollout),
            tmp_path / name,
            functions=FUNCTIONS,
        )
        return lines(tmp_path / name)

    copies = first("copies", MeshConfig(data=8), None)
    split = first("split", MeshConfig(data=2, fsdp=2, model=2), 8)
    for one, other in zip(copies, split, strict=True):
        gaps = {name: (one.pop(name), other.pop(name)) for name in list(one) if "gap" in name or "sampler" in name}
        assert one == pytest.approx(other, rel=2e-3, abs=2e-5)
        assert max(gaps["rollout/gap_max"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["all", "lora"])
def test_a_reward_run_gives_what_its_own_handle_gives(tmp_path, tune):
    base = tmp_path
    write_base(base / "base", num_steps=120, num_layers=1)
    write_prompts(base / "train.jsonl", 40, 1)
    taught = RewardModelConfig(
        base=str(base / "base"), num_steps=4, global_batch_size=8, tune=tune,
        data=RecordsConfig((str(write_rankings(tmp_path / "pairs.jsonl", 60, 3)),), seq_len=40),
        lora=LoraConfig(rank=2, targets=(r"/attn/.*kernel$",)), optimizer=OptimizerConfig(peak_lr=1e-2),
    )  # fmt: skip
    reward(taught, tmp_path / "reward")
    rewards = (RewardConfig("model", run=str(tmp_path / "reward")), RewardConfig("gold", 0.0, function="gold"))
    sampled = RolloutConfig(num_prompts=16, max_new_tokens=8, num_samples=16)
    ppo(
        config(
            base,
            "ppo",
            rewards=rewards,
            rollout=sampled,
            num_rollouts=1,
            prompts=PromptsConfig((str(base / "train.jsonl"),)),
        ),
        tmp_path / "run",
        functions=FUNCTIONS,
    )
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    # What is no text is written otherwise than it was drawn; bytes that are have one way to be written.
    ended = [one for one in samples if not one["truncated"] and one["completion"].isascii() and one["completion"]]
    assert len(ended) >= 3
    turns = [
        [{"role": "user", "content": one["prompt"]}, {"role": "assistant", "content": one["completion"]}]
        for one in ended
    ]
    want = jaxlm.load(tmp_path / "reward").reward(turns)
    np.testing.assert_allclose([one["scores"]["model"] for one in ended], want, atol=1e-5)
    record = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert record["rewards"][0]["run_step"] == 4


@pytest.mark.slow
def test_a_critic_may_start_from_a_reward_model(base, tmp_path):
    taught = RewardModelConfig(
        base=str(base / "base"), num_steps=2, global_batch_size=8, mesh=MeshConfig(data=8),
        data=RecordsConfig((str(write_rankings(tmp_path / "pairs.jsonl", 20, 3)),), seq_len=40),
        optimizer=OptimizerConfig(peak_lr=1e-2),
    )  # fmt: skip
    reward(taught, tmp_path / "reward")
    asked = config(
        base, "ppo", rewards=(RewardConfig("model", run=str(tmp_path / "reward")),), critic=CriticConfig(reward="model")
    )
    prepared = prepare(asked, lambda line: None, resumes=False, functions=FUNCTIONS)
    mesh = make_mesh(asked.mesh, jax.devices())
    with jax.set_mesh(mesh):
        params = jax.tree.map(np.asarray, PolicyRun(prepared, mesh).fresh_state().params)
    critic, judge = params[CRITIC], prepared.reward_models["model"].params
    for name in sorted(set(critic) - {"classifier"}):
        jax.tree.map(np.testing.assert_array_equal, critic[name], jax.tree.map(np.asarray, judge[name]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(critic["classifier"]))
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (critic["embed"], params["embed"])), strict=True)]
    assert any(moved), "it has been taught since"

    write_base(tmp_path / "wider", num_steps=2, model_dim=48, num_layers=1, num_kv_heads=2, vocab_multiple=2)
    said = refusal(
        base, tmp_path, algorithm="ppo", rewards=asked.rewards, critic=asked.critic, base=str(tmp_path / "wider")
    )
    assert "not shaped as the policy's" in said


@pytest.mark.slow
def test_it_learns(tmp_path):
    write_base(tmp_path / "base", num_steps=300)
    write_prompts(tmp_path / "train.jsonl", 128, 1)
    asked = config(
        tmp_path, rollout=RolloutConfig(num_prompts=16, max_new_tokens=8), num_rollouts=60, ppo_epochs=1, log_every=20,
        kl=KlConfig(coef=0.01), prompts=PromptsConfig((str(tmp_path / "train.jsonl"),)),
    )  # fmt: skip
    ppo(asked, tmp_path / "run", functions=FUNCTIONS)
    right = [line["rollout/score/gold"] for line in lines(tmp_path / "run")]
    assert np.mean(right[-5:]) > np.mean(right[:5]) + 0.25


def test_collapse_stops_the_run_with_its_cause(base, tmp_path):
    asked = config(base, collapse=CollapseConfig(max_kl=1e-6, patience=2))
    figures = ppo(asked, tmp_path / "run", functions=FUNCTIONS)
    assert "the KL to the reference has run away" in figures["diagnosis"]
    assert exit_code(figures) == STOPPED_CODE
    assert not (tmp_path / "run" / "done.json").exists()
    assert "run stopped" in (tmp_path / "run" / "report.html").read_text()


def nothing(prompts, answers, records):
    return [0.0] * len(answers)


def not_a_number(prompts, answers, records):
    return [float("nan") if record["answer"] == records[-1]["answer"] else 0.0 for record in records]


def too_few(prompts, answers, records):
    return [0.0]


def raises(prompts, answers, records):
    return [1 / 0 if record["answer"] == records[-1]["answer"] else 0.0 for record in records]


def hangs(prompts, answers, records):
    time.sleep(3)
    return [0.0] * len(answers)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        pytest.param(
            not_a_number,
            r"returned nan for an answer to .*train.jsonl line \d+, no finite number",
            marks=pytest.mark.slow,
        ),
        pytest.param(too_few, "returned 1 numbers for 32 answers", marks=pytest.mark.slow),
        (raises, r"raised ZeroDivisionError: division by zero for an answer to .*train.jsonl line \d+"),
        (hangs, r"took longer than its time_limit=0.2 seconds for an answer to .*train.jsonl line \d+"),
    ],
)
def test_a_function_that_fails_is_one_line_with_the_record(base, tmp_path, function, words):
    asked = config(base, rewards=(RewardConfig("mine", function="mine", time_limit=0.2),), num_rollouts=1)
    with pytest.raises(UserError, match=words):
        ppo(asked, tmp_path / "run", functions={"mine": function})
    assert saved(tmp_path / "run")[1]["data"]["cursor"] == 0, "its state is kept"


def refusal(root, tmp_path, **fields):
    with pytest.raises(UserError) as refused:
        ppo(config(root, **fields), tmp_path / "run", functions=FUNCTIONS, dry_run=True)
    return str(refused.value)


def test_bad_input_is_refused_beforehand(base, tmp_path):
    rewards = (RewardConfig("f", function="nowhere.py:f"),)
    assert "no file nowhere.py" in refusal(base, tmp_path, rewards=rewards)
    assert "names no function (given are right, gold)" in refusal(
        base, tmp_path, rewards=(RewardConfig("f", function="rihgt"),)
    )
    assert "rewards has none with a weight" in refusal(base, tmp_path, rewards=())
    assert "base is not given" in refusal(base, tmp_path, base=None)
    assert "holds no reward model" in refusal(base, tmp_path, rewards=(RewardConfig("r", run=str(base / "base")),))
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "a"}) + "\n" + json.dumps({"prompt": "a" * 60}) + "\n")
    said = refusal(base, tmp_path, prompts=PromptsConfig((str(long),)))
    assert "long.jsonl line 2: the prompt has" in said
    assert "leaves no room" in said


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rollout": RolloutConfig(group_size=1)}, "group_size=1"),
        ({"num_minibatches": 7}, "are no multiple of num_minibatches"),
        ({"kl": KlConfig(target=3.0)}, "kl.place='reward'"),
        ({"clip_eps": 2.0}, "clip_eps=2.0"),
        ({"clip_eps_high": -0.5}, "clip_eps_high=-0.5"),
        ({"optimizer": OptimizerConfig(warmup_steps=100)}, "leaves nothing of the 100 steps"),
        ({"rewards": (RewardConfig("a", function="a"),) * 2}, "give each its own"),
        ({"rewards": (RewardConfig("a", function="a"),), "critic": CriticConfig(reward="a")}, "there are none"),
    ],
)
def test_bad_values_are_refused_by_the_config(fields, words):
    with pytest.raises(ValueError, match=words):
        PpoConfig(**fields)


def test_it_is_written_down_how_plain_text_begins(base, tmp_path):
    """As for the base: score and generate put <bos> before a text by it, or not."""
    without = tmp_path / "base"
    shutil.copytree(base / "base", without)
    record = json.loads((without / "config.json").read_text())
    record["config"]["data"] = {"add_bos": False}
    (without / "config.json").write_text(json.dumps(record))
    for where, said in ((base / "base", True), (without, False)):
        asked = config(base, base=str(where))
        found = prepare(asked, lambda line: None, resumes=False, functions=FUNCTIONS).config
        assert found.prompts.add_bos is said
        assert text_of({"prompts": config_to_dict(found.prompts)})["add_bos"] is said


def test_a_critic_has_no_negative_rate():
    with pytest.raises(ValueError, match=r"critic.peak_lr=-1.0 is negative"):
        CriticConfig(peak_lr=-1.0)


def test_an_answer_ends_where_served_ones_do():
    """At the end of a turn, and at that of a text: what would follow it is never shown to anyone."""
    tokenizer = ByteTokenizer()
    form = ChatFormat(ChatTemplate("chatml", CHATML), tokenizer)
    assert tokenizer.eos_id is not None
    assert form.answer_ends == tuple(sorted({tokenizer.eos_id, *form.stop_ids}))
    prompt = form.prompt([Message("user", "a")])
    for end in form.answer_ends:
        assert answer_text(form, prompt, [*tokenizer.encode("yes"), end]) == "yes"


def test_rollouts_are_drawn_up_to_there(base, tmp_path, monkeypatch):
    asked = set()

    def draw(*args, **options):
        asked.add(options["stop_ids"])
        return sample_answers(*args, **options)

    monkeypatch.setattr("jaxlm.run.align.rollouts.sample_answers", draw)
    ppo(config(base, num_rollouts=1, ppo_epochs=1), tmp_path / "run", functions=FUNCTIONS)
    tokenizer = load_tokenizer(base / "base" / "tokenizer")
    (ends,) = asked
    assert tokenizer.eos_id in ends
    assert len(ends) == 2


def test_the_derived_sizes_and_losses():
    asked = PpoConfig(algorithm="dr_grpo", rollout=RolloutConfig(num_prompts=8, max_new_tokens=30), num_minibatches=4)
    assert (asked.num_rows, asked.global_batch_size, asked.steps_per_rollout) == (64, 16, 4)
    assert (asked.policy.reduction, asked.policy.max_length, asked.policy.kl_coef) == ("constant", 30, 0.05)
    asked = dataclasses.replace(asked, algorithm="ppo", critic=CriticConfig(peak_lr=1.0))
    assert (asked.group_size, asked.policy.kl_coef, asked.critic_optimizer.peak_lr) == (1, 0.0, 1.0)
