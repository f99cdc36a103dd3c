"""From a profile's answers to what is learnt: lexicon, plan, posterior, next question."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from palate.core.choice import ChoiceModel
from palate.core.pool import latent_features, pool_features
from palate.core.profile import ProfileStore, TasteProfile
from palate.core.words.asking import Settings, next_plan
from palate.core.words.feature_cache import FeatureCache
from palate.core.words.learnt import MANY, best, keep_learnt, learnt, word_effects
from palate.core.words.lexicon import FILE, Lexicon, kept_lexicon, same_encoder
from palate.core.words.plan import Plan
from palate.core.words.utility import keep_utility, utility_in
from palate.core.words.vocabulary import parse_vocabulary

DIM = 12
TEXT = """
[subject]
house
tree
fish
[palette]
-
crimson
cobalt
amber
[light]
-
noon
night
"""


def lexicon(seed: int = 0, text: str = TEXT, common: float = 3.0) -> Lexicon:
    """Words of a made-up encoder that puts all of them close together."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = parse_vocabulary(text)
    shared = common * torch.ones(DIM)
    names = [word for slot in vocabulary.slots for word in slot.words if word]
    words = {name: shared + torch.randn(DIM, generator=generator) for name in names}
    probes = torch.randn(4, DIM, generator=generator)
    return Lexicon.of(vocabulary, words, probes, "Fake")


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[TasteProfile]:
    store = ProfileStore(tmp_path / "palate")
    yield store.open("words")
    store.close()


def ask(profile: TasteProfile, plan: Plan, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(plan), 4, 4, 3, generator=generator)
    prompts = plan.prompts or [""] * len(plan)
    kinds = ("pick", "rank", "rate", "skip")
    return profile.ask(
        images, plan.tensors(), prompts, kinds=kinds, plan=plan.to_json(), generator=generator
    ).id


def teach(profile: TasteProfile, lex: Lexicon, wanted: str, rounds: int, **settings: str) -> None:
    """Answers ``rounds`` questions with the first prompt that has the word, else with the last."""
    for number in range(rounds):
        plan = next_plan(profile, lex, utility_in(profile, lex), Settings(**settings))
        winner = next((i for i, p in enumerate(plan.prompts) if wanted in p), len(plan) - 1)
        profile.answer(ask(profile, plan, number), {"kind": "pick", "winner": winner})


# Lexicon ------------------------------------------------------------------------------------------


def test_features_of_a_slot_are_centred_and_of_unit_size_and_empty_is_zero() -> None:
    for slot, rows in zip(lexicon().vocabulary.slots, lexicon().features, strict=True):
        filled = torch.tensor([word != "" for word in slot.words])
        assert rows[~filled].abs().sum() == 0
        assert rows[filled].sum(0).abs().max() < 1e-5
        assert float(rows[filled].square().sum(1).mean()) == pytest.approx(1, rel=1e-5)


def test_what_all_words_share_changes_no_feature_much() -> None:
    """The concentrated encoder's common direction is gone, up to what normalising does."""
    near, far = lexicon(common=1000.0), lexicon(common=2000.0)
    for a, b in zip(near.features, far.features, strict=True):
        assert (a - b).abs().max() < 0.02


def test_words_that_the_encoder_cannot_tell_apart_are_harmless() -> None:
    vocabulary = parse_vocabulary("[a]\nx\ny\n[b]\nz")
    words = dict.fromkeys("xyz", torch.ones(DIM))
    rows = Lexicon.of(vocabulary, words, torch.eye(4, DIM), "Fake").features
    assert all(bool(torch.isfinite(r).all()) and float(r.abs().max()) < 1e-6 for r in rows)


def test_a_lexicon_survives_the_disk(profile: TasteProfile) -> None:
    lex = replace(lexicon(), before="best", after="4k")
    assert kept_lexicon(profile) is None
    profile.keep(FILE, *lex.to_tensors())
    again = kept_lexicon(profile)
    assert again is not None
    assert (again.vocabulary, again.encoder) == (lex.vocabulary, lex.encoder)
    assert again.prompt([0, 1, 1]) == "best, house, crimson, noon, 4k"
    assert all(torch.equal(a, b) for a, b in zip(again.features, lex.features, strict=True))


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\xff" * 100])
def test_a_damaged_lexicon_counts_as_none(profile: TasteProfile, content: bytes) -> None:
    (profile.folder / "lexicon.safetensors").write_bytes(content)
    assert kept_lexicon(profile) is None
    assert learnt(profile) is None


def test_the_same_encoder_in_another_precision_keeps_its_name() -> None:
    lex = lexicon()
    half = replace(lex, probes=lex.probes.half().float() * 1.0001, encoder="other")
    assert half.under_name(lex).encoder == lex.encoder
    assert lexicon(seed=1).under_name(lex).encoder != lex.encoder
    assert not same_encoder(lex.probes, lex.probes[:, :-1])


def test_the_cache_gives_back_what_it_was_given_and_ignores_a_damaged_file(tmp_path: Path) -> None:
    cache, probes = FeatureCache(tmp_path / "new" / "cache"), torch.eye(4, DIM)
    key = cache.key("Fake", probes)
    assert cache.read(key) == {}
    cache.write(key, {"a": torch.ones(DIM), "b": torch.zeros(DIM)})
    assert torch.equal(cache.read(key)["a"], torch.ones(DIM))
    assert cache.key("Fake", probes * 1.001) != key != cache.key("Other", probes)
    (tmp_path / "new" / "cache" / f"{key}.safetensors").write_bytes(b"half a fi")
    assert cache.read(key) == {}


# Plan ---------------------------------------------------------------------------------------------


def test_images_must_be_drawn_one_for_each_prompt() -> None:
    plan = Plan("e", 1.0, "k", ("a", "b", "a"), torch.eye(3))
    a, b = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    plan.check_drawn([a, b, a])
    with pytest.raises(ValueError, match="3 prompts, but Preference Query got 2"):
        plan.check_drawn([a, b])
    with pytest.raises(ValueError, match="Image 2 was not drawn with its prompt"):
        plan.check_drawn([a, a, b])
    assert plan.subset([2, 0]).prompts == ("a", "a")
    assert torch.equal(plan.subset([1]).features, torch.eye(3)[1:2])


# Utility ------------------------------------------------------------------------------------------


def test_the_posterior_is_that_of_the_answers_in_the_log(profile: TasteProfile) -> None:
    lex = lexicon()
    plan = next_plan(profile, lex, utility_in(profile, lex), Settings(mode="random"))
    features = plan.features.double()
    expected = ChoiceModel(DIM)
    answers = [
        {"kind": "pick", "winner": 1},
        {"kind": "rank", "order": [2, 0, 3, 1]},
        {"kind": "rate", "ratings": [1, None, -0.5, 0]},
        {"kind": "skip"},
    ]
    for seed, answer in enumerate(answers):
        profile.answer(ask(profile, plan, seed), answer)
    expected.observe_choice(features, 1)
    expected.observe_ranking(features, [2, 0, 3, 1])
    expected.observe_likes(features[[0, 2]], torch.tensor([1.0, 0.0]))
    found = utility_in(profile, lex)
    assert len(found.questions) == 3
    assert (found.model.theta - expected.fit().theta).abs().max() < 1e-7
    nats = 0.5 * float(torch.linalg.slogdet(expected.precision()).logabsdet)
    assert found.information == pytest.approx(nats / math.log(2), abs=1e-6)


def test_answers_in_another_space_do_not_count(profile: TasteProfile) -> None:
    teach(profile, lexicon(), "crimson", 2)
    assert utility_in(profile, lexicon(seed=5)).questions == ()


def test_a_changed_vocabulary_keeps_what_was_learnt(profile: TasteProfile) -> None:
    lex = lexicon()
    teach(profile, lex, "crimson", 3)
    shorter = replace(lexicon(text="[palette]\ncrimson\ncobalt\n"), probes=lex.probes)
    shorter = shorter.under_name(lex)
    assert len(utility_in(profile, shorter).questions) == 3


def test_what_is_kept_saves_the_fit_and_nothing_depends_on_it(profile: TasteProfile) -> None:
    lex = lexicon()
    teach(profile, lex, "crimson", 4)
    fresh = utility_in(profile, lex)
    keep_utility(profile, fresh, {})
    store = ProfileStore(profile.folder.parent)
    store.close()
    again = store.open("words")
    assert (utility_in(again, lex).model.theta - fresh.model.theta).abs().max() < 1e-8
    store.close()
    (again.folder / "utility.safetensors").write_bytes(b"damaged")
    again = store.open("words")
    assert (utility_in(again, lex).model.theta - fresh.model.theta).abs().max() < 1e-8


# Asking -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["adaptive", "static", "random"])
def test_a_waiting_question_keeps_its_prompts_and_an_answer_or_a_skip_brings_new_ones(
    profile: TasteProfile, mode: str
) -> None:
    lex = lexicon()

    def plan() -> Plan:
        return next_plan(profile, lex, utility_in(profile, lex), Settings(mode=mode, arms=3))

    seen = [plan()]
    for seed, answer in enumerate([{"kind": "pick", "winner": 0}, {"kind": "skip"}]):
        query = ask(profile, seen[-1], seed)
        assert plan().prompts == seen[-1].prompts
        assert torch.equal(plan().features, seen[-1].features)
        profile.answer(query, answer)
        seen.append(plan())
        assert len(set(seen[-1].prompts)) == 3
    assert len({each.prompts for each in seen}) == 3


def test_other_settings_do_not_take_a_waiting_questions_prompts(profile: TasteProfile) -> None:
    lex = lexicon()
    utility = utility_in(profile, lex)
    first = next_plan(profile, lex, utility, Settings(mode="random"))
    ask(profile, first, 0)
    assert next_plan(profile, lex, utility, Settings(mode="random", seed=1)).key != first.key
    assert len(next_plan(profile, lex, utility, Settings(mode="random", arms=2))) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(mode="static", criterion="thompson"), "builds on answers"),
        (Settings(mode="clever"), "mode must be one of"),
        (Settings(criterion="E"), "criterion of"),
    ],
)
def test_settings_that_make_no_design_are_named(settings: Settings, said: str) -> None:
    assert said in str(settings.problem())
    assert Settings(mode="static", criterion="D").problem() is None


# What is shown ------------------------------------------------------------------------------------


def test_the_word_that_always_wins_comes_first_and_makes_the_best_prompts(
    profile: TasteProfile,
) -> None:
    lex = lexicon()
    teach(profile, lex, "crimson", 12)
    utility = utility_in(profile, lex)
    assert word_effects(lex, utility)[0].word == "crimson"
    found = best(lex, utility, 4)
    assert "crimson" in found[0].text
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    assert all(p.std > 0 for p in found)


def test_the_panel_is_told_words_with_effects_information_and_advice(
    profile: TasteProfile,
) -> None:
    assert learnt(profile) is None
    lex = lexicon()
    profile.keep(FILE, *lex.to_tensors())
    assert learnt(profile) == {"questions": 0, "information": 0.0, "advised": None, "words": []}
    teach(profile, lex, "crimson", 6)
    advice = keep_learnt(profile, lex, utility_in(profile, lex))
    told = learnt(profile)
    assert told is not None
    assert told["questions"] == 6
    assert told["information"] > 1
    assert told["advised"] == (MANY if advice.further is None else advice.further)
    effects = [word["effect"] for word in told["words"]]
    assert effects == sorted(effects, reverse=True)
    assert told["words"][0] == {
        "slot": "palette", "word": "crimson", "effect": effects[0], "std": told["words"][0]["std"]
    }  # fmt: skip
    assert len(told["words"]) == lex.vocabulary.size


def test_looking_at_what_was_learnt_writes_nothing(profile: TasteProfile) -> None:
    lex = lexicon()
    profile.keep(FILE, *lex.to_tensors())
    teach(profile, lex, "cobalt", 2)
    before = {path: path.stat().st_mtime_ns for path in profile.folder.rglob("*")}
    learnt(profile)
    assert {path: path.stat().st_mtime_ns for path in profile.folder.rglob("*")} == before


# Pools --------------------------------------------------------------------------------------------


def test_latent_features_tell_place_and_spread_apart() -> None:
    flat = torch.zeros(1, 4, 8, 8)
    corner, noisy = flat.clone(), flat.clone()
    corner[:, 0, :2, :2] = 1
    noisy[:, 1, ::2] = 1
    noisy[:, 1, 1::2] = -1
    features = latent_features(torch.cat([flat, corner, noisy]))
    assert features.shape == (3, 4 * 32)
    assert features[1, 0] == 1
    assert features[2, :64].abs().max() == 0  # the mean of the stripes is nothing
    assert features[2, 64:].max() == 1
    assert latent_features(torch.zeros(2, 16, 5, 8, 8)).shape == (2, 16 * 32)
    assert pool_features(None, flat)[0] != pool_features(torch.zeros(1, 8, 8, 3), flat)[0]
