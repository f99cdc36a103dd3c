"""Best Prompts: the prompts that the person would probably like best."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..core.words.learnt import best
from ..core.words.lexicon import kept_lexicon
from ..core.words.utility import utility_in
from . import host
from .answers_seen import answers_seen
from .wires import CATEGORY, Feedback, FeedbackType, TasteType

MOST = 64


class BestPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateBestPrompts",
            display_name="Best Prompts",
            category=CATEGORY,
            description="Your best prompts, by all answers to questions of ED Query Designer so "
            "far, over everything that its vocabulary can say.",
            inputs=[
                TasteType.Input("taste"),
                io.Int.Input(
                    "count", default=4, min=1, max=MOST, tooltip="How many prompts, best first."
                ),
                FeedbackType.Input(
                    "feedback",
                    optional=True,
                    tooltip="From Preference Query: the answer of this very run counts too.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="prompts", is_output_list=True),
                io.Float.Output(display_name="scores", is_output_list=True),
                io.Float.Output(display_name="uncertainty", is_output_list=True),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        """Changes when a question was answered or skipped."""
        return answers_seen()

    @classmethod
    def execute(
        cls, taste: host.Taste, count: int, feedback: Feedback | None = None
    ) -> io.NodeOutput:
        profile = taste.profile
        if feedback is not None and feedback.profile != profile.name:
            raise ValueError(
                f"The feedback belongs to the taste {feedback.profile!r}, not to {profile.name!r}: "
                "connect one taste to both nodes."
            )
        lexicon = kept_lexicon(profile)
        if lexicon is None:
            return _nothing("ED Query Designer has not asked for this taste yet: run it first.")
        utility = utility_in(profile, lexicon)
        if not utility.questions:
            return _nothing("Answer a first question of ED Query Designer, then run again.")
        found = best(lexicon, utility, count)
        return io.NodeOutput(
            [prompt.text for prompt in found],
            [prompt.score for prompt in found],
            [prompt.std for prompt in found],
            "\n".join(
                f"{i}. {p.text} ({p.score:+.2f} ± {p.std:.2f})" for i, p in enumerate(found, 1)
            ),
        )


def _nothing(why: str) -> io.NodeOutput:
    """Stops what would draw the prompts, and says why."""
    blocked = host.ExecutionBlocker(None)
    return io.NodeOutput(blocked, blocked, blocked, why)
