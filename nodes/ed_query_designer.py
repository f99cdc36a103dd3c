"""ED Query Designer: the prompts whose comparison tells most about the taste."""

from __future__ import annotations

import hashlib
from typing import Any

from comfy_api.latest import io

from ..core.design import MODES, Advice
from ..core.words.asking import CRITERIA, Settings, next_plan
from ..core.words.learnt import keep_learnt
from ..core.words.lexicon import Lexicon
from ..core.words.utility import Utility, utility_in
from ..core.words.vocabulary import VocabularyError
from . import host, vocabularies
from .answers_seen import answers_seen
from .reading import read_vocabulary
from .wires import CATEGORY, PlanType, TasteType

FEWEST, MOST = 2, 16
EXAMPLE = """# One word or phrase a line; '-' lets a slot stay empty.
template: a {texture} {palette} {subject}
[subject]
house
tree
fish
cat
castle
[palette]
-
crimson
cobalt
emerald
[texture]
-
striped
mosaic
"""


class EDQueryDesigner(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateEDQueryDesigner",
            display_name="ED Query Designer",
            category=CATEGORY,
            description="Writes the prompts whose comparison tells most about your taste, from the "
            "words of a vocabulary. After each answer it knows better what to ask. "
            "Method: ED-PBRL, arXiv 2512.19057.",
            inputs=[
                TasteType.Input("taste"),
                io.Clip.Input("clip", tooltip="Reads the words; the CLIP that draws the images."),
                io.Combo.Input(
                    "vocabulary",
                    options=vocabularies.choices(),
                    tooltip="The text below, a vocabulary that comes with Palate, or a .txt file "
                    "of your own in ComfyUI's user/palate_vocabularies folder.",
                ),
                io.String.Input(
                    "slots",
                    multiline=True,
                    default=EXAMPLE,
                    dynamic_prompts=False,
                    tooltip="One word or phrase a line below the [name] of its slot. # begins a "
                    "comment, - lets a slot stay empty, (word:1.2) weighs a word. Optional first "
                    "line: template: a {palette} {subject}",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    tooltip="Adaptive: each question builds on the answers so far. Static: the "
                    "paper's, designed once. Random: no design, for comparison.",
                ),
                io.Int.Input(
                    "arms",
                    default=4,
                    min=FEWEST,
                    max=MOST,
                    tooltip="How many prompts, and so images, a question compares.",
                ),
                io.Combo.Input(
                    "criterion",
                    options=list(CRITERIA),
                    tooltip="What a question is to tell. Automatic: which prompt is your best "
                    "(static: V). V, A and D are the paper's: all differences between words, the "
                    "mean uncertainty, the volume of what is possible.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**53,
                    control_after_generate=False,
                    tooltip="Another seed makes another question from the same answers. It need "
                    "not change from run to run: each answer leads to new prompts anyway.",
                ),
                io.String.Input(
                    "prefix", default="", tooltip="Stands before every prompt, with a comma."
                ),
                io.String.Input(
                    "suffix", default="", tooltip="Stands after every prompt, with a comma."
                ),
            ],
            outputs=[
                io.String.Output(display_name="prompts", is_output_list=True),
                PlanType.Output(display_name="plan"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        vocabulary: str | None = None,
        slots: str | None = None,
        mode: str | None = None,
        arms: int | None = None,
        criterion: str | None = None,
    ) -> bool | str:
        """Refuses a vocabulary before anything runs; what comes over a wire is checked later."""
        if arms is not None and not FEWEST <= arms <= MOST:
            return f"arms must be {FEWEST} to {MOST}, not {arms}."
        settings = Settings(mode or MODES[0], arms or FEWEST, criterion or CRITERIA[0])
        if (problem := settings.problem()) is not None:
            return problem
        if vocabulary is None or (vocabulary == vocabularies.OWN_TEXT and slots is None):
            return True
        try:
            vocabularies.read(vocabulary, slots or "").check_room(arms or FEWEST)
        except VocabularyError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, vocabulary: str | None = None, **_: Any) -> Any:
        """Changes when a question was answered or skipped, or the vocabulary's file changed."""
        try:
            text = "" if vocabulary is None else vocabularies.source(vocabulary, "")
        except VocabularyError:
            text = ""
        return [answers_seen(), hashlib.sha256(text.encode()).hexdigest()]

    @classmethod
    def execute(
        cls,
        taste: host.Taste,
        clip: Any,
        vocabulary: str,
        slots: str,
        mode: str,
        arms: int,
        criterion: str,
        seed: int,
        prefix: str,
        suffix: str,
    ) -> io.NodeOutput:
        words = vocabularies.read(vocabulary, slots)
        words.check_room(arms)
        settings = Settings(mode, arms, criterion, seed)
        if (problem := settings.problem()) is not None:
            raise ValueError(problem)
        profile = taste.profile
        lexicon = read_vocabulary(profile, clip, words, prefix, suffix)
        utility = utility_in(profile, lexicon)
        more = keep_learnt(profile, lexicon, utility)
        plan = next_plan(profile, lexicon, utility, settings)
        report = _in_words(lexicon, utility, settings, more)
        return io.NodeOutput(list(plan.prompts), plan, report)


def _in_words(lexicon: Lexicon, utility: Utility, settings: Settings, more: Advice) -> str:
    """Paragraphs, as Preview as Text shows them."""
    vocabulary, answered = lexicon.vocabulary, len(utility.questions)
    paragraphs = [
        f"{vocabulary.size} words in {len(vocabulary.slots)} slots make {vocabulary.prompts:,} "
        f"prompts; {settings.arms} of them are compared ({settings.mode}).",
        f"Questions answered: {answered}, which told {utility.information:.1f} bits.",
    ]
    if answered:
        ahead = "more than 128" if more.further is None else f"about {more.further}"
        paragraphs += [
            f"Your best prompt by now should please {more.confidence:.0%} as much as the best of "
            "all would.",
            "Enough is known." if more.further == 0 else f"More questions advised: {ahead}.",
        ]
    return "\n\n".join(paragraphs)
