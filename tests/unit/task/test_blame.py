"""Whose fault an error is, by the texts that PyTorch, safetensors, ComfyUI, Python and the C library print; and when a
workflow pauses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from miner.task.blame import Health, Incident, blame, may_try_again, told


@pytest.mark.parametrize(
    ("expected", "exception_type", "message"),
    [
        ("memory", "torch.OutOfMemoryError", "Allocation on device "),
        ("memory", "torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("memory", "RuntimeError", "Allocation on device 0 would exceed allowed memory. (out of memory)"),
        ("memory", "MemoryError", ""),
        ("memory", "RuntimeError", "not enough memory: you tried to allocate 123 bytes"),
        ("memory", "RuntimeError", "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate"),
        (
            "memory",
            "RuntimeError",
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes",
        ),
        ("memory", "numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 1.50 GiB for an array with shape"),
        ("memory", "OSError", "[Errno 12] Cannot allocate memory"),
        ("memory", "RuntimeError", "std::bad_alloc"),
        ("memory", "RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ("memory", "RuntimeError", "HIP out of memory. Tried to allocate 20.00 MiB"),
        ("memory", "RuntimeError", "MPS backend out of memory (MPS allocated: 17.00 GB"),
        ("memory", "OSError", "The paging file is too small for this operation to complete. (os error 1455)"),
        ("poisoned", "RuntimeError", "CUDA error: an illegal memory access was encountered"),
        ("poisoned", "torch.AcceleratorError", "CUDA error: device-side assert triggered"),
        ("poisoned", "RuntimeError", "CUDA error: unspecified launch failure"),
        ("poisoned", "RuntimeError", "CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
        ("poisoned", "RuntimeError", "No CUDA GPUs are available"),
        ("poisoned", "RuntimeError", "Unexpected error from cudaGetDeviceCount(). Error 804: cudaErrorNotSupported"),
        ("poisoned", "RuntimeError", "cuDNN error: CUDNN_STATUS_MAPPING_ERROR"),
        ("poisoned", "RuntimeError", "HIP error: the operation cannot be performed in the present state"),
        ("interrupted", "comfy.model_management.InterruptProcessingException", ""),
        ("disk", "OSError", "[Errno 28] No space left on device: '/opt/ComfyUI/output/xalora/a/out_00001_.png'"),
        ("disk", "OSError", "[Errno 30] Read-only file system: '/opt/ComfyUI/output/xalora'"),
        ("disk", "PermissionError", "[Errno 13] Permission denied: '/opt/ComfyUI/output/xalora/a'"),
        ("disk", "OSError", "[Errno 122] Disk quota exceeded"),
        ("disk", "OSError", "[Errno 24] Too many open files: '/opt/ComfyUI/input/xalora/a/image.png'"),
        ("disk", "OSError", "[WinError 112] There is not enough space on the disk"),
        ("weights", "SafetensorError", "Error while deserializing header: HeaderTooLarge"),
        ("weights", "safetensors_rust.SafetensorError", "Error while deserializing header: MetadataIncompleteBuffer"),
        ("weights", "RuntimeError", "PytorchStreamReader failed reading zip archive: failed finding central directory"),
        ("weights", "_pickle.UnpicklingError", "Weights only load failed. Re-running `torch.load` …"),
        ("weights", "_pickle.UnpicklingError", "invalid load key, '<'."),
        ("weights", "EOFError", "Ran out of input"),
        ("weights", "RuntimeError", "Error(s) in loading state_dict for Flux: size mismatch for img_in.weight"),
        ("weights", "RuntimeError", "ERROR: Could not detect model type of: /opt/ComfyUI/models/unet/a.safetensors"),
        ("weights", "FileNotFoundError", "[Errno 2] No such file or directory: '/opt/ComfyUI/models/vae/a.sft'"),
        ("weights", "spandrel.UnsupportedModelError", ""),
        ("unknown", "ValueError", "shapes do not match"),
        ("unknown", "AttributeError", "module 'custom' has no attribute 'node'"),
        ("unknown", "ImportError", "cannot import name 'x' from 'diffusers'"),
        ("unknown", "PIL.UnidentifiedImageError", "cannot identify image file"),
    ],
)
def test_blame(expected: str, exception_type: str, message: str) -> None:
    assert blame(exception_type, message) == expected


def test_an_error_that_names_no_cause_is_tried_twice_and_what_may_pass_three_times() -> None:
    assert [may_try_again("unknown", attempts=n) for n in (1, 2)] == [True, False]
    assert [may_try_again("disk", attempts=n) for n in (1, 2, 3)] == [True, True, False]
    assert not may_try_again("refused", attempts=1)


@pytest.mark.parametrize("fault", ["memory", "poisoned", "disk", "weights", "refused", "network", "machine", "unknown"])
def test_a_consumer_reads_that_it_was_this_miner(fault: Any) -> None:
    assert told(fault).startswith("this miner")
    assert "create it again" in told(fault)


def incident(task_id: str, *, at: float = 0.0, cause: str = "unknown") -> Incident:
    return Incident(at=at, task_id=task_id, cause=cause, reason="it broke")


class TestHealth:
    def test_a_paused_workflow_returns_after_a_trial_with_one_canary_at_a_time(self) -> None:
        health = Health()
        for _ in range(Health.FAULTS_UNTIL_TRIAL):
            assert health.may_advertise(now=0.0, in_hand=True)
            health = health.after_fault(incident("a"))
        assert not health.is_due(now=Health.FIRST_PAUSE - 1)
        assert health.is_due(now=Health.FIRST_PAUSE)
        assert not health.may_advertise(now=Health.FIRST_PAUSE, in_hand=False)
        passed = replace(health, tried=True)
        assert not passed.is_due(now=Health.FIRST_PAUSE)
        assert passed.may_advertise(now=Health.FIRST_PAUSE, in_hand=False)
        assert not passed.may_advertise(now=Health.FIRST_PAUSE, in_hand=True)
        worse = passed.after_fault(incident("b", at=Health.FIRST_PAUSE))
        assert not worse.is_due(now=2.9 * Health.FIRST_PAUSE)
        assert worse.is_due(now=3 * Health.FIRST_PAUSE)

    def test_one_task_with_an_unknown_error_does_not_pause_its_workflow(self) -> None:
        health, attempts = Health(), 0
        while not attempts or may_try_again("unknown", attempts=attempts):
            health, attempts = health.after_fault(incident("a")), attempts + 1
        assert health.may_advertise(now=0.0, in_hand=True)
        assert not health.after_fault(incident("b")).may_advertise(now=0.0, in_hand=False)

    def test_a_longer_pause_is_not_shortened(self) -> None:
        health = Health().after_fault(incident("a"), at_once=True)
        assert health.on_trial
        assert health.after_fault(incident("a")).not_before == health.not_before

    def test_tasks_that_fail_each_in_their_own_way_do_not_count_with_the_machines_faults(self) -> None:
        health = Health().after_task(incident("a", cause="time")).after_task(incident("b", cause="refused"))
        health = health.after_fault(incident("c")).after_fault(incident("c"))
        assert health.may_advertise(now=0.0, in_hand=True)

    @pytest.mark.parametrize(
        ("tasks", "paused"),
        [
            (["a time", "b time", "c time"], True),
            (["a time", "a time", "a time"], False),
            (["a time", "b memory", "c time", "d memory"], False),
            (["a time", "b time"], False),
        ],
        ids=str,
    )
    def test_different_tasks_that_fail_alike_in_a_row_pause(self, tasks: list[str], paused: bool) -> None:
        health = Health()
        for task_id, cause in map(str.split, tasks):
            health = health.after_task(incident(task_id, cause=cause))
        assert health.may_advertise(now=0.0, in_hand=False) is not paused
