"""What several tests of profiles do."""

from __future__ import annotations

from palate.core.profile import ProfileStore, TasteProfile


def reopened(profile: TasteProfile) -> TasteProfile:
    profile.close()
    return ProfileStore(profile.folder.parent).open(profile.name)
