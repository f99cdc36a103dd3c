"""Two tastes on one model: the bundled workflow shows the base, each taste and the mix."""

from __future__ import annotations

import copy
import sys
from itertools import combinations
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.comfyui]

TITLES = ["Without a taste", "First taste alone", "The mix", "Second taste alone"]


def teach(server: Any, graph: dict[str, Any], name: str, likes: str) -> None:
    """One round with a simulated rater, with images of its own: else both may like the same."""
    nodes = copy.deepcopy(graph)
    nodes["6"]["inputs"]["seed"] = sum(map(ord, name))
    nodes["2"]["inputs"].update({"name": name, "rank": 8})
    nodes["9"]["inputs"].update({"learning_rate": 1e-2, "steps": 6})
    nodes["11"] = {"class_type": "PalateSimulatedRater", "inputs": {"taste": likes}}
    nodes["8"]["inputs"]["rater"] = ["11", 0]
    server.wait(server.queue(nodes))


def drawn(page: Any, title: str) -> list[str]:
    """The paths of the images that the preview of that title shows."""
    found: list[str] = page.js(
        "const node = app.graph.nodes.find((n) => n.type === 'PreviewImage'"
        "  && n.title === arguments[0]);"
        "return (app.nodeOutputs[node.id]?.images ?? []).map((i) =>"
        "  `/view?${new URLSearchParams(i)}`)",
        title,
    )
    return found


def test_the_bundled_mix_draws_the_base_each_taste_and_both(
    page: Any, server: Any, graph: dict[str, Any], profile: str
) -> None:
    other = f"{profile} too"
    teach(server, graph, profile, "warm colours")
    teach(server, graph, other, "dark")
    page.open_bundled("taste_mix", profile)
    page.js(
        "app.graph.nodes.find((n) => n.title === 'Second taste').widgets[0].value = arguments[0]",
        other,
    )
    page.run()
    pages = sys.modules["palate_tests_page"]
    pages.until("all images", lambda: all(len(drawn(page, title)) == 4 for title in TITLES))
    shown = {title: [server.fetch(path) for path in drawn(page, title)] for title in TITLES}
    alike = [(a, b) for a, b in combinations(TITLES, 2) if shown[a] == shown[b]]
    assert not alike
    page.graph_screenshot("mix-graph", 0.66, (130, 250))
