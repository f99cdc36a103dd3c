"""The panel's HTTP API: questions, answers and profiles as JSON; images as PNG.

Needs aiohttp and core only; the server object is passed in. Reading never writes. Disk work runs
in a thread, so a slow disk never stalls ComfyUI's event loop. No part of a path comes from a
client: an id or a name is looked up in the store.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from ..core.profile import (
    AnswerConflict,
    InvalidAnswer,
    InvalidName,
    ProfileBusy,
    ProfileError,
    ProfileStore,
    Query,
    TasteProfile,
    UnknownProfile,
    UnknownQuery,
    UnknownRevision,
)
from ..core.words.learnt import learnt
from .thumbnails import Thumbnails, image_url, preview_file

MAX_BODY = 64 * 1024
STATES = ("pending", "answered", "used", "skipped", "all")
QUERY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")

# The images of a question never change and its id is never used again. A revision's previews never
# change either, and their address carries when the revision was made.
IMAGE_HEADERS = {
    "Content-Type": "image/png",
    "Cache-Control": "private, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
}
JSON_HEADERS = {"Cache-Control": "no-store"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server(Protocol):
    """The part of ComfyUI's PromptServer that is used here."""

    routes: web.RouteTableDef

    def send_sync(self, event: str, data: dict[str, Any], sid: str | None = None) -> None: ...


class Refusal(Exception):
    """A request that is turned down with ``status`` before the store sees it."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def register(
    server: Server, store: ProfileStore, on_answer: Callable[[str], None] | None = None
) -> None:
    """Adds the routes to ``server``; ``on_answer(query_id)`` is called once an answer is on disk.

    The callback runs in the server's thread: it should only wake whoever waits for that query.
    """
    routes = server.routes
    owners: dict[str, str] = {}  # the profile of each query that was listed
    thumbnails = Thumbnails()

    @routes.get("/palate/queries")
    @_errors_as_json
    async def list_queries(request: web.Request) -> web.Response:
        state = request.query.get("state", "pending")
        if state not in STATES:
            raise Refusal(400, f"state must be one of {', '.join(STATES)}; got {state!r}.")
        profile = request.query.get("profile")
        queries = await asyncio.to_thread(_select_queries, store, state, profile)
        owners.update({query.id: query.profile for query in queries})
        return _json({"queries": [query_json(query) for query in queries]})

    @routes.get("/palate/queries/{id}")
    @_errors_as_json
    async def get_query(request: web.Request) -> web.Response:
        query = await asyncio.to_thread(_find, store, owners, _query_id(request))
        return _json(query_json(query))

    @routes.get("/palate/queries/{id}/image/{index}")
    @_errors_as_json
    async def get_image(request: web.Request) -> web.StreamResponse:
        query = await asyncio.to_thread(_find, store, owners, _query_id(request))
        index = request.match_info["index"]
        candidate = {str(c.index): c for c in query.candidates}.get(index)
        if candidate is None:
            raise Refusal(404, f"This question has no image {index[:20]!r}.")
        if not await asyncio.to_thread(candidate.image.is_file):
            raise Refusal(404, f"The file of image {index} is missing from the profile's folder.")
        return web.FileResponse(candidate.image, headers=IMAGE_HEADERS)

    @routes.post("/palate/queries/{id}/answer")
    @_errors_as_json
    async def post_answer(request: web.Request) -> web.Response:
        answer = await _read_object(request)
        query_id = _query_id(request)
        query = await asyncio.to_thread(_record_answer, store, owners, query_id, answer)
        if on_answer is not None:
            on_answer(query.id)
        return _json(query_json(query))

    @routes.get("/palate/profiles")
    @_errors_as_json
    async def list_profiles(request: web.Request) -> web.Response:
        return _json({"profiles": await asyncio.to_thread(_list_profiles, store)})

    @routes.get("/palate/profiles/{name}")
    @_errors_as_json
    async def get_profile(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return _json(await asyncio.to_thread(_summarise, store, thumbnails, name))

    @routes.get("/palate/profiles/{name}/revisions/{revision}/preview/{index}")
    @_errors_as_json
    async def get_preview(request: web.Request) -> web.StreamResponse:
        revision, index = _number(request, "revision"), _number(request, "index")
        name = request.match_info["name"]
        path = await asyncio.to_thread(_find_preview, store, name, revision, index)
        if path is None:
            raise Refusal(404, f"No preview {index} was drawn of revision {revision}.")
        return web.FileResponse(path, headers=IMAGE_HEADERS)

    @routes.post("/palate/profiles/{name}/revision")
    @_errors_as_json
    async def post_revision(request: web.Request) -> web.Response:
        number = _revision_number(await _read_object(request))
        name = request.match_info["name"]
        revision = await asyncio.to_thread(_activate, store, name, number)
        server.send_sync("palate.revision", {"profile": name, "revision": revision})
        return _json({"profile": name, "revision": revision})


def query_json(query: Query) -> dict[str, Any]:
    """A query as the panel reads it; candidates come in the order in which they are shown."""
    by_index = {candidate.index: candidate for candidate in query.candidates}
    return {
        "id": query.id,
        "profile": query.profile,
        "round": query.round,
        "state": query.state,
        "kinds": list(query.kinds),
        "candidates": [
            {
                "index": index,
                "image_url": image_url(query, index),
                "prompt": by_index[index].prompt,
            }
            for index in query.order
        ],
        "answer": query.answer,
        "created": query.created,
        "used_by": query.used_by,
    }


# -- work on the store, run in a thread ------------------------------------------------------


def _select_queries(store: ProfileStore, state: str, profile: str | None) -> list[Query]:
    if profile is not None:
        with store.look_into(profile) as taste:
            return taste.queries(None if state == "all" else state)
    if state != "pending":
        raise Refusal(400, "Name a profile to list questions that are not pending.")
    return store.pending()


@contextmanager
def _profile_of(
    store: ProfileStore, owners: dict[str, str], query_id: str
) -> Iterator[TasteProfile]:
    """The profile that asked; looking at a question does not keep it from another ComfyUI."""
    if query_id in owners:
        with store.look_into(owners[query_id]) as profile:
            yield profile
    else:
        yield store.find_query(query_id)[0]


def _find(store: ProfileStore, owners: dict[str, str], query_id: str) -> Query:
    with _profile_of(store, owners, query_id) as profile:
        return profile.query(query_id)


def _record_answer(
    store: ProfileStore, owners: dict[str, str], query_id: str, answer: dict[str, Any]
) -> Query:
    with _profile_of(store, owners, query_id) as profile:
        return profile.answer(query_id, answer)


def _activate(store: ProfileStore, name: str, number: int) -> int:
    with store.look_into(name) as profile:
        return profile.activate(number).number


def _summarise(store: ProfileStore, thumbnails: Thumbnails, name: str) -> dict[str, Any]:
    with store.look_into(name) as profile:
        summary = profile.summary()
        revisions = thumbnails.with_pictures(profile, summary["revisions"])
        return {**summary, "revisions": revisions, "learnt": learnt(profile)}


def _find_preview(store: ProfileStore, name: str, revision: int, index: int) -> Path | None:
    with store.look_into(name) as profile:
        return preview_file(profile, revision, index)


def _list_profiles(store: ProfileStore) -> list[dict[str, Any]]:
    return [_profile_line(store, name) for name in store.names()]


def _profile_line(store: ProfileStore, name: str) -> dict[str, Any]:
    """One profile at a glance; its numbers are null while it cannot be opened."""
    line: dict[str, Any] = dict.fromkeys(("ratings", "rounds", "revision", "pending"))
    try:
        with store.look_into(name) as profile:
            line = {
                "ratings": profile.ratings,
                "rounds": profile.rounds,
                "revision": profile.active.number,
                "pending": len(profile.queries("pending")),
            }
    except ProfileBusy:
        return {"name": name, **line, "busy": True, "error": None}
    except ProfileError as error:  # a damaged profile must not hide the others
        return {"name": name, **line, "busy": False, "error": str(error)}
    return {"name": name, **line, "busy": False, "error": None}


# -- requests and responses ------------------------------------------------------------------


def _json(data: object, status: int = 200) -> web.Response:
    return web.json_response(data, status=status, headers=JSON_HEADERS)


def _query_id(request: web.Request) -> str:
    query_id = request.match_info["id"]
    if not QUERY_ID.fullmatch(query_id):
        raise Refusal(404, "There is no such question.")
    return query_id


def _number(request: web.Request, part: str) -> int:
    text = request.match_info[part]
    if not NUMBER.fullmatch(text):
        raise Refusal(404, f"There is no {part} {text[:20]!r}.")
    return int(text)


async def _read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in a POST's body; refuses foreign pages, other types and large bodies."""
    _refuse_foreign_page(request)
    if request.content_type != "application/json":
        raise Refusal(415, "Send the answer as JSON (Content-Type: application/json).")
    body = bytearray()
    async for chunk in request.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > MAX_BODY:
            raise Refusal(413, f"The request is larger than {MAX_BODY // 1024} KiB.")
    try:
        data = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"The request is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise Refusal(400, "The request must be a JSON object.")
    return data


def _refuse_foreign_page(request: web.Request) -> None:
    """Only the page that this server served may write (a program sends neither header)."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        origin = request.headers.get("Origin")
        foreign = origin is not None and origin.lower().split("://")[-1] != request.host.lower()
    if foreign:
        raise Refusal(403, "This request came from another web page and was refused.")


def _revision_number(data: dict[str, Any]) -> int:
    number = data.get("revision")
    if set(data) != {"revision"} or type(number) is not int or number < 0:
        raise Refusal(400, 'Send {"revision": n} with n a whole number, 0 for the base.')
    return number


def _status(error: ProfileError) -> int:
    if isinstance(error, (UnknownProfile, UnknownQuery, UnknownRevision)):
        return 404
    if isinstance(error, (AnswerConflict, ProfileBusy)):
        return 409
    if isinstance(error, (InvalidAnswer, InvalidName)):
        return 400
    return 500


def _errors_as_json(handler: Handler) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return _json({"error": str(refusal)}, refusal.status)
        except ProfileError as error:
            return _json({"error": str(error)}, _status(error))
        except OSError as error:
            logging.exception("Palate: %s %s failed", request.method, request.path)
            return _json({"error": f"The profile's folder could not be used: {error}"}, 500)

    return guarded
