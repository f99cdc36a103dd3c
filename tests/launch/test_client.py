"""Talking to a server: workflows and failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.client import Client, HTTPFailure, PromptFailed
from launch.server import Server

ROOT = Path(__file__).resolve().parents[2]


class TestClient:
    def test_a_workflow_is_queued_and_waited_for(self, running: Server) -> None:
        client = Client(running.url + "/")
        prompt = client.queue({"1": {"class_type": "KSampler"}})
        assert client.wait(prompt, timeout=5)["outputs"] == {"1": {}}

    def test_a_failing_node_is_named(self, running: Server) -> None:
        with pytest.raises(
            PromptFailed, match=r"PalateThing \(node 7\): ValueError: no such taste"
        ):
            running.wait("bad", timeout=5)

    def test_a_refused_workflow_says_why(self, running: Server) -> None:
        with pytest.raises(PromptFailed, match="invalid prompt"):
            running.queue({"refuse": {}})

    def test_what_never_ends_times_out(self, running: Server) -> None:
        with pytest.raises(TimeoutError, match="unknown"):
            running.wait("unknown", timeout=0)

    def test_a_status_is_kept(self, running: Server) -> None:
        with pytest.raises(HTTPFailure) as caught:
            running.get("/palate/queries/x")
        assert caught.value.status == 404
        assert "nothing here" in caught.value.text
