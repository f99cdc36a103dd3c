"""The starter model's tokenizer: whole words for the grammar, and no text that it can't take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from palate.starter import tokens
from palate.starter.tokens import END, MAX_LENGTH, START, write_tokenizer
from palate.starter.vocabulary import words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "new" / "folder"
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module", params=["written", "shipped"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Any:
    """The tokenizer as it is written today, and the one that came with the trained model."""
    transformers = pytest.importorskip("transformers")
    source = (
        folder if request.param == "written" else Path(tokens.__file__).parent / "model/tokenizer"
    )
    return transformers.CLIPTokenizer.from_pretrained(str(source), local_files_only=True)


def test_every_word_of_the_grammar_is_one_token(tokenizer: Any) -> None:
    ids = {word: tokenizer(word, add_special_tokens=False).input_ids for word in words()}
    assert {word for word, found in ids.items() if len(found) != 1} == set()
    assert len({found[0] for found in ids.values()}) == len(ids)


def test_a_prompt_is_its_words_between_start_and_end(tokenizer: Any) -> None:
    prompt = "a striped crimson fish seen close up at night"
    found = tokenizer.convert_ids_to_tokens(tokenizer(prompt).input_ids)
    assert found == [START, *(f"{word}</w>" for word in prompt.split()), END]
    assert (
        tokenizer("A Striped CRIMSON fish").input_ids
        == tokenizer("a striped crimson fish").input_ids
    )


def test_the_longest_prompt_fits(tokenizer: Any) -> None:
    longest = "a checkered turquoise mushroom seen close up under a spotlight"
    assert len(tokenizer(longest).input_ids) == 12
    assert tokenizer.model_max_length == MAX_LENGTH
    padded = tokenizer(longest, padding="max_length", truncation=True).input_ids
    assert len(padded) == MAX_LENGTH
    cut = tokenizer(" ".join(["fish"] * 100), padding="max_length", truncation=True).input_ids
    assert len(cut) == MAX_LENGTH
    assert tokenizer.convert_ids_to_tokens(cut[-1]) == END


@given(text=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_encoded(tokenizer: Any, text: str) -> None:
    size = len(tokenizer)
    inner = tokenizer(text, add_special_tokens=False).input_ids
    assert all(0 <= token < size for token in inner)
    # The end token stands for what is unknown; nothing is, unless the text spells it out.
    if END not in text.lower():
        assert tokenizer.eos_token_id not in inner


@pytest.mark.parametrize(
    "text", ["", "   ", "猫", "🐟🏔️", "naïve Ünïcode", "fish123, cats!", "a-b_c\n\t"]
)
def test_odd_texts_encode(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1]
    assert bool(ids[1:-1]) == bool(text.strip())


def test_unknown_words_stay_apart_from_each_other(tokenizer: Any) -> None:
    found = [tuple(tokenizer(word).input_ids) for word in ("dragon", "wizard", "fishes", "fisH")]
    assert len(set(found)) == 4


def test_the_files_are_those_of_clip_and_always_the_same(folder: Path, tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path)
    names = sorted(file.name for file in folder.iterdir())
    assert names == [
        "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    assert sorted(vocabulary.values()) == list(range(size))
    assert vocabulary[END] == size - 1  # CLIP finds the pooled token by the highest id
