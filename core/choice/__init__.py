"""Choice models: what picks, rankings and likes say about a person's hidden utility."""

from .model import ChoiceModel

__all__ = ["ChoiceModel"]
