"""Talks to a running ComfyUI over HTTP: JSON calls, queueing a workflow, waiting for its result."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from typing import Any

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy


class HTTPFailure(Exception):
    """An answer with a status of 400 or more: ``status`` and the server's own text."""

    def __init__(self, path: str, status: int, text: str) -> None:
        super().__init__(f"{path} answered {status}: {text[:2000]}")
        self.status = status
        self.text = text


class PromptFailed(Exception):
    """A queued workflow that ended in an error or was interrupted; the message names the node."""


class Client:
    """One ComfyUI at ``url``, for example ``http://127.0.0.1:8188``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def fetch(self, path: str, body: Any = None, timeout: float = 60) -> bytes:
        """The raw answer to a GET of ``path``, or to a POST of ``body`` as JSON if it is given."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with _direct.open(request, timeout=timeout) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            raise HTTPFailure(path, error.code, text) from None

    def get(self, path: str, timeout: float = 60) -> Any:
        """The JSON that a GET of ``path`` answers."""
        return json.loads(self.fetch(path, timeout=timeout))

    def post(self, path: str, body: Any, timeout: float = 60) -> Any:
        """The JSON that a POST of ``body`` answers, ``None`` where the answer is empty."""
        answer = self.fetch(path, body, timeout)
        return json.loads(answer) if answer.strip() else None

    def object_info(self) -> dict[str, Any]:
        """Every node type the server offers, by id."""
        return dict(self.get("/object_info"))

    def queue(self, workflow: Mapping[str, Any], client_id: str | None = None) -> str:
        """Queues a workflow in API format and returns its prompt id."""
        body = {"prompt": workflow, "client_id": client_id or uuid.uuid4().hex}
        try:
            return str(self.post("/prompt", body)["prompt_id"])
        except HTTPFailure as failure:
            raise PromptFailed(f"ComfyUI refused the workflow: {failure.text}") from failure

    def wait(self, prompt_id: str, timeout: float = 300) -> dict[str, Any]:
        """The history entry of a prompt once it has ended well.

        Raises ``PromptFailed`` with the failing node's own message, ``TimeoutError`` after
        ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                if entry["status"]["status_str"] != "success":
                    raise PromptFailed(_reason(entry["status"]["messages"]))
                return dict(entry)
            if time.monotonic() > deadline:
                raise TimeoutError(f"Prompt {prompt_id} has not ended after {timeout:.0f} s.")
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Stops the workflow that is running."""
        self.post("/interrupt", {})


def _reason(messages: list[tuple[str, dict[str, Any]]]) -> str:
    for event, data in messages:
        where = f"{data.get('node_type')} (node {data.get('node_id')})"
        if event == "execution_interrupted":
            return f"Interrupted in {where}"
        if event == "execution_error":
            trace = "".join(data.get("traceback") or [])
            kind, text = data.get("exception_type"), data.get("exception_message")
            return f"{where}: {kind}: {text}\n{trace}"
    return f"The workflow failed without a reason: {messages}"
