"""Memory of a process: what it keeps on the CPU, and what it took of a GPU."""

import ctypes
import sys

__all__ = ["keep_freed_memory", "max_gpu_memory"]

# Of mallopt, in glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
NEVER = -1


def keep_freed_memory() -> bool:
    """Let the process reuse the memory of freed tensors instead of giving it back.

    glibc maps each large block anew and returns it when it is freed, so that every step of a
    training pays for zeroing all of its maps again. With this the process keeps what it once
    needed; its peak is unchanged.

    Returns:
        Whether the C library could be told: glibc on Linux.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, NEVER))


def max_gpu_memory() -> int | None:
    """The most memory that tensors of this process took on its GPU, in MB; None without one."""
    import torch  # not with the module, which scripts import before they read their arguments

    return torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else None
