"""ED Candidate Picker: of many images or latents, the few whose comparison tells most."""

from __future__ import annotations

import hashlib
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.design import select_pool
from ..core.pool import pool_features
from ..core.words.plan import Plan
from ..core.words.utility import utility_of
from . import host
from .answers_seen import answers_seen
from .lists import check_decoded, joined, one_each
from .wires import CATEGORY, PlanType, TasteType

NAME = "ED Candidate Picker"
CRITERIA = ("D", "A", "V")


class EDCandidatePicker(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateEDCandidatePicker",
            display_name=NAME,
            category=CATEGORY,
            description="Of many images or latents, picks the few whose comparison tells most "
            "about your taste, given your answers so far. Method: ED-PBRL, arXiv 2512.19057.",
            is_input_list=True,
            inputs=[
                TasteType.Input("taste"),
                io.Latent.Input("latents", tooltip="All candidates: a batch, or a list."),
                io.Conditioning.Input(
                    "conditioning", tooltip="The positive prompt; one for all, or one a candidate."
                ),
                io.Int.Input("count", default=4, min=2, max=16, tooltip="How many to pick."),
                io.Combo.Input(
                    "criterion",
                    options=list(CRITERIA),
                    tooltip="What counts as informative. D: the volume of what is possible. A: the "
                    "mean uncertainty. V: all differences between the candidates.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The decoded candidates. With them, pictures are compared; without "
                    "them, latents, and only the chosen need decoding.",
                ),
                PlanType.Input(
                    "plan",
                    optional=True,
                    tooltip="From ED Query Designer with as many arms as there are candidates: "
                    "then their prompts are compared, and words are learnt.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True),
                io.Latent.Output(display_name="latents", is_output_list=True),
                io.Conditioning.Output(display_name="conditioning", is_output_list=True),
                PlanType.Output(display_name="plan"),
                io.Int.Output(display_name="indices", is_output_list=True),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        """Changes when a question was answered or skipped."""
        return answers_seen()

    @classmethod
    def execute(
        cls,
        taste: list[host.Taste],
        latents: list[dict[str, Tensor]],
        conditioning: list[list],
        count: list[int],
        criterion: list[str],
        images: list[Tensor] | None = None,
        plan: list[Plan] | None = None,
    ) -> io.NodeOutput:
        samples = joined([batch["samples"] for batch in latents], "latents", NAME)
        pictures = None if images is None else joined(images, "images", NAME)
        batches = [len(batch["samples"]) for batch in latents]
        conditionings = one_each(conditioning, batches, NAME)
        _check(len(samples), pictures, count[0])
        pool = _plan(pictures, samples) if plan is None else plan[0]
        if len(pool) != len(samples):
            raise ValueError(
                f"The plan on {NAME} has {len(pool)} prompts, but there are {len(samples)} "
                "candidates: draw one image for each prompt of ED Query Designer."
            )
        chosen = _most_informative(taste[0], pool, count[0], criterion[0])
        shown: Any = host.ExecutionBlocker(None)
        if pictures is not None:
            shown = [pictures[i : i + 1] for i in chosen]
        return io.NodeOutput(
            shown,
            [{"samples": samples[i : i + 1]} for i in chosen],
            [conditionings[i] for i in chosen],
            pool.subset(chosen),
            chosen,
        )


def _check(candidates: int, pictures: Tensor | None, count: int) -> None:
    if pictures is not None:
        check_decoded(len(pictures), candidates, NAME)
    if candidates < count:
        raise ValueError(
            f"{NAME} is to pick {count} of {candidates} candidates: draw more, or pick fewer."
        )


def _plan(pictures: Tensor | None, samples: Tensor) -> Plan:
    """The candidates themselves as a plan, in a feature space of pictures or latents."""
    space, scale, features = pool_features(pictures, samples)
    return Plan(space, scale, hashlib.sha256(space.encode()).hexdigest(), (), features.cpu())


def _most_informative(taste: host.Taste, pool: Plan, count: int, criterion: str) -> list[int]:
    utility = utility_of(taste.profile, pool.encoder, pool.features.shape[1], pool.scale)
    features = pool.features.double() * pool.scale
    chosen = select_pool(features, count, precision=utility.model.precision(), criterion=criterion)
    return sorted(chosen)
