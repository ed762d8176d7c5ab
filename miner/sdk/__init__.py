"""The consumer's side of the network in Python. It knows nothing of the miner, and can be used without it.

from miner.sdk import UpscalerTask, Workflow

with Workflow() as workflow:  # XALORA_API_KEY of the environment or of .env
    task = UpscalerTask(image_url="https://example.com/photo.jpg")
    result = workflow.execute_workflow_and_wait_for_result(task)
    print(result.status, result.result)
    workflow.download(result, Path("enlarged.png"))
"""

from __future__ import annotations

from miner.sdk.client import Workflow
from miner.sdk.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidReply,
    InvalidTask,
    TaskTimeout,
    WorkflowError,
)
from miner.sdk.replies import MinerResponse, Progress, TaskCancelResponse, TaskStatus, WorkflowTaskResult
from miner.sdk.results import download
from miner.sdk.tasks import (
    FluxLoraTask,
    ImageToImageTask,
    ImageToVideoTask,
    Text2VideoTask,
    UpscalerTask,
    WorkflowTask,
    WorkflowTaskType,
)

__all__ = [
    "APIError",
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionFailed",
    "FluxLoraTask",
    "ImageToImageTask",
    "ImageToVideoTask",
    "InvalidReply",
    "InvalidTask",
    "MinerResponse",
    "Progress",
    "TaskCancelResponse",
    "TaskStatus",
    "TaskTimeout",
    "Text2VideoTask",
    "UpscalerTask",
    "Workflow",
    "WorkflowError",
    "WorkflowTask",
    "WorkflowTaskResult",
    "WorkflowTaskType",
    "download",
]
