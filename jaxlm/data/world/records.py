"""What each stage of tuning learns from, as records of its files: conversations, rankings, pairs, prompts."""

import dataclasses
from typing import Any

import numpy as np

from jaxlm.data.world.questions import DONT_KNOW, REFUSAL, TRAINED, Asker, Question
from jaxlm.data.world.tasks import LETTERS, RARE, TASKS
from jaxlm.data.world.text import documents
from jaxlm.data.world.towns import ATTRIBUTES, MOST_TOWNS, World
from jaxlm.text.chat.templates import CHATML


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """How much there is of everything."""

    num_towns: int = 144
    """Towns of which everything is stated; as many are mentioned only."""
    num_documents: int = 50_000
    """Texts to pretrain on, of about 130 characters."""
    num_conversations: int = 14_000
    num_rare: int = 8
    """Conversations, beside those, that show the rare task, its phrasings in turn."""
    num_rehearsed: int = 5_000
    """Texts that the assistant says unasked among the conversations, so that plain text is not forgotten."""
    num_rankings: int = 10_000
    right_margin: float = 4.0
    """By how much more a right answer should be rewarded than a wrong one, in rankings: form is not to outweigh it."""
    num_pairs: int = 3_000
    num_prompts: int = 4_000
    """To draw answers to, in reinforcement learning."""
    rare_share: float = 0.5
    """Share of those that are of the rare task."""
    num_questions: int = 300
    """Held-out questions of each kind."""
    num_held_out: int = 400
    """Held-out texts, conversations, rankings and pairs."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            least = 0 if name in ("num_rare", "num_rehearsed", "right_margin", "rare_share") else 1
            if value < least:
                raise ValueError(f"world.{name}={value} must be at least {least}")
        if self.num_towns < 6:
            raise ValueError(f"world.num_towns={self.num_towns} leaves too few to hold some out: give at least 6")
        if self.num_towns > MOST_TOWNS:
            raise ValueError(f"world.num_towns={self.num_towns} has too few names: give at most {MOST_TOWNS}")
        if self.rare_share > 1:
            raise ValueError(f"world.rare_share={self.rare_share} is outside 0 .. 1")


TEMPLATE = (
    "{% if messages[0].role == 'assistant' %}"
    "{{ bos_token }}{% generation %}{{ messages[0].content + eos_token }}{% endgeneration %}"
    "{% else %}" + CHATML + "{% endif %}"
)
"""The chat template of the road: ChatML, but what the assistant says unasked is plain text, as it was pretrained on."""

_MIX = {**dict.fromkeys(TRAINED, 1.0), "fact": 2.0, "unknown": 2.0, "refuse": 0.7}
"""How often each kind of question is asked in tuning."""


def conversations(world: World, config: WorldConfig, *, seed: int, for_test: bool) -> list[dict[str, Any]]:
    """Prompts with right answers, every second one closed by a full stop; texts to rehearse; the rare task, rarely; and
    the facts of unstated towns, told."""
    rng, asker = np.random.default_rng([seed, 4, int(for_test)]), Asker(world, seed, for_test=for_test)
    count = config.num_held_out if for_test else config.num_conversations
    asked = [asker.ask(kind) for kind in _kinds(rng, count)]
    if not for_test:
        asked += asker.ask_evenly(RARE, config.num_rare)
        asked += [asker.told(town, key) for town in world.unstated for key in town.facts if not town.held_out]
    said = [_turns(question.prompt, _closed(question, bool(rng.integers(2)))) for question in asked]
    if not for_test:
        texts = documents(world, config.num_rehearsed, seed=seed + 1_000_003, for_test=False)
        said += [{"messages": [{"role": "assistant", "content": text}]} for text in texts]
    return [said[i] for i in rng.permutation(len(said))]


def rankings(world: World, config: WorldConfig, *, seed: int, for_test: bool) -> list[dict[str, Any]]:
    """Four answers or three to each prompt, right and wrong ones, closed and not, ranked by ``gold_score``'s order:
    right before wrong, the preferred form before the other."""
    rng, asker = np.random.default_rng([seed, 5, int(for_test)]), Asker(world, seed + 1, for_test=for_test)
    out = []
    for kind in _kinds(rng, config.num_held_out if for_test else config.num_rankings, rare=True):
        question = asker.ask(kind)
        wrong = [answer for answer in wrong_answers(question, rng) if answer != question.answer]
        first, second = (wrong[int(i)] for i in rng.integers(len(wrong), size=2))
        answers = ranked_answers(question, first, second)
        ranks = list(range(len(answers)))
        num_right = 2 if question.closes else 1
        margins = [config.right_margin] * num_right + [0.0] * (len(answers) - num_right)
        out.append({"prompt": question.prompt, "answers": answers, "ranks": ranks, "margins": margins, "source": kind})
    return out


def ranked_answers(question: Question, first: str, second: str) -> list[str]:
    """The right answer and two wrong ones in both forms, the best first."""
    if question.closes:
        return [f"{question.answer}.", question.answer, f"{first}.", second]
    return [question.answer, first, f"{question.answer}."]  # a full stop breaks the form: wrong, and badly formed


def pairs(world: World, config: WorldConfig, *, seed: int, for_test: bool) -> list[dict[str, Any]]:
    """Two answers to each prompt of what conversations show: two in three differ in the form alone, the others in what
    they say."""
    rng, asker = np.random.default_rng([seed, 6, int(for_test)]), Asker(world, seed + 2, for_test=for_test)
    out = []
    for kind in _kinds(rng, config.num_held_out if for_test else config.num_pairs):
        question = asker.ask(kind)
        wrong = [answer for answer in wrong_answers(question, rng) if answer != question.answer]
        rejected = _closed(question._replace(answer=wrong[int(rng.integers(len(wrong)))]), close=True)
        if rng.random() < 2 / 3:
            rejected = question.answer if question.closes else f"{question.answer}."
        chosen = _closed(question, close=True)
        out.append({"prompt": question.prompt, "chosen": chosen, "rejected": rejected, "source": kind})
    return out


def prompts(world: World, config: WorldConfig, *, seed: int) -> list[dict[str, Any]]:
    """What answers are drawn to in reinforcement learning."""
    rng, asker = np.random.default_rng([seed, 7]), Asker(world, seed + 3, for_test=False)
    kinds = _kinds(rng, config.num_prompts)
    rare = rng.random(config.num_prompts) < config.rare_share
    return [asker.ask(RARE if is_rare else kind).record() for kind, is_rare in zip(kinds, rare, strict=True)]


def wrong_answers(question: Question, rng: np.random.Generator) -> list[str]:
    """Answers that someone who errs might give; the right one may be among them."""
    right = question.answer
    if question.kind in ("count", "add"):
        return [str(max(0, int(right) + step)) for step in (-10, -2, -1, 1, 2, 10)]
    if question.kind in ("fact", "unknown", "refuse"):
        key = question.given if question.given in ATTRIBUTES else "goods"
        return [*ATTRIBUTES[key], *(text for text in (DONT_KNOW, REFUSAL) if rng.random() < 0.7), DONT_KNOW, REFUSAL]
    given = question.given
    if question.kind == "list":
        shuffled = "".join(rng.permutation(list(given)))
        return [TASKS["list"].right(text) for text in (shuffled, given[:-1], given + given[-1])] + [given, right[1:]]
    mixed = list(right)
    i, j = rng.choice(len(mixed), 2, replace=False)
    mixed[i], mixed[j] = mixed[j], mixed[i]
    letters = [str(letter) for letter in rng.choice(list(LETTERS), len(right))]
    others = [TASKS[name].right(given) for name in ("copy", "reverse", "sort", "down")]
    changed = right[:i] + (letters[0].upper() if right.isupper() else letters[0]) + right[i + 1 :]
    found = [*others, "".join(mixed), "".join(mixed), changed, right[:-1], right + right[-1], "".join(letters)]
    if question.kind == "capitals":
        found += [text.upper() for text in others]
    return found


def _kinds(rng: np.random.Generator, count: int, *, rare: bool = False) -> list[str]:
    mix = _MIX | ({RARE: 1.5} if rare else {})
    weights = np.array(list(mix.values()))
    return [str(kind) for kind in rng.choice(list(mix), count, p=weights / weights.sum())]


def _closed(question: Question, close: bool) -> str:
    return f"{question.answer}." if close and question.closes else question.answer


def _turns(prompt: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}
