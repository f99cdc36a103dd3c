"""PAPA Update: learns from the answers and makes a new revision of the live adapter."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..core.papa import Guidance, PapaConfig, UpdateReport, papa_update
from ..core.profile import Revision
from . import host
from .lessons import REMEMBERED, Lesson, lessons_of, remembered, samples_of
from .previews import Previews
from .update_picture import update_picture
from .wires import CATEGORY, Feedback, FeedbackType, TasteType

DEFAULTS = PapaConfig()


class PAPAUpdate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalatePAPAUpdate",
            display_name="PAPA Update",
            category=CATEGORY,
            description="Learns from your answers: moves the taste's adapter towards what you like "
            "and away from what you don't. Every update can be undone in the panel. "
            "Method: PAPA / EPAPA, arXiv 2607.00486.",
            is_output_node=True,  # it learns also when nothing hangs on it
            inputs=[
                io.Model.Input("model"),
                TasteType.Input("taste"),
                FeedbackType.Input("feedback"),
                io.Int.Input(
                    "steps",
                    default=DEFAULTS.steps,
                    min=1,
                    max=1000,
                    tooltip="Optimiser steps per update. More learns faster and drifts more.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=DEFAULTS.learning_rate,
                    min=1e-6,
                    max=1e-1,
                    step=1e-6,
                    round=1e-7,
                    tooltip="Adam's step size for the LoRA.",
                ),
                io.Int.Input(
                    "timesteps",
                    default=DEFAULTS.timesteps,
                    min=1,
                    max=1000,
                    tooltip="Noise levels drawn per image and step. More is steadier and slower.",
                ),
                io.Int.Input(
                    "replay",
                    default=DEFAULTS.replay,
                    min=0,
                    max=REMEMBERED,
                    tooltip="Earlier rated images mixed into each step: nothing is forgotten.",
                ),
                io.Combo.Input(
                    "variant",
                    options=["code", "figure"],
                    default=DEFAULTS.variant,
                    tooltip="Where the pull towards the base model acts: on liked images (the "
                    "authors' program) or on disliked ones (the paper's figure).",
                ),
                io.Combo.Input(
                    "bound",
                    options=["hinge", "none"],
                    default=DEFAULTS.bound,
                    tooltip="Hinge stops pushing a disliked image away once it is far "
                    "enough, which keeps image quality. None is the paper's.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The negative prompt that your images are drawn with. With it the "
                    "model learns as it is sampled, guidance included: a taste shows sooner and "
                    "in other prompts too, for twice the time a step.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="With a VAE, each revision draws the same few pictures: the panel's "
                    "history shows them, and so does the report. Without one nothing is drawn.",
                ),
                io.Int.Input(
                    "previews",
                    default=2,
                    min=0,
                    max=8,
                    optional=True,
                    tooltip="Pictures each revision draws, at the seeds 0, 1, … and with the "
                    "prompts of your first answer, which never change. 0 draws none.",
                ),
                io.Int.Input(
                    "preview_steps",
                    default=12,
                    min=1,
                    max=100,
                    optional=True,
                    tooltip="Sampling steps of a preview. Fewer are faster and rougher.",
                ),
                io.Float.Input(
                    "cfg",
                    default=3.0,
                    min=1.0,
                    max=30.0,
                    step=0.5,
                    optional=True,
                    tooltip="The cfg of the sampler that draws your images: previews use it, and "
                    "with a negative prompt learning does. 1 for guidance-distilled models such as "
                    "Flux, and for turbo and lightning models.",
                ),
                io.Float.Input(
                    "drift_limit",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    round=0.0001,
                    optional=True,
                    tooltip="Stops an update before the drift passes this; 0 is no limit. Drift is "
                    "the squared distance of the model's predictions on your first rated images "
                    "to the base model's, as a share: 0.01 is a tenth of their size, 1 all of it. "
                    "At the limit nothing more is learnt.",
                ),
                io.Float.Input(
                    "distillation",
                    default=DEFAULTS.distillation,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    round=0.0001,
                    optional=True,
                    tooltip="The pull towards the base model (b of L_QPDE). More keeps variety and "
                    "learns more slowly; 0.009 is the authors'.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.String.Output(display_name="report"),
                TasteType.Output(display_name="TASTE"),
                io.Image.Output(display_name="picture"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        taste: host.Taste,
        feedback: Feedback,
        negative: list | None = None,
        vae: Any = None,
        previews: int = 2,
        preview_steps: int = 12,
        cfg: float = 3.0,
        drift_limit: float = 0.0,
        **settings: Any,
    ) -> io.NodeOutput:
        if taste.live.key not in model.injections:
            raise ValueError(
                "The MODEL on PAPA Update does not carry the TASTE beside it: connect both from "
                "the same Taste Profile."
            )
        if feedback.profile != taste.profile.name:
            raise ValueError(
                f"The feedback belongs to the taste {feedback.profile!r}, not to "
                f"{taste.profile.name!r}: connect one taste to both nodes."
            )
        config = PapaConfig(
            **settings, first_timestep=taste.boundary, drift_limit=drift_limit or None
        )
        waiting = {query.id: query for query in taste.profile.waiting()}
        fresh = [waiting[id] for id in feedback.queries if id in waiting]
        taste.live.load_active_revision()
        pictures = Previews(model, taste, vae, previews, preview_steps, cfg)
        away = None if cfg == 1 else negative
        said, parts = [], []
        for lesson in lessons_of(taste, fresh):
            pictures.keep()  # of the revision that is left behind, above all of the base model
            report, revision = _learn(model, taste, lesson, config, away, cfg)
            said.append(_in_words(report, revision))
            parts += report.parts
            if pictures.keep():
                _tell(taste.profile.name, taste.live.revision)
        text = " ".join([*said, *pictures.failures]) or "Nothing new to learn from."
        picture = update_picture(
            taste.profile, taste.live.revision, text, parts, config.drift_limit
        )
        return io.NodeOutput(model, text, taste, picture)


def _learn(
    model: Any,
    taste: host.Taste,
    lesson: Lesson,
    config: PapaConfig,
    negative: list | None,
    cfg: float,
) -> tuple[UpdateReport, Revision | None]:
    """One update and, if it went well, its revision on disk."""
    profile, live = taste.profile, taste.live
    bar = host.progress_bar(config.steps)

    def progress(done: int, total: int) -> None:
        bar(done, total)
        host.send(
            "palate.progress",
            {"profile": profile.name, "done": done, "total": total, "stage": "learning"},
            everyone=True,
        )

    progress(0, config.steps)
    parent = live.revision
    _, optimizer = profile.load_revision(parent)
    with host.training(model), live.adapter.attached(), live.adapter.restored_on_error():
        earlier = remembered(taste, lesson) if config.replay else []
        samples, conditionings = samples_of(model, earlier, lesson.images)
        report, moments = papa_update(
            live.adapter,
            host.noise_predictor(model, conditionings, samples.latents.shape[1:], negative),
            samples,
            host.alphas_cumprod(model),
            config,
            generator=torch.Generator().manual_seed(parent + 1),
            guidance=None if negative is None else Guidance(len(conditionings), cfg),
            optimizer_state=optimizer,
            progress=progress,
            should_stop=host.interrupted,
            free_memory=host.free_memory(model),
        )
        if report.stopped:
            host.stop_if_interrupted()
        if report.rolled_back:
            _tell(profile.name, parent, rolled_back=report.rolled_back)
            return report, None
        revision = profile.commit_revision(
            live.adapter.state_dict(),
            moments,
            used=[query.id for query in lesson.queries],
            report=report.summary(),
            parent=parent,
            metadata={"base_hash": live.base_hash, "method": "EPAPA" if taste.boundary else "PAPA"},
        )
    live.revision = revision.number
    _tell(profile.name, revision.number)
    return report, revision


def _tell(profile: str, revision: int, **more: str) -> None:
    """The pages hear which revision is in use now, and why if it is still the one before."""
    event = {"profile": profile, "revision": revision, **more}
    host.send("palate.revision", event, everyone=True)


def _in_words(report: UpdateReport, revision: Revision | None) -> str:
    if revision is None:
        return f"Nothing changed: {report.rolled_back}. Your ratings are kept."
    return (
        f"Revision {revision.number}: learnt from {report.samples} images in {report.steps} steps, "
        f"{report.seconds:.1f} s, loss {report.loss[0]:.4g} → {report.loss[-1]:.4g}"
        + ("" if report.drift is None else f", drift {report.drift:.3g}")
        + ("." if report.early is None else f"; it stopped early: {report.early}.")
    )
