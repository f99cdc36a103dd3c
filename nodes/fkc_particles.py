"""FKC Particles: draws many images that follow the taste, and picks those worth a rating."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..core.budget import BudgetState, LabelBudget
from ..core.fkc import Particles
from ..core.profile import BUDGET
from ..core.reward import RewardModel
from . import host
from .answers_seen import answers_seen
from .ess_plot import ess_plot
from .steering_inputs import reward_for, settings_of, steering_inputs
from .wires import CATEGORY, TasteType

SELECTIONS = {"mean": "mean", "upper confidence": "ucb", "weight": "weight"}


class FKCParticles(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PalateFKCParticles",
            display_name="FKC Particles",
            category=CATEGORY,
            description="Draws particles that follow what you have rated so far and chooses the "
            "few to show you next, so that a budget of ratings goes far. "
            "Method: budgeted Feynman–Kac diffusion, arXiv 2503.02819.",
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image", tooltip="Its size and mask; one is enough."),
                TasteType.Input("taste"),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True,
                    tooltip="Of the noise.",
                ),
                io.Int.Input("steps", default=20, min=1, max=1000),
                io.Float.Input("cfg", default=3.0, min=0.0, max=100.0, step=0.1),
                io.Combo.Input("scheduler", options=list(host.SCHEDULERS), default="normal"),
                io.Int.Input(
                    "particles", default=12, min=1, max=512,
                    tooltip="How many are drawn. More find better images and take longer.",
                ),
                io.Int.Input(
                    "show", default=4, min=1, max=64,
                    tooltip="How many of them are put to you.",
                ),
                io.Int.Input(
                    "budget", default=64, min=1, max=10000,
                    tooltip="Ratings you are willing to give in all. Early questions explore, late "
                    "ones show the best; the panel shows how many are left.",
                ),
                *steering_inputs(),
                io.Combo.Input(
                    "selection", options=list(SELECTIONS),
                    tooltip="The best by expected taste (mean), with a bonus for what is not known "
                    "yet (upper confidence), or by particle weight (the draft's).",
                ),
                io.Int.Input(
                    "at_once", default=0, min=0, max=512,
                    tooltip="Particles in one call of the model, when memory is short. 0: all. "
                    "The images are the same.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="to_show"),
                io.Latent.Output(display_name="all_particles"),
                io.Float.Output(display_name="weights", is_output_list=True),
                io.Image.Output(display_name="ess"),
                io.String.Output(display_name="report"),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> Any:
        """Changes when a question was answered or skipped."""
        return answers_seen()

    @classmethod
    def validate_inputs(cls, particles: int | None = None, show: int | None = None) -> bool | str:
        if particles is not None and show is not None and show > particles:
            return f"show is {show}, but only {particles} particles are drawn: raise particles."
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list,
        negative: list,
        latent_image: dict[str, Tensor],
        taste: host.Taste,
        seed: int,
        steps: int,
        cfg: float,
        scheduler: str,
        particles: int,
        show: int,
        budget: int,
        strength: float,
        weights: str,
        exact_gradient: bool,
        resample_below: float,
        selection: str,
        at_once: int,
    ) -> io.NodeOutput:
        plan = LabelBudget(budget, show, SELECTIONS[selection], seed=seed)
        _remember(taste, budget)
        reward, answers = reward_for(taste, host.latent_shape(model, latent_image))
        state = plan.state(answers)
        guided = reward.ready and not state.cold and strength > 0
        steering = host.Steering(
            reward if guided else None,
            strength,
            settings_of(weights, exact_gradient, resample_below),
            at_once,
        )
        found: list[Particles] = []
        drawn = host.draw(
            model, host.particle_sampler(steering, found.append), latent_image,
            particles if guided else show,
            seed=seed, steps=steps, cfg=cfg, scheduler=scheduler,
            positive=positive, negative=negative,
        )  # fmt: skip
        cloud = found[0]
        chosen = _choose(plan, state, cloud, reward if guided else None, show)
        return io.NodeOutput(
            {"samples": drawn[chosen]},
            {"samples": drawn},
            cloud.weights.tolist(),
            ess_plot(cloud, resample_below if guided else 0.0),
            _in_words(state, reward, strength, cloud),
        )


def _choose(
    plan: LabelBudget,
    state: BudgetState,
    cloud: Particles,
    reward: RewardModel | None,
    show: int,
) -> Tensor:
    """Always ``show`` of them: a spent budget shows the best."""
    state = replace(state, count=show, epsilon=0.0 if state.left == 0 else state.epsilon)
    if reward is not None:
        reward.to("cpu")
    here = replace(cloud, x=cloud.x.cpu())
    return plan.choose(state, here, reward, plan.generator(state.asked))


def _remember(taste: host.Taste, budget: int) -> None:
    if taste.profile.settings.get(BUDGET) != budget:
        taste.profile.set_setting(BUDGET, budget)


def _in_words(state: BudgetState, reward: RewardModel, strength: float, cloud: Particles) -> str:
    left = f"{state.left} of {state.left + state.spent} ratings left."
    if not reward.ready:
        return f"Waiting for ratings: {reward.reason}. These are plain images. {left}"
    if strength == 0:
        return f"Strength is 0: these are plain images. {left}"
    ess = float(cloud.ess.min()) / len(cloud.log_weights) if len(cloud.ess) else 1.0
    return (
        f"{len(cloud.log_weights)} particles follow {reward.labels} ratings ({reward.accuracy:.0%} "
        f"of unseen pairs told right); smallest effective sample size {ess:.0%}. {left}"
    )
