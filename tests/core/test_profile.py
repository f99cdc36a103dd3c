"""A taste profile: questions, answers, adapter revisions and settings, on real files."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from palate.core.profile import (
    BUDGET,
    AnswerConflict,
    InvalidAnswer,
    ProfileError,
    Query,
    TasteProfile,
    UnknownQuery,
    UnknownRevision,
)
from PIL import Image
from profiles import reopened
from safetensors import safe_open
from torch import Tensor

EVERY_KIND = ("pick", "rank", "rate", "skip")
PICK = {"kind": "pick", "winner": 1}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def material(seed: int = 0, count: int = 4) -> dict[str, Any]:
    generator = seeded(seed)
    return {
        "images": torch.rand(count, 8, 12, 3, generator=generator),
        "tensors": {"latents": torch.randn(count, 4, 2, 3, generator=generator)},
        "prompts": [f"prompt {i}" for i in range(count)],
    }


def ask(profile: TasteProfile, seed: int = 0, count: int = 4, **changes: Any) -> Query:
    arguments = {**material(seed, count), "kinds": EVERY_KIND, "generator": seeded(seed), **changes}
    return profile.ask(**arguments)


def commit(profile: TasteProfile, value: float = 1.0, used: tuple[str, ...] = (), **changes: Any):
    arguments = {"report": {"loss": value}, "metadata": {"method": "papa"}, **changes}
    weights = torch.full((3,), value)
    return profile.commit_revision({"w": weights}, {"m": -weights}, used=used, **arguments)


def files_below(folder: Path) -> dict[str, bytes]:
    """The content of every file that is not the database's own."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("profile.")
    }


# Questions


def test_a_question_reads_back_as_it_was_asked(profile: TasteProfile) -> None:
    said = material()
    plan = {"arm": [1, 2], "why": "V-optimal"}
    asked = ask(profile, kinds=("skip", "rate", "pick"), plan=plan)
    assert re.fullmatch(r"[0-9a-f]{32}", asked.id)
    assert (asked.profile, asked.round, asked.state) == ("Warm colours", 1, "pending")
    assert (asked.kinds, asked.plan) == (("pick", "rate", "skip"), plan)
    assert sorted(asked.order) == [0, 1, 2, 3]
    assert (asked.answered, asked.answer, asked.source, asked.used_by) == (None,) * 4
    assert asked.asked_revision == 0
    again = reopened(profile)
    assert again.query(asked.id) == asked
    assert again.queries() == again.queries("pending") == [asked]
    assert [(c.index, c.prompt) for c in asked.candidates] == list(enumerate(said["prompts"]))
    assert torch.equal(again.tensors(asked.id)["latents"], said["tensors"]["latents"])
    assert (again.images(asked.id) - said["images"]).abs().max() <= 0.5 / 255 + 1e-6
    for candidate in asked.candidates:
        with Image.open(candidate.image) as image:
            assert (image.size, image.mode, image.info) == ((12, 8), "RGB", {})


def test_the_order_to_show_comes_from_the_generator_and_no_place_is_favoured(
    profile: TasteProfile,
) -> None:
    first = [ask(profile, seed, count=3).order[0] for seed in range(30)]
    assert set(first) == {0, 1, 2}
    generator, twin = seeded(7), seeded(7)
    state = torch.get_rng_state()
    shown = ask(profile, 100, generator=generator).order
    assert shown == tuple(torch.randperm(4, generator=twin).tolist())
    assert torch.equal(generator.get_state(), twin.get_state())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.zeros(0, 4),
        torch.randn(2, 3).to(torch.bfloat16),
        torch.randn(2, 3).half(),
        torch.arange(5),
        torch.tensor([True, False]),
        torch.randn(3, 4).T,
        torch.randn(1, 4).expand(3, 4),
        torch.randn(3, requires_grad=True),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    ids=lambda tensor: f"{tensor.dtype}{tuple(tensor.shape)}{tensor.stride()}",
)
def test_tensors_read_back_bit_for_bit(profile: TasteProfile, tensor: Tensor) -> None:
    asked = ask(profile, tensors={"first": tensor, "same": tensor})
    kept = profile.tensors(asked.id)
    assert kept.keys() == {"first", "same"}
    assert torch.equal(kept["first"], tensor)
    assert torch.equal(kept["same"], tensor)
    assert kept["first"].dtype == tensor.dtype


def test_images_alone_make_a_question(profile: TasteProfile) -> None:
    assert profile.tensors(ask(profile, tensors={}).id) == {}


def test_tensors_read_in_inference_mode_can_be_trained_with(profile: TasteProfile) -> None:
    with torch.inference_mode():
        asked = ask(profile, images=torch.rand(4, 8, 8, 3))
        latents = profile.tensors(asked.id)["latents"]
        images = profile.images(asked.id)
    weight = torch.ones((), requires_grad=True)
    ((latents * weight).sum() + (images * weight).sum()).backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    "text", ["", "猫 🐈", "a\x00b", "lone \ud800 half", "'; DROP TABLE", "x" * 9999]
)
def test_any_text_is_a_prompt(profile: TasteProfile, text: str) -> None:
    asked = ask(profile, count=2, prompts=[text, "other"])
    assert reopened(profile).query(asked.id).candidates[0].prompt == text


@pytest.mark.parametrize("answer", [None, PICK, {"kind": "skip"}, "used"])
def test_the_same_content_is_never_asked_twice(profile: TasteProfile, answer: Any) -> None:
    asked = ask(profile)
    if answer:
        profile.answer(asked.id, PICK if answer == "used" else answer)
    if answer == "used":
        commit(profile, used=(asked.id,))
    before = files_below(profile.folder)
    same = {name: tensor.clone() for name, tensor in material()["tensors"].items()}
    again = ask(reopened(profile), tensors=same, generator=seeded(99))
    assert again.id == asked.id
    assert again.order == asked.order
    assert files_below(profile.folder) == before


def test_the_order_in_which_tensors_are_given_does_not_matter(profile: TasteProfile) -> None:
    first, second = torch.randn(4), torch.randn(4)
    asked = ask(profile, tensors={"a": first, "b": second})
    assert ask(profile, tensors={"b": second, "a": first}).id == asked.id
    assert ask(profile, tensors={"b": first, "a": second}).id != asked.id


def test_other_content_is_another_question(profile: TasteProfile) -> None:
    said = material()
    pixel = said["images"].clone()
    pixel[3, 7, 11, 2] = 1 - pixel[3, 7, 11, 2]
    latent = {"latents": said["tensors"]["latents"] + 1e-6}
    double = {"latents": said["tensors"]["latents"].double()}
    turned = said["images"].reshape(4, 12, 8, 3)
    variants = [{}, {"images": pixel}, {"tensors": latent}, {"tensors": double}, {"images": turned}]
    ids = [ask(profile, **variant).id for variant in variants]
    assert len(set(ids)) == len(variants)
    assert [query.id for query in profile.queries()] == ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.rand(8, 8, 3)}, "batch of RGB images"),
        ({"images": torch.rand(4, 8, 8, 4)}, "alpha"),
        ({"images": torch.rand(4, 3, 8, 8)}, "batch of RGB images"),
        ({"images": "cat.png"}, "batch of RGB images"),
        ({"images": torch.rand(0, 8, 8, 3)}, "non-empty"),
        ({"images": torch.zeros(4, 8, 8, 3, dtype=torch.uint8)}, "values in"),
        ({"images": torch.full((4, 8, 8, 3), float("nan"))}, "Image 0 .* NaN"),
        ({"prompts": ["only one"]}, "needs 4 prompts, not 1"),
        ({"prompts": "abcd"}, "list of texts"),
        ({"prompts": ["a", "b", "c", None]}, "list of texts"),
        ({"kinds": ()}, "at least one kind"),
        ({"kinds": ("skip",)}, "at least one kind"),
        ({"kinds": ("pick", "stars")}, "stars"),
        ({"plan": {"x": float("nan")}}, "plan of a question"),
        ({"plan": {"x": object()}}, "plan of a question"),
        ({"tensors": {"latents": [1, 2]}}, "safetensors"),
        ({"tensors": {"latents": torch.eye(3).to_sparse()}}, "safetensors"),
    ],
)
def test_what_makes_no_question_is_refused_and_leaves_nothing(
    profile: TasteProfile, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        ask(profile, **changes)
    assert profile.queries() == []
    assert files_below(profile.folder) == {}


def test_a_single_image_can_only_be_rated(profile: TasteProfile) -> None:
    assert ask(profile, count=1).kinds == ("rate", "skip")
    with pytest.raises(ProfileError, match="two or more"):
        ask(profile, 1, count=1, kinds=("pick", "skip"))


@pytest.mark.parametrize("bad", ["", "0" * 32, "../../x", "A" * 32, "é" * 32, "\ud800", None, 7])
def test_an_unknown_question(profile: TasteProfile, bad: Any) -> None:
    ask(profile)
    for call in (profile.query, profile.tensors, profile.images):
        with pytest.raises(UnknownQuery):
            call(bad)
    with pytest.raises(UnknownQuery):
        profile.answer(bad, PICK)


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_question_says_which_file(profile: TasteProfile, harm: str) -> None:
    asked = ask(profile)
    tensors = asked.candidates[0].image.with_name("candidates.safetensors")
    for path in (asked.candidates[2].image, tensors):
        if harm == "cut":
            path.write_bytes(path.read_bytes()[:60])
        else:
            path.unlink()
    with pytest.raises(ProfileError, match=r"2\.png is damaged or gone"):
        profile.images(asked.id)
    with pytest.raises(ProfileError, match=r"candidates\.safetensors is damaged or gone"):
        profile.tensors(asked.id)
    assert profile.answer(asked.id, {"kind": "skip"}).state == "skipped"


# Answers


GOOD = [
    ({"kind": "pick", "winner": 3}, {"kind": "pick", "winner": 3}, 4),
    ({"kind": "rank", "order": [2, 0, 3, 1]}, {"kind": "rank", "order": [2, 0, 3, 1]}, 4),
    (
        {"kind": "rate", "ratings": [1, -1.0, None, 0.25]},
        {"kind": "rate", "ratings": [1.0, -1.0, None, 0.25]},
        3,
    ),
    ({"kind": "skip"}, {"kind": "skip"}, 0),
]


@pytest.mark.parametrize(("answer", "recorded", "ratings"), GOOD)
def test_an_answer_is_recorded_once(
    profile: TasteProfile, answer: dict, recorded: dict, ratings: int
) -> None:
    asked = ask(profile)
    got = profile.answer(asked.id, answer, source="simulated")
    assert (got.answer, got.source) == (recorded, "simulated")
    assert got.state == ("answered" if ratings else "skipped")
    assert got.answered is not None
    assert got.answered >= got.created
    assert json.loads(json.dumps(got.answer)) == recorded
    profile = reopened(profile)
    assert profile.query(asked.id) == got
    assert profile.answer(asked.id, answer) == got
    assert profile.waiting() == ([got] if ratings else [])
    assert (profile.ratings, profile.rounds) == (ratings, int(ratings > 0))


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("first", [answer for answer, _, _ in GOOD])
def test_another_answer_is_refused(profile: TasteProfile, first: dict, used: bool) -> None:
    asked = ask(profile)
    before = profile.answer(asked.id, first)
    if used and before.state == "answered":
        commit(profile, used=(asked.id,))
        before = profile.query(asked.id)
    for other in (PICK, {"kind": "skip"}, {"kind": "rate", "ratings": [1, 1, 1, 1]}):
        if other != first:
            with pytest.raises(AnswerConflict, match="another answer"):
                profile.answer(asked.id, other)
    assert profile.query(asked.id) == before


def test_a_malformed_answer_leaves_the_question_open(profile: TasteProfile) -> None:
    asked = ask(profile)
    for answer in (None, {"kind": "pick", "winner": 4}, {"kind": "rate", "ratings": [2] * 4}):
        with pytest.raises(InvalidAnswer):
            profile.answer(asked.id, answer)
    assert profile.queries("pending") == [asked]


@pytest.mark.parametrize(
    "answer", [PICK, {"kind": "rank", "order": [0, 1, 2, 3]}, {"kind": "skip"}]
)
def test_a_kind_that_was_not_offered_is_refused(profile: TasteProfile, answer: dict) -> None:
    asked = ask(profile, kinds=("rate",))
    with pytest.raises(InvalidAnswer, match=r"does not take .* it takes rate"):
        profile.answer(asked.id, answer)


def test_an_unknown_source_is_refused(profile: TasteProfile) -> None:
    with pytest.raises(ProfileError, match="source"):
        profile.answer(ask(profile).id, PICK, source="cat")


def test_rounds_and_ratings_add_up(profile: TasteProfile) -> None:
    answers = [PICK, {"kind": "skip"}, {"kind": "rate", "ratings": [None, 1, None, 0]}, PICK]
    asked = [ask(profile, seed) for seed in range(5)]
    for query, answer in zip(asked, answers, strict=False):
        profile.answer(query.id, answer)
    commit(profile, used=(asked[0].id,))
    assert (profile.ratings, profile.rounds) == (4 + 2 + 4, 3)
    assert ask(profile, 9).round == 4
    assert ask(profile, 9).asked_revision == 1
    states = [query.state for query in profile.queries()]
    assert states == ["used", "skipped", "answered", "answered", "pending", "pending"]
    assert [query.id for query in profile.waiting()] == [asked[2].id, asked[3].id]
    with pytest.raises(ProfileError, match="state"):
        profile.queries("open")


# Revisions


def test_a_new_profile_is_the_base_model(profile: TasteProfile) -> None:
    base = profile.active
    assert profile.revisions() == [base]
    assert (base.number, base.parent, base.path, base.ratings) == (0, None, None, 0)
    assert profile.load_revision(0) == ({}, {})


def test_a_revision_reads_back_as_it_was_committed(profile: TasteProfile) -> None:
    asked = ask(profile)
    profile.answer(asked.id, PICK)
    adapter = {"down.weight": torch.randn(3, 4).T, "up": torch.randn(2).bfloat16()}
    optimizer = {"step": torch.tensor(7), "adapter.exp_avg": torch.randn(3)}
    metadata = {"base_hash": "abc", "ключ": "värde"}
    report = {"loss": float("nan"), "steps": 20, "curve": (1.0, float("inf"))}
    made = profile.commit_revision(
        adapter, optimizer, used=[asked.id], report=report, metadata=metadata
    )
    assert (made.number, made.parent, made.ratings) == (1, 0, 4)
    assert made.report == {"loss": None, "steps": 20, "curve": [1.0, None]}
    assert made.metadata == metadata
    assert made.path == profile.folder / "revisions" / "000001.safetensors"
    profile = reopened(profile)
    assert profile.active == made
    assert (profile.query(asked.id).state, profile.query(asked.id).used_by) == ("used", 1)
    for kept, trained in zip(profile.load_revision(1), (adapter, optimizer), strict=True):
        assert kept.keys() == trained.keys()
        assert all(torch.equal(kept[name], trained[name]) for name in trained)
    with safe_open(made.path, "pt") as file:
        assert file.metadata() == metadata
        assert set(file.keys()) == {
            "adapter.down.weight",
            "adapter.up",
            "optimizer.step",
            "optimizer.adapter.exp_avg",
        }


def test_undo_and_time_travel_make_a_tree_and_delete_nothing(profile: TasteProfile) -> None:
    asked = [ask(profile, seed) for seed in range(4)]
    for query in asked:
        profile.answer(query.id, PICK)
    commit(profile, 1.0, used=(asked[0].id,))
    commit(profile, 2.0, used=(asked[1].id,))
    first, second = (profile.revisions()[n].path.read_bytes() for n in (1, 2))
    assert profile.activate(1).number == profile.active.number == 1
    commit(profile, 3.0, used=(asked[2].id,))
    profile.activate(0)
    commit(profile, 4.0, used=(asked[1].id, asked[3].id))
    profile = reopened(profile)
    assert [r.parent for r in profile.revisions()] == [None, 0, 1, 1, 0]
    assert profile.active.number == 4
    for number in range(1, 5):
        assert profile.load_revision(number)[0]["w"][0] == number
    assert profile.revisions()[1].path.read_bytes() == first
    assert profile.revisions()[2].path.read_bytes() == second
    assert [profile.query(query.id).used_by for query in asked] == [1, 4, 3, 4]
    assert profile.ratings == 16
    assert [revision.ratings for revision in profile.revisions()] == [0, 16, 16, 16, 16]


def test_training_that_outlived_an_undo_keeps_its_real_parent(profile: TasteProfile) -> None:
    commit(profile)
    profile.activate(0)
    assert commit(profile, parent=1).parent == 1
    with pytest.raises(UnknownRevision):
        commit(profile, parent=9)
    assert [revision.number for revision in profile.revisions()] == [0, 1, 2]


@pytest.mark.parametrize(
    "bad", [3, -1, True, 1.0, "1", None, 2**63, 10**5000], ids=lambda bad: str(type(bad))
)
def test_an_unknown_revision(profile: TasteProfile, bad: Any) -> None:
    commit(profile)
    for call in (profile.activate, profile.load_revision):
        with pytest.raises(UnknownRevision, match=r"0 \(the base model\) to 1"):
            call(bad)
    assert profile.active.number == 1


@pytest.mark.parametrize("harm", ["cut", "one bit", "another revision's", "gone"])
def test_a_damaged_revision_is_never_loaded(profile: TasteProfile, harm: str) -> None:
    commit(profile, 1.0)
    path = commit(profile, 2.0).path
    content = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(content[:-1])
    elif harm == "one bit":
        content[-1] ^= 1
        path.write_bytes(content)
    elif harm == "another revision's":
        path.write_bytes(path.with_name("000001.safetensors").read_bytes())
    else:
        path.unlink()
    with pytest.raises(ProfileError, match=r"Revision 2 of .*Warm colours.*000002.*backup"):
        profile.load_revision(2)
    assert profile.load_revision(1)[0]["w"][0] == 1.0
    profile.activate(1)
    if harm == "gone":
        with pytest.raises(ProfileError, match="gone"):
            profile.activate(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"used": ("0" * 32,)}, "no such question"),
        ({"metadata": {"ratings": 3}}, "text only"),
        ({"metadata": {"name": "\ud800"}}, "safetensors"),
        ({"report": {"loss": torch.tensor(1.0)}}, "report of a revision"),
    ],
)
def test_what_makes_no_revision_is_refused_and_leaves_nothing(
    profile: TasteProfile, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        commit(profile, **changes)
    assert len(profile.revisions()) == 1
    assert files_below(profile.folder) == {}


@pytest.mark.parametrize("answer", [None, {"kind": "skip"}])
def test_only_answers_with_influence_are_trained_with(
    profile: TasteProfile, answer: dict | None
) -> None:
    good, other = ask(profile), ask(profile, 1)
    profile.answer(good.id, PICK)
    if answer:
        profile.answer(other.id, answer)
    with pytest.raises(ProfileError, match=r"it is (pending|skipped)"):
        commit(profile, used=(good.id, other.id))
    assert profile.query(good.id).state == "answered"
    assert len(profile.revisions()) == 1


def test_a_crashed_commit_is_replaced(profile: TasteProfile) -> None:
    stray = profile.folder / "revisions" / "000001.safetensors"
    stray.write_bytes(b"from a commit that died before its transaction")
    assert [revision.number for revision in profile.revisions()] == [0]
    commit(profile, 5.0)
    assert profile.load_revision(1)[0]["w"][0] == 5.0


# Settings, summary, closing


def test_settings_are_kept_and_replaced(profile: TasteProfile) -> None:
    assert profile.settings == {}
    profile.set_setting("rank", 8)
    profile.set_setting("targets", ["to_q", "conv"])
    profile.set_setting("rank", 16)
    profile.set_setting("base_hash", None)
    expected = {"rank": 16, "targets": ["to_q", "conv"], "base_hash": None}
    assert reopened(profile).settings == expected


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 65, None, 3])
def test_an_odd_setting_name_is_refused(profile: TasteProfile, key: Any) -> None:
    with pytest.raises(ProfileError, match="setting"):
        profile.set_setting(key, 1)


def test_a_setting_that_is_not_json_is_refused(profile: TasteProfile) -> None:
    for value in (float("inf"), {1, 2}, torch.ones(1)):
        with pytest.raises(ProfileError, match="'x'"):
            profile.set_setting("x", value)
    assert profile.settings == {}


def test_the_summary_is_json(profile: TasteProfile) -> None:
    asked = [ask(profile, seed) for seed in range(3)]
    for query in asked[:2]:
        profile.answer(query.id, PICK)
    made = commit(profile, 0.5, used=(asked[0].id,))
    summary = profile.summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary.pop("revisions")[1] == {
        "revision": 1,
        "parent": 0,
        "created": made.created,
        "ratings": 8,
        "report": {"loss": 0.5},
    }
    assert summary == {
        "name": "Warm colours",
        "ratings": 8,
        "rounds": 2,
        "pending": 1,
        "waiting": 1,
        "active": 1,
        "learnt": None,
        "budget": None,
    }


def test_the_summary_counts_a_budget_down(profile: TasteProfile) -> None:
    profile.set_setting(BUDGET, 10)
    assert profile.summary()["budget"] == {"total": 10, "left": 10}
    profile.answer(ask(profile).id, {"kind": "pick", "winner": 0})
    assert profile.summary()["budget"] == {"total": 10, "left": 10 - profile.ratings}
    profile.set_setting(BUDGET, 1)
    assert profile.summary()["budget"] == {"total": 1, "left": 0}


def test_a_closed_profile_says_so(profile: TasteProfile) -> None:
    asked = ask(profile)
    profile.close()
    profile.close()
    for call in (profile.queries, profile.summary, profile.revisions):
        with pytest.raises(ProfileError, match="was closed"):
            call()
    with pytest.raises(ProfileError, match="was closed"):
        profile.answer(asked.id, PICK)


@pytest.mark.skipif(os.name == "nt", reason="limits of a file's size are POSIX")
def test_a_full_disk_loses_nothing(profile: TasteProfile) -> None:
    import resource

    asked = ask(profile)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(ProfileError, match="free space"):
            ask(profile, 1)
        with pytest.raises(ProfileError, match="free space"):
            profile.answer(asked.id, PICK)
        with pytest.raises(ProfileError, match="free space"):
            commit(profile)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    profile = reopened(profile)
    assert profile.queries() == [asked]
    assert {path.name for path in (profile.folder / "queries").iterdir()} == {asked.id}
    assert list((profile.folder / "revisions").iterdir()) == []
    assert profile.answer(asked.id, PICK).state == "answered"
    assert commit(profile, used=(asked.id,)).number == 1
