"""ComfyUI's services: folders, events to the page, progress and interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from server import PromptServer

from ...core.profile import ProfileStore
from ...core.words.feature_cache import FeatureCache


def store() -> ProfileStore:
    """The profiles of this ComfyUI, below its user directory."""
    return ProfileStore(Path(folder_paths.get_user_directory()) / "palate")


def vocabulary_folder() -> Path:
    """Where a person keeps vocabularies of their own; it need not exist."""
    return Path(folder_paths.get_user_directory()) / "palate_vocabularies"


def feature_cache() -> FeatureCache:
    """What text encoders made of words so far."""
    return FeatureCache(Path(folder_paths.get_user_directory()) / "palate_features")


def lora_folder() -> Path:
    """The first folder in which LoraLoader looks."""
    return Path(folder_paths.get_folder_paths("loras")[0])


def server() -> PromptServer:
    return PromptServer.instance


def send(event: str, data: dict[str, Any], everyone: bool = False) -> None:
    """An event with ids only, to the page that queued the prompt, or to every page."""
    client = None if everyone else server().client_id
    if everyone or client is not None:
        server().send_sync(event, data, client)


def interrupted() -> bool:
    return bool(comfy.model_management.processing_interrupted())


def stop_if_interrupted() -> None:
    """Raises ComfyUI's own exception when the person pressed stop."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress_bar(total: int) -> Callable[[int, int], None]:
    bar = comfy.utils.ProgressBar(total)
    return lambda done, of: bar.update_absolute(done, of)
