"""Which answers a query takes: exactly the documented forms, each with one normal form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.core.profile import InvalidAnswer, ProfileError
from palate.core.profile.answers import check_answer, check_kinds, labels_in

EVERY_KIND = ("pick", "rank", "rate", "skip")

MALFORMED = [
    None,
    [],
    "skip",
    {},
    {"winner": 1},
    {"kind": None},
    {"kind": ["pick"], "winner": 1},
    {"kind": "stars", "ratings": [1, 1, 1, 1]},
    {"kind": "Pick", "winner": 1},
    {"kind": "pick"},
    {"kind": "pick", "winner": True},
    {"kind": "pick", "winner": 1.0},
    {"kind": "pick", "winner": "1"},
    {"kind": "pick", "winner": None},
    {"kind": "pick", "winner": -1},
    {"kind": "pick", "winner": 4},
    {"kind": "pick", "winner": 10**400},
    {"kind": "pick", "winner": [1]},
    {"kind": "pick", "winner": 1, "order": [0, 1, 2, 3]},
    {"kind": "pick", "winner": 1, "note": "x"},
    {"kind": "pick", "winner": 1, 7: 7},
    {"kind": "rank", "order": [0, 1, 2]},
    {"kind": "rank", "order": [0, 1, 2, 2]},
    {"kind": "rank", "order": [0, 1, 2, 3, 3]},
    {"kind": "rank", "order": [1, 2, 3, 4]},
    {"kind": "rank", "order": [0, 1, 2, -1]},
    {"kind": "rank", "order": [False, True, 2, 3]},
    {"kind": "rank", "order": [0.0, 1, 2, 3]},
    {"kind": "rank", "order": "0123"},
    {"kind": "rank", "order": {"0": 1}},
    {"kind": "rate", "ratings": [1, 1, 1]},
    {"kind": "rate", "ratings": [1, 1, 1, 1, 1]},
    {"kind": "rate", "ratings": []},
    {"kind": "rate", "ratings": [None] * 4},
    {"kind": "rate", "ratings": [1, 1, 1, True]},
    {"kind": "rate", "ratings": [1, 1, 1, "1"]},
    {"kind": "rate", "ratings": [1, 1, 1, 1.0000001]},
    {"kind": "rate", "ratings": [1, 1, 1, -2]},
    {"kind": "rate", "ratings": [1, 1, 1, float("nan")]},
    {"kind": "rate", "ratings": [1, 1, 1, float("-inf")]},
    {"kind": "rate", "ratings": [1, 1, 1, 10**400]},
    {"kind": "rate", "ratings": [1, 1, 1, [1]]},
    {"kind": "rate", "ratings": 1},
    {"kind": "rate", "ratings": None},
    {"kind": "skip", "why": "can't tell"},
    {"kind": "skip", "winner": None},
]


@pytest.mark.parametrize("answer", MALFORMED, ids=lambda answer: str(answer)[:50])
def test_a_malformed_answer_is_refused(answer: Any) -> None:
    with pytest.raises(InvalidAnswer):
        check_answer(answer, EVERY_KIND, 4)


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ({"kind": "pick", "winner": 0}, 4),
        ({"kind": "rank", "order": [3, 2, 1, 0]}, 4),
        ({"kind": "rate", "ratings": [0, None, -1, 1]}, 3),
        ({"kind": "skip"}, 0),
    ],
)
def test_a_well_formed_answer_counts_its_labels(answer: dict[str, Any], labels: int) -> None:
    assert check_answer(answer, EVERY_KIND, 4) == answer
    assert labels_in(answer, 4) == labels


def test_ratings_become_floats_and_tuples_lists() -> None:
    rated = check_answer({"kind": "rate", "ratings": (1, 0)}, EVERY_KIND, 2)
    assert [type(rating) for rating in rated["ratings"]] == [float, float]
    assert check_answer({"kind": "rank", "order": (1, 0)}, EVERY_KIND, 2)["order"] == [1, 0]


def test_kinds_come_in_one_order_without_repeats() -> None:
    assert check_kinds(["skip", "rate", "pick", "rate"], 4) == ("pick", "rate", "skip")
    assert check_kinds("rank", 2) == ("rank",)
    with pytest.raises(ProfileError, match="Unknown kind"):
        check_kinds("rating", 2)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.sampled_from(EVERY_KIND),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
field_names = st.sampled_from(["winner", "order", "ratings", "other"])
answer_like = st.builds(
    lambda kind, rest: {"kind": kind, **rest},
    st.sampled_from(EVERY_KIND),
    st.dictionaries(field_names, json_values | st.permutations(range(3)), max_size=2),
)


@settings(deadline=None)
@given(json_values | answer_like)
def test_whatever_arrives_is_refused_or_has_one_normal_form(answer: Any) -> None:
    try:
        checked = check_answer(answer, EVERY_KIND, 3)
    except InvalidAnswer:
        return
    assert checked == answer
    assert json.loads(json.dumps(checked, allow_nan=False)) == checked
    assert check_answer(checked, EVERY_KIND, 3) == checked
