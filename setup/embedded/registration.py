"""What the registered model still lacks to be the one that was just built. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wanted:
    """The model as it should be registered."""

    human_readable_id: str
    description: str
    container_tag: str
    image_id: str
    content_sha256: str


@dataclass(frozen=True)
class Change:
    """What to send: a new registration, or the fields and the content that differ."""

    create: bool
    fields: Mapping[str, str]
    send_content: bool

    @property
    def is_nothing(self) -> bool:
        """Whether the registered model is the wanted one already."""
        return not (self.create or self.fields or self.send_content)


def next_change(present: Mapping[str, Any] | None, wanted: Wanted) -> Change:
    """Compare what the server answered for the model (None: not registered) with what is wanted."""
    if present is None:
        fields = {
            "human_readable_id": wanted.human_readable_id,
            "container_tag": wanted.container_tag,
            "description": wanted.description,
        }
        return Change(create=True, fields=fields, send_content=True)
    fields = {}
    # No image id: nothing ran yet, and the tag will be resolved to today's image. Another id: the image was
    # built anew, which the server learns by being told its tag again.
    same_image = present["image_id"] in {None, wanted.image_id}
    if present["container_tag"] != wanted.container_tag or not same_image:
        fields["container_tag"] = wanted.container_tag
    if not present["enabled"]:
        fields["enabled"] = "true"
    content = present["content"] or {}
    return Change(create=False, fields=fields, send_content=content.get("sha256") != wanted.content_sha256)
