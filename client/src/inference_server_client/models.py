"""The calls about models: ``client.models``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, Unpack

from inference_server_client.downloading import OnProgress
from inference_server_client.errors import InputError
from inference_server_client.results import Model, Page, read_page
from inference_server_client.transport import Call, Transport, segment
from inference_server_client.upload_body import MultipartBody


class ModelSettings(TypedDict, total=False):
    """What may be set on a model, by the server's own names; what is left out keeps the server's default."""

    description: str
    use_gpu: bool
    enabled: bool
    pull_policy: str  # if_missing or always
    profile: str  # strict or compatible
    network: bool
    tmp_exec: bool
    allow_empty_output: bool
    input_mountpoint: str
    output_mountpoint: str
    model_mountpoint: str
    time_seconds: float
    memory_bytes: int
    cpus: float
    pids: int
    output_bytes: int
    output_files: int
    log_bytes: int
    shm_bytes: int
    tmp_bytes: int
    # What it asks of a node beyond its limits; None asks nothing.
    gpu_memory_bytes: int | None
    node_labels: dict[str, str] | None
    # How long the data of ended tasks is kept: 0 for ever, None as the server has it.
    input_retention_seconds: float | None
    output_retention_seconds: float | None
    log_retention_seconds: float | None


class Models:
    """Register, list, show, change and remove models."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(
        self,
        model_id: str,
        image: str,
        *,
        content: Path | BinaryIO | None = None,
        classic_id: bool = False,
        on_progress: OnProgress | None = None,
        **settings: Unpack[ModelSettings],
    ) -> Model:
        """Register ``image`` under ``model_id``; ``content``: a zip that the model finds in ``/model``.

        ``classic_id`` allows spaces and colons in the id, as the 1.x interface did. What keeps it from being
        run as things are, the answer names as ``warnings``.
        """
        fields: dict[str, Any] = {"human_readable_id": model_id, "container_tag": image, **settings}
        if classic_id:
            fields["classic_id"] = True
        return self._send("POST", "/v1/models", fields, content, on_progress)

    def get(self, model_id: str) -> Model:
        """The model at its newest version."""
        return Model.from_json(self._transport.json(Call(method="GET", path=_route(model_id))))

    def page(self, *, limit: int = 100, cursor: str | None = None) -> Page[Model]:
        """Up to ``limit`` (1..1000) models from ``cursor`` on."""
        query: dict[str, str | int | float] = {"limit": limit}
        if cursor is not None:
            query["cursor"] = cursor
        return read_page(
            self._transport.json(Call(method="GET", path="/v1/models", query=query)), Model.from_json
        )

    def update(
        self,
        model_id: str,
        *,
        image: str | None = None,
        content: Path | BinaryIO | None = None,
        on_progress: OnProgress | None = None,
        **settings: Unpack[ModelSettings],
    ) -> Model:
        """Change what is given; a new image or new content makes a new version."""
        fields: dict[str, Any] = dict(settings)
        if image is not None:
            fields["container_tag"] = image
        return self._send("PATCH", _route(model_id), fields, content, on_progress)

    def remove(self, model_id: str) -> None:
        """Delete the model; the server refuses while tasks of it have not ended."""
        self._transport.remove(_route(model_id))

    def _send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any],
        content: Path | BinaryIO | None,
        on_progress: OnProgress | None,
    ) -> Model:
        creates = method == "POST"
        if content is None:
            call = Call(method=method, path=path, json=dict(fields), creates=creates)
            return Model.from_json(self._transport.json(call))
        if None in fields.values():
            # A form can only leave a field out, which leaves it as it is.
            raise InputError(
                "A setting cannot be taken back together with new content; do one after the other."
            )
        texts = {name: _form_text(value) for name, value in fields.items()}
        with _opened(content) as stream:
            body = MultipartBody(texts, stream, on_progress=on_progress)
            call = Call(method=method, path=path, body=body, creates=creates)
            return Model.from_json(self._transport.json(call))


def _form_text(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


@contextlib.contextmanager
def _opened(content: Path | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(content, Path):
        yield content
        return
    try:
        stream = content.open("rb")
    except OSError as error:
        raise InputError(f"{content} cannot be read: {error.strerror}.") from error
    with stream:
        yield stream


def _route(model_id: str) -> str:
    return f"/v1/models/{segment(model_id)}"
