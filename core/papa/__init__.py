"""PAPA and EPAPA: likes and dislikes fine-tune the model directly, with no reward model.

Source: arXiv 2607.00486. Per rated sample x0 with label y,

    L = y·a·Σ_{t ≥ t0} c_t·‖ε − ε_θ(x_t, t)‖²  +  b·‖ε_θ(x_t', t') − ε_base(x_t', t')‖²

L_p (y > 0) descends, L_PAE (y < 0) ascends, L_QPDE (the second term) holds the model near its
frozen base. EPAPA learns from the noisy end alone, t ≥ t0.
"""

from .config import PapaConfig
from .drift import DriftMeter
from .estimator import LossHistory
from .guidance import Guidance, guided
from .labels import graded_labels
from .loss import PARTS, IndexedPredictor, Predictor, Rows, diffuse, papa_loss, papa_parts
from .memory import is_out_of_memory
from .optimizer import OPTIMIZER_PARTS, optimizer_tensors, restore_optimizer
from .samples import RatedSamples, UpdateReport
from .updater import papa_update

__all__ = [
    "OPTIMIZER_PARTS",
    "PARTS",
    "DriftMeter",
    "Guidance",
    "IndexedPredictor",
    "LossHistory",
    "PapaConfig",
    "Predictor",
    "RatedSamples",
    "Rows",
    "UpdateReport",
    "diffuse",
    "graded_labels",
    "guided",
    "is_out_of_memory",
    "optimizer_tensors",
    "papa_loss",
    "papa_parts",
    "papa_update",
    "restore_optimizer",
]
