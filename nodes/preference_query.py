"""Preference Query: puts images to the person and passes the answer on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..core.choice import ChoiceModel
from ..core.features import image_features
from ..core.papa import graded_labels
from ..core.profile import AnswerConflict, Query
from ..core.profile import TasteProfile as Profile
from ..core.rater import Rater
from ..core.words.plan import Plan
from ..core.words.utility import observe
from . import host, waiting
from .graph import prompt_texts
from .lists import check_decoded, joined, one_each
from .wires import CATEGORY, Feedback, FeedbackType, PlanType, RaterType, TasteType

NAME = "Preference Query"
ASK_NOW, RATE_LATER = "ask now", "rate later"
STOP, SKIP, GUESS = "stop this branch", "skip", "best guess"
ANSWERS = ("pick", "rank", "rate", "skip")
POLL_SECONDS = 0.1


class PreferenceQuery(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalatePreferenceQuery",
            display_name=NAME,
            category=CATEGORY,
            description="Shows the images in the Palate panel and waits for your answer, or lets "
            "you rate them later. Pick the best, or like and dislike; skip if you can't tell.",
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            inputs=[
                TasteType.Input("taste"),
                io.Image.Input("images"),
                io.Latent.Input("latents", tooltip="The latents of these very images."),
                io.Conditioning.Input(
                    "conditioning", tooltip="The positive prompt; one for all, or one an image."
                ),
                io.Combo.Input(
                    "mode",
                    options=[ASK_NOW, RATE_LATER],
                    tooltip="Ask now: the run waits for you. Rate later: the run ends, the panel "
                    "collects the question, and the next run learns from your answer.",
                ),
                io.Int.Input(
                    "timeout",
                    default=0,
                    min=0,
                    max=86400,
                    tooltip="Seconds to wait for an answer; 0 waits until you answer or stop.",
                ),
                io.Combo.Input(
                    "on_timeout",
                    options=[STOP, SKIP, GUESS],
                    tooltip="Stop this branch: the question stays pending. Skip: it is closed "
                    "without influence. Best guess: passes on the image that you would probably "
                    "pick, learns nothing, and the question stays pending.",
                ),
                RaterType.Input("rater", optional=True, tooltip="Answers in your place."),
                PlanType.Input(
                    "plan",
                    optional=True,
                    tooltip="From ED Query Designer or ED Candidate Picker: your answer then also "
                    "tells which words you like.",
                ),
            ],
            outputs=[
                FeedbackType.Output(display_name="FEEDBACK"),
                io.Image.Output(display_name="liked"),
                io.Image.Output(display_name="disliked"),
                io.Image.Output(display_name="best"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        """Changes when an answer came in while nobody waited for it."""
        return waiting.late_answers()

    @classmethod
    async def execute(
        cls,
        taste: list[host.Taste],
        images: list[Tensor],
        latents: list[dict[str, Tensor]],
        conditioning: list[list],
        mode: list[str],
        timeout: list[int],
        on_timeout: list[str],
        rater: list[Rater] | None = None,
        plan: list[Plan] | None = None,
    ) -> io.NodeOutput:
        profile = taste[0].profile
        pictures = joined(images, "images", NAME)
        samples = joined([batch["samples"] for batch in latents], "latents", NAME)
        conditionings = one_each(conditioning, [len(batch) for batch in images], NAME)
        _check(pictures, samples)
        designed = plan[0] if plan else None
        if designed is not None:
            designed.check_drawn([conditioning[0][0] for conditioning in conditionings])
        texts = prompt_texts(cls.hidden.prompt, cls.hidden.unique_id, "conditioning")
        features = {} if designed is None else designed.tensors()
        query = profile.ask(
            pictures.float().cpu().clone(),
            {**host.pack_candidates(samples, conditionings), **features},
            _prompts(designed, texts, len(pictures)),
            kinds=ANSWERS,
            plan=None if designed is None else designed.to_json(),
            generator=torch.Generator().manual_seed(len(profile.queries()) + 1),
        )
        if query.state == "pending":
            host.send(
                "palate.query",
                {"query": query.id, "profile": profile.name, "node": cls.hidden.unique_id},
            )
            query = await _answered(profile, query, mode[0], timeout[0], on_timeout[0], rater)
        stopped = mode[0] == ASK_NOW and on_timeout[0] == STOP and query.state == "pending"
        return _output(profile, query, pictures, stopped, on_timeout[0] == GUESS)


def _check(pictures: Tensor, samples: Tensor) -> None:
    check_decoded(len(pictures), len(samples), NAME)
    if len(pictures) < 2:
        raise ValueError("Preference Query needs at least two images: raise the batch size.")


def _prompts(plan: Plan | None, found: Sequence[str], count: int) -> list[str]:
    if plan is not None and plan.prompts:
        return list(plan.prompts)
    return [found[i % len(found)] if found else "" for i in range(count)]


async def _answered(
    profile: Profile,
    query: Query,
    mode: str,
    timeout: int,
    on_timeout: str,
    rater: list[Rater] | None,
) -> Query:
    """Waits as the person wishes; returns the query, perhaps still pending."""
    if rater and rater[0] is not None:
        answer = rater[0].answer(profile.images(query.id), query.kinds)
        return profile.answer(query.id, answer, source="simulated")
    if mode == RATE_LATER:
        return query
    with waiting.expecting(query.id) as event:
        query = profile.query(query.id)
        until = time.monotonic() + timeout if timeout else None
        while query.state == "pending" and not event.is_set():
            host.stop_if_interrupted()
            if until is not None and time.monotonic() >= until:
                if on_timeout == SKIP:
                    with contextlib.suppress(AnswerConflict):  # the person was just in time
                        profile.answer(query.id, {"kind": "skip"})
                break
            await asyncio.sleep(POLL_SECONDS)
    return profile.query(query.id)


def _output(
    profile: Profile, query: Query, pictures: Tensor, stopped: bool, guess: bool
) -> io.NodeOutput:
    blocked = host.ExecutionBlocker(None)
    feedback = Feedback(profile.name, tuple(q.id for q in profile.waiting()))
    liked = disliked = best = blocked
    if query.answer is not None and query.answer["kind"] != "skip":
        labels = graded_labels(query.answer, len(pictures))
        liked = pictures[labels > 0] if bool((labels > 0).any()) else blocked
        disliked = pictures[labels < 0] if bool((labels < 0).any()) else blocked
        best = pictures[labels.nan_to_num(-2).argmax()][None]
    elif query.state == "pending" and guess:
        best = pictures[_guess(profile, pictures)][None]
    passed_on: Any = blocked if stopped and not feedback.queries else feedback
    return io.NodeOutput(passed_on, liked, disliked, best, ui={"palate": [query.id]})


def _guess(profile: Profile, pictures: Tensor) -> int:
    """The image that the answers so far make most likely to be picked."""
    features = image_features(pictures)
    model = ChoiceModel(features.shape[1])
    for query in [*profile.queries("answered"), *profile.queries("used")]:
        assert query.answer is not None
        observe(model, image_features(profile.images(query.id)), query.answer)
    return int(model.fit().utility(features)[0].argmax())
