"""What is read off a text, and what counts as right."""

import pytest

from jaxlm.evals.extraction import Extraction, cut_at, vote


@pytest.mark.parametrize(
    ("form", "text", "behind_cue", "found"),
    [
        ("number", "She has 3 cats and 4 dogs, 7 in all.", False, "7"),
        ("number", "7 in all, of 3 and 4", True, "7"),
        ("number", "We add. The answer is $1,234.50 per year, up from 9.", False, "1234.50"),
        ("number", "10-5 is 5 and 3-8 is -5", False, "-5"),
        ("number", "so x = 10-5", True, "10"),
        ("number", "4 * 2 = 8\n#### 8", False, "8"),
        ("number", "none", False, None),
        ("number", "it is 3,4", True, "3"),
        ("number", "1,2345 of 1,200,000 and 12,34", True, "1"),
        ("number", "1,2345 of 1,200,000", False, "1200000"),
        ("number", "The answer is unknown, not 5", False, "5"),
        ("number", "5. The answer is unknown.", False, None),
        ("number", "2 and 3 make\n**Answer:** 5 (not 6)", False, "5"),
        ("number", r"so it is \boxed{12} of 40", False, "12"),
        ("letter", " D. \n\nBecause A.", True, "D"),
        ("letter", "Among these the answer is (B), not (A)", False, "B"),
        ("letter", "A car needs (C) gallons. A mile", False, "C"),
        ("letter", "CAB", False, None),
        ("letter", "答案是C。", False, "C"),
        ("yes_no", ' "No", since yesterday', True, "no"),
        ("yes_no", "the same for all people.", True, None),
        ("yes_no", "Yes it flips. So the answer is NO", False, "no"),
        ("exact", "We pop.\nSo the answer is ] ) >.", False, "] ) >"),
        ("exact", " Yes ", True, "Yes"),
        ("exact", "  ", True, None),
        ("word", ' signs," he said', True, "signs"),
    ],
)
def test_reads(form, text, behind_cue, found):
    assert Extraction(form).read(text, behind_cue=behind_cue) == found


def test_numbers_agree_by_value_and_words_by_letters():
    number = Extraction("number")
    assert number.agrees("1200.0", "1,200")
    assert not number.agrees("1201", "1,200")
    assert not number.agrees(None, "3")
    assert Extraction("exact").agrees("(A)", "(A)")
    assert not Extraction("exact").agrees("(a)", "(A)")
    assert Extraction("word").agrees("don't", "Don't")
    with pytest.raises(ValueError, match="no number"):
        number.agrees("3", "three")


def test_the_commonest_answer_wins_and_of_equals_the_earliest():
    assert vote(["2", "1", "1", None]) == "1"
    assert vote(["2", "1", "1", "2"]) == "2"
    assert vote([None, None]) is None


def test_numbers_vote_by_value():
    number = Extraction("number")
    assert vote(["40", "36", "36.0", "40.", "36.00"], number.value) == "36"
    assert vote(["36", "36.0", "40", "40"], number.value) == "36"
    assert vote(["no", "No", "No"], Extraction("exact").value) == "No"
    long = "9" * 5000
    assert number.agrees(number.read(long), long)


def test_a_text_ends_at_its_first_stop_string():
    assert cut_at("7 eggs\n\nQ: next", ("\n\nQ:", "eggs")) == "7 "
    assert cut_at("7", ()) == "7"
