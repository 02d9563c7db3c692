"""The Python client of InferenceServer: send a zip to a model in a container, get a zip back.

Programs enter by ``Client``; people by the ``infer`` command, which is built on it (``cli``). This
distribution stands alone: it knows the server by its HTTP interface only.
"""

from inference_server_client.client import Client
from inference_server_client.errors import (
    AnswerError,
    ApiError,
    ConfigurationError,
    InferenceServerError,
    InputError,
    IntegrityError,
    KeyRefusedError,
    NotFoundError,
    TaskCanceledError,
    TaskEndedError,
    TaskFailedError,
    UnpackError,
    UnreachableError,
    WaitTimeoutError,
)
from inference_server_client.following import Event, LogEnded, LogReceived, TaskChanged
from inference_server_client.models import ModelSettings
from inference_server_client.nodes import Node
from inference_server_client.results import BlobFacts, Key, LogChunk, Model, Page, Progress, Task
from inference_server_client.retries import RetryPolicy

__all__ = [
    "AnswerError",
    "ApiError",
    "BlobFacts",
    "Client",
    "ConfigurationError",
    "Event",
    "InferenceServerError",
    "InputError",
    "IntegrityError",
    "Key",
    "KeyRefusedError",
    "LogChunk",
    "LogEnded",
    "LogReceived",
    "Model",
    "ModelSettings",
    "Node",
    "NotFoundError",
    "Page",
    "Progress",
    "RetryPolicy",
    "Task",
    "TaskCanceledError",
    "TaskChanged",
    "TaskEndedError",
    "TaskFailedError",
    "UnpackError",
    "UnreachableError",
    "WaitTimeoutError",
]
