"""A small reward network on latents, learnt from a profile's answers, for the FKC sampler.

An ensemble of convolutional heads, conditioned on σ, trained from scratch in seconds. Picks and
rankings are Plackett–Luce, likes and stars logistic; each head leaves out one fold of the queries,
and what the heads say about the fold they have not seen calibrates the whole.
"""

from .model import Answered, RewardModel
from .of_profile import answers_of, latest_shape, reward_of

__all__ = ["Answered", "RewardModel", "answers_of", "latest_shape", "reward_of"]
