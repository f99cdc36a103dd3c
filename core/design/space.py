"""The prompt space: slots of tokens with features; a prompt is one token a slot.

A finite-horizon, deterministic Markov decision process whose state is the slot and whose action is
the token. The feature of a prompt is the sum over its slots. Source: arXiv 2512.19057, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EMPTY = ""


class PromptSpace:
    """H slots of n_h tokens each, with token features φ in R^d.

    slots: the tokens of each slot, in the order of the prompt. The empty token ``""`` is allowed in
    every slot but the first; its feature row is usually zero (`with_empty` adds it). A token that
    stands in several slots is used once a prompt at most; the empty one as often as one likes.
    features: one (n_h, d) tensor a slot. Raises ValueError naming the slot that does not fit.
    """

    def __init__(self, slots: Sequence[Sequence[str]], features: Sequence[Tensor]) -> None:
        self.slots = [[str(token).strip() for token in slot] for slot in slots]
        if not self.slots or len(self.slots) != len(features):
            raise ValueError(
                f"there are {len(self.slots)} slots and {len(features)} feature tensors: give one "
                "tensor of features for each slot, and at least one slot"
            )
        self.features = [
            _checked(f, s, h) for h, (s, f) in enumerate(zip(self.slots, features, strict=True))
        ]
        self.dim = self.features[0].shape[1]
        if any(f.shape[1] != self.dim for f in self.features):
            raise ValueError(
                f"the features of all slots must have one width, not "
                f"{[f.shape[1] for f in self.features]}: embed all with the same encoder"
            )
        if EMPTY in self.slots[0]:
            raise ValueError("slot 0 holds the empty token: a prompt needs a first word")
        self._ids = self._token_ids()
        named = torch.cat([ids[ids >= 0] for ids in self._ids])
        self.has_shared_tokens = len(named.unique()) < len(named)
        self._check_room()

    @classmethod
    def with_empty(cls, slots: Sequence[Sequence[str]], features: Sequence[Tensor]) -> PromptSpace:
        """The space in which every later slot may also stay empty (feature zero)."""
        words, rows = [list(slot) for slot in slots], [f.double() for f in features]
        for h in range(1, len(words)):
            if EMPTY not in words[h]:
                words[h].append(EMPTY)
                rows[h] = torch.cat([rows[h], rows[h].new_zeros(1, rows[h].shape[1])])
        return cls(words, rows)

    def _token_ids(self) -> list[Tensor]:
        """A number for each distinct token of the space; −1 for the empty one."""
        known: dict[str, int] = {EMPTY: -1}
        return [torch.tensor([known.setdefault(t, len(known)) for t in s]) for s in self.slots]

    def _check_room(self) -> None:
        for h, ids in enumerate(self._ids[1:], start=1):
            earlier = torch.cat(self._ids[:h])
            fresh = bool((~torch.isin(ids, earlier)).any() | (ids < 0).any())
            if not fresh and len(ids) <= h:
                raise ValueError(
                    f"slot {h} has no token of its own left once earlier slots took theirs "
                    f"({self.slots[h]}): add words to it, or the empty token"
                )

    @property
    def horizon(self) -> int:
        """Number of slots H."""
        return len(self.slots)

    def text(self, prompt: Sequence[int], separator: str = ", ") -> str:
        """The prompt in words: its tokens in slot order, empty ones left out."""
        words = [self.slots[h][token] for h, token in enumerate(prompt)]
        return separator.join(word for word in words if word)

    def allowed(self, prefix: Sequence[int]) -> Tensor:
        """Which tokens may follow a prefix of token indices: bool (n_h,), h = len(prefix)."""
        return self._free(dict(enumerate(prefix)), len(prefix))

    def allowed_in(self, prompt: Sequence[int], slot: int) -> Tensor:
        """Which tokens a slot may hold beside the prompt's other slots: bool (n_h,)."""
        return self._free({h: a for h, a in enumerate(prompt) if h != slot}, slot)

    def _free(self, used: dict[int, int], slot: int) -> Tensor:
        ids = self._ids[slot]
        mask = torch.ones(len(ids), dtype=torch.bool)
        if self.has_shared_tokens:
            for h, token in used.items():
                mask &= (ids != self._ids[h][token]) | (ids < 0)
        return mask

    def prompt_features(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Σ_h φ(token_h) of each prompt: (N, d) float64."""
        total = torch.zeros(len(prompts), self.dim, dtype=torch.float64)
        for tokens, rows in zip(self._indices(prompts), self.features, strict=True):
            total += rows[tokens]
        return total

    def prefix_features(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Features of every prefix, the dense feedback of the paper: (N, H, d) float64."""
        tokens = [f[i] for i, f in zip(self._indices(prompts), self.features, strict=True)]
        return torch.stack(tokens, 1).cumsum(1)

    def _indices(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        index = torch.as_tensor(prompts, dtype=torch.long)
        return index.reshape(len(prompts), self.horizon).T

    def draw(self, weights: Sequence[Tensor], generator: torch.Generator) -> list[int]:
        """One prompt, slot by slot, from token weights (n_h,), without using a token twice."""
        prompt: list[int] = []
        for slot in weights:
            mask = self.allowed(prompt)
            chances = torch.where(mask, slot.double(), 0.0)
            if not float(chances.sum()) > 0:
                chances = mask.double()
            prompt.append(int(torch.multinomial(chances, 1, generator=generator)))
        return prompt

    def random_prompts(self, count: int, generator: torch.Generator) -> list[list[int]]:
        """Prompts with uniform tokens: the baseline every design must beat."""
        uniform = [torch.ones(len(slot), dtype=torch.float64) for slot in self.slots]
        return [self.draw(uniform, generator) for _ in range(count)]


def _checked(features: Tensor, slot: list[str], h: int) -> Tensor:
    if features.ndim != 2 or len(features) != len(slot) or not slot:
        raise ValueError(
            f"slot {h} has {len(slot)} tokens and features {tuple(features.shape)}: it needs at "
            f"least one token and features ({len(slot)}, d)"
        )
    if len(set(slot)) < len(slot):
        twice = sorted({token for token in slot if slot.count(token) > 1})
        raise ValueError(f"slot {h} lists {twice} more than once: remove the repeats")
    if not torch.isfinite(features).all():
        raise ValueError(f"the features of slot {h} are not finite: check the encoder's output")
    return features.detach().to("cpu", torch.float64)
