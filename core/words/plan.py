"""Query plans: which candidates are compared, and in which features the answer is understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FEATURES = "plan.features"  # name of a plan's tensor among those of its query


@dataclass(frozen=True, eq=False)
class Plan:
    """K candidates to compare: unscaled features (K, d), and their prompts if words made them.

    encoder: names the feature space. scale: what brings features to unit size for the fit. key:
    names everything that the plan was made from, so that a pending question is found again.
    """

    encoder: str
    scale: float
    key: str
    prompts: tuple[str, ...]
    features: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, indices: Sequence[int]) -> Plan:
        """The plan of some of its candidates, in that order."""
        rows = torch.as_tensor(list(indices), dtype=torch.long)
        prompts = tuple(self.prompts[i] for i in indices) if self.prompts else ()
        return Plan(self.encoder, self.scale, self.key, prompts, self.features[rows])

    def check_drawn(self, embeddings: Sequence[Tensor]) -> None:
        """Refuses images that were not drawn one for each candidate, each with its own prompt.

        ``embeddings`` are the text embeddings of the images' conditionings, in their order. Raises
        ValueError.
        """
        if len(self) != len(embeddings):
            raise ValueError(
                f"The plan has {len(self)} prompts, but Preference Query got {len(embeddings)} "
                "images: draw one image for each prompt (batch size 1), all of them from this plan."
            )
        drawn: list[tuple[str, Tensor]] = []
        for i, (prompt, embedding) in enumerate(zip(self.prompts, embeddings, strict=False)):
            if any(other != prompt and _same(seen, embedding) for other, seen in drawn):
                raise ValueError(
                    f"Image {i + 1} was not drawn with its prompt of the plan ({prompt!r}), but "
                    "with that of another image: connect the prompts of ED Query Designer to CLIP "
                    "Text Encode, and its conditioning to the sampler and to Preference Query."
                )
            drawn.append((prompt, embedding))

    def to_json(self) -> dict[str, Any]:
        """What a query keeps of the plan besides `tensors`."""
        return {
            "encoder": self.encoder,
            "scale": self.scale,
            "key": self.key,
            "prompts": list(self.prompts),
        }

    def tensors(self) -> dict[str, Tensor]:
        return {FEATURES: self.features.detach().float().cpu().clone()}

    @classmethod
    def from_json(cls, plan: Mapping[str, Any], features: Tensor) -> Plan:
        return cls(
            str(plan["encoder"]), float(plan["scale"]), str(plan["key"]),
            tuple(plan["prompts"]), features,
        )  # fmt: skip


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
