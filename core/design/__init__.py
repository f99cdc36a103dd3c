"""ED Query Designer: which prompts to show next. Source: arXiv 2512.19057 (ED-PBRL)."""

from .advice import Advice, stopping_advice
from .gain import expected_gain, information_gain
from .information import (
    difference_matrix,
    exact_information,
    information,
    objective_value,
)
from .policies import Design, design_queries
from .pool import select_pool
from .query import ADAPTIVE_CRITERIA, MODES, Query, next_query, redesign
from .search import best_prompts, best_utility
from .space import PromptSpace

__all__ = [
    "ADAPTIVE_CRITERIA",
    "MODES",
    "Advice",
    "Design",
    "PromptSpace",
    "Query",
    "best_prompts",
    "best_utility",
    "design_queries",
    "difference_matrix",
    "exact_information",
    "expected_gain",
    "information",
    "information_gain",
    "next_query",
    "objective_value",
    "redesign",
    "select_pool",
    "stopping_advice",
]
