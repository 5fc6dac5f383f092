"""Pages and docstrings have no sentence that must be read twice, as far as a program can tell."""

from tests.support.prose import WORDS, findings, sentences


def test_no_sentence_is_too_long_or_in_a_form_that_the_project_avoids() -> None:
    assert [f"{found.path}: {found.remedy}: {found.sentence}" for found in findings()] == []


def test_a_sentence_ends_at_a_stop_and_code_is_one_word() -> None:
    assert sentences("One `a b c` here. Two.\nThree; four.") == [
        "One `x` here.",
        "Two.",
        "Three",
        "four.",
    ]
    assert WORDS == 32
