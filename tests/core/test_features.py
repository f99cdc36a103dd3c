"""The fixed feature space: closed forms and invariances."""

from __future__ import annotations

import pytest
import torch
from palate.core.features import GRID, detail, diversity, image_features, luminance
from torch import Tensor


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_luminance_weighs_green_over_red_over_blue() -> None:
    colours = torch.eye(3)[:, None, None].expand(3, 2, 2, 3)
    torch.testing.assert_close(luminance(colours)[:, 0, 0], torch.tensor([0.299, 0.587, 0.114]))
    torch.testing.assert_close(luminance(torch.full((1, 4, 5, 3), 0.4)), torch.full((1, 4, 5), 0.4))


def test_detail_is_the_sum_of_both_slopes() -> None:
    across = torch.linspace(0, 1, 5).view(1, 1, 5, 1).expand(1, 4, 5, 3)
    torch.testing.assert_close(detail(across), torch.full((1, 3, 4), 0.25))
    down = torch.linspace(1, 0, 5).view(1, 5, 1, 1).expand(1, 5, 3, 3)
    torch.testing.assert_close(detail(down), torch.full((1, 4, 2), 0.25))
    both = (torch.arange(4).view(4, 1) * 0.1 + torch.arange(4) * 0.05)[None, :, :, None]
    torch.testing.assert_close(detail(both.expand(1, 4, 4, 3)), torch.full((1, 3, 3), 0.15))


def test_features_of_a_flat_image_are_its_colour_and_no_detail() -> None:
    colour = torch.tensor([0.2, 0.5, 0.9])
    features = image_features(colour.expand(2, 16, 24, 3))
    cells = GRID * GRID
    assert features.shape == (2, 4 * cells)
    expected = colour.repeat_interleave(cells).expand(2, -1)
    torch.testing.assert_close(features[:, : 3 * cells], expected)
    assert torch.equal(features[:, 3 * cells :], torch.zeros(2, cells))


def test_features_tell_where_a_colour_is() -> None:
    image = torch.zeros(1, 16, 16, 3)
    image[0, 4:8, 12:16, 2] = 1.0  # row 1, column 3 of the grid, in blue
    blue = image_features(image)[0, 2 * GRID**2 : 3 * GRID**2].view(GRID, GRID)
    assert torch.nonzero(blue).tolist() == [[1, 3]]
    assert float(blue[1, 3]) == 1.0


def test_each_image_is_seen_on_its_own() -> None:
    images = noise(5, 20, 20, 3)
    together = image_features(images)
    alone = torch.cat([image_features(image[None]) for image in images])
    torch.testing.assert_close(together, alone)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(image_features(images[order]), together[order])


def test_colour_features_do_not_depend_on_size() -> None:
    small = noise(1, 8, 8, 3)
    large = small.repeat_interleave(4, 1).repeat_interleave(4, 2)
    cells = 3 * GRID * GRID
    torch.testing.assert_close(
        image_features(small)[:, :cells], image_features(large)[:, :cells], rtol=1e-5, atol=1e-5
    )


def test_detail_features_do_not_depend_on_brightness() -> None:
    images, cells = noise(2, 16, 16, 3) * 0.5, 3 * GRID * GRID
    brighter = image_features(images + 0.3)
    torch.testing.assert_close(brighter[:, cells:], image_features(images)[:, cells:])
    torch.testing.assert_close(brighter[:, :cells], image_features(images)[:, :cells] + 0.3)


def test_an_alpha_channel_and_the_precision_are_ignored() -> None:
    images = noise(2, 16, 16, 3)
    with_alpha = torch.cat([images, noise(2, 16, 16, 1, seed=1)], dim=3)
    assert torch.equal(image_features(with_alpha), image_features(images))
    assert image_features(images.double()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 3, 16, 1), (2, 2, 16, 16, 3)])
def test_what_is_no_batch_of_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images must be"):
        image_features(torch.zeros(shape))


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert diversity(triangle) == pytest.approx((3 + 4 + 5) / 3)
    assert diversity(triangle + 7) == pytest.approx(4)
    assert diversity(2 * triangle) == pytest.approx(8)
    assert diversity(torch.ones(4, 2)) == 0.0
    with pytest.raises(ValueError, match="two"):
        diversity(torch.ones(1, 2))
