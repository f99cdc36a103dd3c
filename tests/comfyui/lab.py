"""Workflows written as Python, and what a test reads of their runs on a real ComfyUI."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import queue
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import torch
from safetensors.torch import load_file
from torch import Tensor

Link = list  # [node id, output index], as a queued workflow has it
RANK = 4
LATER, NOW = "rate later", "ask now"
_fresh = itertools.count(1)


@dataclass
class Graph:
    """A workflow in API format: ``add`` puts a node there and returns its first output's link."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, id: str, class_type: str, **inputs: Any) -> Link:
        assert id not in self.nodes, id
        self.nodes[id] = {"class_type": class_type, "inputs": inputs}
        return [id, 0]

    def set(self, id: str, **inputs: Any) -> Graph:
        self.nodes[id]["inputs"].update(inputs)
        return self

    def again(self, *ids: str) -> Graph:
        """Makes ComfyUI run these nodes again: an input that a node does not know is ignored by
        the node, but makes the key under which its result is cached a new one."""
        for id in ids:
            self.nodes[id]["inputs"]["fresh"] = next(_fresh)
        return self

    def save(self, latent: str) -> Graph:
        """Saves the latent of node ``latent`` under the id ``latent`` + " file"."""
        self.add(f"{latent} file", "SaveLatent", samples=[latent, 0], filename_prefix="t/latent")
        return self


def output(id: str, index: int) -> Link:
    return [id, index]


def starter(graph: Graph) -> Graph:
    graph.add("starter", "PalateStarterModel")
    return graph


def taste(graph: Graph, name: str, model: Link | None = None, id: str = "taste", **o: Any) -> Link:
    settings = {"rank": RANK, "strength": 1.0, "boundary": 0.0, **o}
    model = model or output("starter", 0)
    return graph.add(id, "PalateTasteProfile", model=model, name=name, **settings)


def prompts(graph: Graph, text: str, count: int = 2) -> None:
    """The nodes "positive", "negative" and "empty" (latents)."""
    clip = output("starter", 1)
    graph.add("positive", "CLIPTextEncode", clip=clip, text=text)
    graph.add("negative", "CLIPTextEncode", clip=clip, text="")
    graph.add("empty", "EmptyLatentImage", width=64, height=64, batch_size=count)


def sampler(graph: Graph, id: str, model: Link, seed: int, **settings: Any) -> Link:
    chosen = {
        "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["empty", 0],
        "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        **settings,
    }  # fmt: skip
    return graph.add(id, "KSampler", model=model, seed=seed, **chosen)


def question(graph: Graph, latents: Link, **o: Any) -> Link:
    """Decodes ``latents`` and puts them to the person: the nodes "pixels" and "query"."""
    graph.add("pixels", "VAEDecode", samples=latents, vae=output("starter", 2))
    settings = {"mode": NOW, "timeout": 0, "on_timeout": "stop this branch", **o}
    return graph.add(
        "query", "PalatePreferenceQuery",
        **{"taste": ["taste", 1], "images": ["pixels", 0], "latents": latents,
           "conditioning": ["positive", 0], **settings},
    )  # fmt: skip


def update(graph: Graph, feedback: Link = ("query", 0), **o: Any) -> Link:
    settings = {
        "steps": 2, "learning_rate": 0.01, "timesteps": 2, "replay": 2, "variant": "code",
        "bound": "hinge", **o,
    }  # fmt: skip
    inputs = {"model": ["taste", 0], "taste": ["taste", 1], "feedback": list(feedback), **settings}
    return graph.add("update", "PalatePAPAUpdate", **inputs)


def whole_round(
    name: str,
    seed: int,
    *,
    count: int = 2,
    text: str = "a crimson cat",
    rater: str | None = None,
    mode: str = NOW,
    boundary: float = 0.0,
    **learning: Any,
) -> Graph:
    """The bundled workflow in small: "question" → "query" → "update" → "after", latents saved."""
    graph = starter(Graph())
    taste(graph, name, boundary=boundary)
    prompts(graph, text, count)
    sampler(graph, "question", output("taste", 0), seed)
    options = {}
    if rater is not None:
        options["rater"] = graph.add("rater", "PalateSimulatedRater", taste=rater)
    question(graph, output("question", 0), mode=mode, **options)
    update(graph, **learning)
    sampler(graph, "after", output("update", 0), seed)
    graph.save("question").save("after")
    return graph


def plain_question(name: str, color: int, count: int = 2, **o: Any) -> Graph:
    """A question that costs nothing to draw: ``count`` images of one colour."""
    graph = starter(Graph())
    taste(graph, name)
    prompts(graph, f"a cat {color}", count)
    graph.add("plain", "EmptyImage", width=16, height=16, batch_size=count, color=color)
    question(graph, output("empty", 0), **{"images": ["plain", 0], **o})
    del graph.nodes["pixels"]
    return graph


@dataclass
class Run:
    """What ComfyUI's history says of a prompt that ended well."""

    base: Path
    entry: dict[str, Any]

    @property
    def outputs(self) -> dict[str, Any]:
        return dict(self.entry["outputs"])

    @property
    def cached(self) -> set[str]:
        """Ids of the nodes whose earlier result was taken."""
        return set(self._message("execution_cached")["nodes"])

    @property
    def asked(self) -> str:
        """Id of the question that the node "query" put, or had put."""
        return str(self.outputs["query"]["palate"][0])

    def _message(self, kind: str) -> dict[str, Any]:
        return next(data for event, data in self.entry["status"]["messages"] if event == kind)

    def path(self, id: str, kind: str) -> Path:
        file = self.outputs[id][kind][0]
        return self.base / file["type"] / file["subfolder"] / file["filename"]

    def latent(self, id: str) -> Tensor:
        """The float32 latents of the node ``id``, which ``Graph.save`` saved."""
        return load_file(self.path(f"{id} file", "latents"))["latent_tensor"].float()


class Lab:
    """A server and the calls that tests make on it."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self._names = itertools.count(1)

    # Running ------------------------------------------------------------------------------------

    def run(self, graph: Graph, timeout: float = 300) -> Run:
        return self.finish(self.server.queue(graph.nodes), timeout)

    def finish(self, prompt: str, timeout: float = 300) -> Run:
        return Run(self.server.base, self.server.wait(prompt, timeout))

    def sample(
        self,
        seed: int = 7,
        *,
        name: str | None = None,
        lora: tuple[str, float] | None = None,
        text: str = "a crimson cat",
        **o: Any,
    ) -> Tensor:
        """Latents of the bare starter model, with the taste ``name`` or with a LoRA file on it,
        drawn anew each time."""
        graph = starter(Graph())
        model = output("starter", 0)
        if name is not None:
            model = taste(graph, name, **o)
        if lora is not None:
            file, strength = lora
            model = graph.add(
                "lora", "LoraLoader", model=model, clip=["starter", 1], lora_name=file,
                strength_model=strength, strength_clip=strength,
            )  # fmt: skip
        prompts(graph, text)
        sampler(graph, "drawn", model, seed)
        return self.run(graph.save("drawn").again("drawn")).latent("drawn")

    def teach(self, name: str, rounds: int = 1, seed: int = 100, **o: Any) -> Run:
        """``rounds`` rounds with a simulated rater, each with images of its own."""
        for number in range(rounds):
            last = self.run(whole_round(name, seed + number, **{"rater": "warm colours", **o}))
        return last

    def save_taste(self, name: str, layout: str = "kohya", prefix: str = "") -> str:
        """Name of the LoRA file as LoraLoader takes it."""
        graph = starter(Graph())
        taste(graph, name)
        graph.add("save", "PalateSaveTaste", taste=["taste", 1], filename_prefix=prefix,
                  layout=layout)  # fmt: skip
        return str(self.run(graph).outputs["save"]["text"][0])

    def lora_path(self, lora: str) -> Path:
        return Path(self.server.base) / "models" / "loras" / lora

    # The panel's routes -------------------------------------------------------------------------

    def profile(self, name: str) -> dict[str, Any]:
        return dict(self.server.get(f"/palate/profiles/{urllib.parse.quote(name)}"))

    def activate(self, name: str, revision: int) -> None:
        path = f"/palate/profiles/{urllib.parse.quote(name)}/revision"
        assert self.server.post(path, {"revision": revision})["revision"] == revision

    def query(self, id: str) -> dict[str, Any]:
        return dict(self.server.get(f"/palate/queries/{id}"))

    def answer(self, id: str, answer: dict[str, Any]) -> dict[str, Any]:
        return dict(self.server.post(f"/palate/queries/{id}/answer", answer))

    def pending(self, name: str) -> list[dict[str, Any]]:
        found = self.server.get("/palate/queries?state=pending")["queries"]
        return [query for query in found if query["profile"] == name]

    def wait_for_question(self, name: str, timeout: float = 120) -> dict[str, Any]:
        return wait_until(lambda: next(iter(self.pending(name)), None), timeout)

    def tensors(self, query_id: str, name: str) -> dict[str, Tensor]:
        """What a question keeps for learning, read from the profile's folder."""
        folder = Path(self.server.base) / "user" / "palate" / name / "queries" / query_id
        return load_file(folder / "candidates.safetensors")


def soon(lab: Lab) -> float:
    """A second, and on a machine that is busy the time of a few small requests more."""
    began = time.monotonic()
    for _ in range(10):
        lab.server.get("/system_stats")
    return 1.0 + time.monotonic() - began


def wait_until(condition: Callable[[], Any], timeout: float = 120) -> Any:
    """The first true value of ``condition``; TimeoutError after ``timeout`` seconds."""
    until = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > until:
            raise TimeoutError(f"nothing came within {timeout:.0f} s")
        time.sleep(0.005)
    return value


class Events:
    """The server's events, read in a thread, for the length of a ``with`` block."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/ws?clientId={uuid.uuid4().hex}"
        self._events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._connected = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Events:
        self._thread.start()
        assert self._connected.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended first
            self._loop.call_soon_threadsafe(self._reading.cancel)
        self._thread.join(10)

    def wait(self, kind: str, timeout: float = 120, **where: Any) -> dict[str, Any]:
        """The next event of that kind whose data has the values ``where``."""
        until = time.monotonic() + timeout
        while True:
            try:
                event, data = self._events.get(timeout=max(0.001, until - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no event {kind} {where} within {timeout:.0f} s") from None
            if event == kind and all(data.get(key) == value for key, value in where.items()):
                return data

    def _run(self) -> None:
        self._reading = self._loop.create_task(self._read())
        try:
            self._loop.run_until_complete(self._reading)
        except (asyncio.CancelledError, aiohttp.ClientError):
            pass
        finally:
            self._loop.close()

    async def _read(self) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(self._url) as socket:
            self._connected.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    self._events.put((event["type"], event.get("data") or {}))


def largest_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit."""
    return torch.equal(a, b)
