"""Warnings of other packages that whoever runs a script can do nothing about; others are shown."""

import logging
import warnings

__all__ = ["hide_known_warnings"]

# How each message begins, and the module that Python says it is from.
WARNINGS = (
    # Detectron2 scripts two helpers when it is imported; torch wants torch.compile instead.
    (r"`torch\.jit\.script` is deprecated", r"torch\.jit\._script"),
    # Detectron2's anchors rely on the order of torch.meshgrid that will one day have to be named.
    (r"torch\.meshgrid: in an upcoming release", r"torch\.functional"),
    # Detectron2's keypoints are made of a list of arrays, which torch calls slow.
    (r"Creating a tensor from a list of numpy\.ndarrays", r"detectron2\.structures\.keypoints"),
    # Detectron2's wrapper for several processes, and its Python configs, use the old name of this
    # argument; the new one exists in new releases of torch alone.
    (r"`broadcast_buffers` is deprecated", r"detectron2\.engine\.defaults"),
)
# How each message begins that a package writes to a log of this name instead.
LOGGED = {
    # Detectron2's pooler asks torch whether it is being traced; torch wants another question.
    "torch.fx._symbolic_trace": "is_fx_tracing will return true",
    # On a machine with CUDA's compiler and no GPU, when Detectron2 lists what is installed; the run
    # itself says that it is on the CPU.
    "torch.utils.cpp_extension": "No CUDA runtime is found",
}


def hide_known_warnings() -> None:
    """Hide them in this process from now on; calling it again changes nothing."""
    for message, module in WARNINGS:
        warnings.filterwarnings("ignore", message=message, module=f"{module}$")
    for name in LOGGED:
        logging.getLogger(name).addFilter(_is_of_interest)


def _is_of_interest(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LOGGED[record.name])
