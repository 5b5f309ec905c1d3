"""Answers are kept for one version, and within a bound of memory."""

from xscontainer.core.kept_answers import KeptAnswers


def test_an_answer_counts_for_its_version_only() -> None:
    kept, version = KeptAnswers(), object()
    assert kept.get("a", version) is None
    kept.keep("a", version, "one")
    assert kept.get("a", version) == "one" and kept.get("a", object()) is None and kept.get("b", version) is None
    newer = object()
    kept.keep("a", newer, "two")
    assert kept.get("a", version) is None and kept.get("a", newer) == "two"


def test_the_answers_that_nobody_asked_for_are_dropped_first() -> None:
    kept, version = KeptAnswers(most=30, most_of_one=10), object()
    for name in "abc":
        kept.keep(name, version, name * 10)
    assert kept.get("a", version) == "a" * 10
    kept.keep("d", version, "d" * 10)
    assert [kept.get(name, version) is not None for name in "abcd"] == [True, False, True, True]
    kept.keep("a", version, "a" * 11)
    assert kept.get("a", version) is None
    kept.keep("e", version, "e" * 10)
    assert [kept.get(name, version) is not None for name in "cde"] == [True, True, True]
