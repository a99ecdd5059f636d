"""A teacher that is the average of the student's own weights."""

from copy import deepcopy

from torch import nn

from reviewkd_det.core import FrozenTeacher

__all__ = ["teacher_from_average"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def teacher_from_average(average: nn.Module) -> FrozenTeacher:
    """A teacher with the weights of an average, whose batch norms take each batch's statistics.

    The statistics that a network keeps lag behind its weights while these change fast; by
    them an average is confidently wrong, and so is a student that believes it.

    Args:
        average: the network of a `MovingAverage`; its weights are shared, not copied.
    """
    shared = {id(x): x for x in average.parameters()}
    teacher = deepcopy(average, shared)
    for module in teacher.modules():
        if isinstance(module, NORMS):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return FrozenTeacher(teacher)
