"""Which errors are a want of memory: the words of PyTorch's backends."""

import pytest
import torch

from benchmarks.in_process import pack_module


@pytest.fixture(scope="module")
def is_want_of_memory(node):
    return pack_module("nodes.common.want_of_memory").is_want_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("Invalid buffer size: 12.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_is_missing(is_want_of_memory, error):
    assert is_want_of_memory(error)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: an illegal memory access was encountered",
        "unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory location.",
        "required rank 4 tensor to use channels_last memory format",
        "mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)",
    ],
)
def test_errors_that_fewer_pictures_do_not_mend(is_want_of_memory, words):
    assert not is_want_of_memory(RuntimeError(words))
