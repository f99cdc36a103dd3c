"""Feynman–Kac corrected sampling: particles that follow a reward and know what that cost.

The target is q(x0)·exp(β_max·r(x0)), q being the distribution of the model's own ancestral
sampler. `sample_fkc` draws weighted particles from it (arXiv 2503.02819, Prop. D.6, and an exact
discrete form); `sample_fk_steering` is the gradient-free baseline of arXiv 2501.06848.
"""

from __future__ import annotations

from .evaluation import SamplingStopped
from .kernels import ancestral_kernel, beta_fractions, rectified_kernel
from .particles import (
    NoParticleLeft,
    Particles,
    effective_sample_size,
    systematic_resample,
)
from .sampler import sample_fkc
from .steering import sample_fk_steering

__all__ = [
    "NoParticleLeft",
    "Particles",
    "SamplingStopped",
    "ancestral_kernel",
    "beta_fractions",
    "effective_sample_size",
    "rectified_kernel",
    "sample_fk_steering",
    "sample_fkc",
    "systematic_resample",
]
