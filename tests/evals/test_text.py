"""Known words and verbatim copies, against brute force."""

import random
import time

import pytest

from jaxlm.evals.text import known_words, longest_copy, vocabulary, words


def brute_force(samples, text):
    pieces = {s[i:j] for s in samples for i in range(len(s)) for j in range(i + 1, len(s) + 1)}
    return max((len(piece) for piece in pieces if piece in text), default=0)


@pytest.mark.parametrize("seed", range(8))
def test_longest_copy_is_brute_forces(seed):
    rng = random.Random(seed)
    alphabet = ["ab", "abcd", "abcé天🙂\ud800"][seed % 3]
    text = "".join(rng.choices(alphabet, k=rng.choice([1, 30, 400])))
    samples = ["".join(rng.choices(alphabet, k=rng.randrange(0, 40))) for _ in range(4)]
    copy = longest_copy(samples, text, chunk=rng.choice([16, 64, 1 << 20]))
    assert copy.length == len(copy.text) == brute_force(samples, text)
    if copy.length:
        assert copy.text in samples[copy.sample]
        assert text[copy.position : copy.position + copy.length] == copy.text


def test_thue_morse_strings_that_defeat_hashes_modulo_a_power_of_two():
    """Collisions of polynomial hashes modulo 2^64 exist for any base; a hit must be verified, not believed."""
    a = "a"
    for _ in range(11):
        a += a.translate(str.maketrans("ab", "ba"))
    b = a.translate(str.maketrans("ab", "ba"))
    copy = longest_copy([a], b)
    assert copy.text in b
    assert copy.text in a
    assert copy.length < len(a)


@pytest.mark.parametrize(("samples", "text"), [([], "abc"), ([""], "abc"), (["abc"], ""), (["abc"], "xyz")])
def test_nothing_shared(samples, text):
    assert longest_copy(samples, text) == (0, "", -1, -1)


def test_a_sample_longer_than_the_text():
    assert longest_copy(["xx" + "hello world" * 3], "hello world").length == 11


def test_a_copy_over_a_chunk_border_is_found():
    rng = random.Random(0)
    text = "".join(rng.choices("abcdefgh", k=5000))
    assert longest_copy(["!" + text[950:1100] + "!"], text, chunk=1000).text == text[950:1100]


def test_two_megabytes_in_seconds():
    rng = random.Random(0)
    vocab = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(2, 10))) for _ in range(5000)]
    text = " ".join(rng.choices(vocab, k=300_000))
    samples = [" ".join(rng.choices(vocab, k=80))[:500] for _ in range(4)]
    samples[2] = samples[2][:200] + text[1_000_000:1_000_180] + samples[2][380:]
    start = time.perf_counter()
    copy = longest_copy(samples, text)
    known = known_words(samples, vocabulary([text]))
    assert time.perf_counter() - start < 6  # about 0.7 s on an idle machine
    assert copy.length >= 180
    assert copy.sample == 2
    assert known.share is not None
    assert known.share > 0.9


def test_known_words():
    known = vocabulary(["The cat's hat", "天下"])
    found = known_words(["the CAT sat, sat on 天上 42"], known)
    assert (found.known, found.total, found.unknown) == (3, 7, ("sat", "on", "上"))
    assert found.share == 3 / 7
    assert known_words(["1, 2"], known).share is None


def test_words_leave_digits_and_signs_out():
    assert words("x_1 = naïve(ΑΒΓ)  # ok") == ["x", "naïve", "αβγ", "ok"]


def test_marks_go_on_their_word():
    assert words("दिनदन है") == ["दिनदन", "है"]
    assert known_words(["दिनदन"], vocabulary(["द न"])).total == 1
