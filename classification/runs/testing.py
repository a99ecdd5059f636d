"""The tests of a training's networks on its test data."""

import logging
from functools import partial
from typing import Any

from accelerate import Accelerator
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from classification.data import Data
from classification.models.weights import save_weights
from classification.runs.evaluation import evaluate, evaluate_teacher
from classification.runs.folder import RunFolder
from classification.several import teacher_name
from reviewkd_det.common.runs.average import MovingAverage
from reviewkd_det.common.tensors.buffers import share_buffers

__all__ = ["Testing"]

logger = logging.getLogger(__name__)


class Testing:
    """Test the student, its teacher and its peers, and keep the results in the run's progress.

    Args:
        cfg: config that `load_config` has read.
        accelerator: accelerator of this process.
        run: folder of the run.
        data: training and test data.
        classifier: the classifier that is trained, as the accelerator has prepared it.
        student: the student's own network, whose weights are saved.
        average: average of the student's weights, tested and saved in their place.
    """

    def __init__(
        self,
        cfg: CfgNode,
        accelerator: Accelerator,
        run: RunFolder,
        data: Data,
        classifier: nn.Module,
        student: nn.Module,
        average: MovingAverage | None,
    ) -> None:
        self.cfg, self.accelerator, self.run, self.data = cfg, accelerator, run, data
        self.classifier, self.student = classifier, student
        self.plain = accelerator.unwrap_model(classifier)
        self.tested: Any = self.plain.student if average is None else average.module

    def test_student(self, epoch: int, progress: dict[str, Any]) -> dict[str, float]:
        """Test the student, and save it where it is the last or the best.

        Args:
            epoch: epochs that are done.
            progress: progress of the run, whose `last`, `best` and `waited` are changed.

        Returns:
            As `evaluate`.
        """
        self.classifier.eval()
        share_buffers(self.tested)
        accuracy = evaluate(self._classify, self.data.test, self.accelerator)
        progress["last"] = {"epoch": epoch, **accuracy}
        best = progress["best"]
        is_best = best is None or accuracy["top1"] > best["top1"]
        progress["waited"] = 0 if is_best else progress.get("waited", 0) + 1
        if is_best:
            progress["best"] = progress["last"]
        if self.accelerator.is_main_process:
            for name in ["last", "best"] if is_best else ["last"]:
                path = self.run.path / f"{name}.pth"
                with self.run.state_files.writing(path):
                    save_weights(self._student_weights(), path)
        return accuracy

    def test_teacher(self, progress: dict[str, Any]) -> None:
        """Test the teacher, once, where it knows the classes of the data.

        Args:
            progress: progress of the run, whose `teacher` is changed.
        """
        is_known = self.plain.teacher is not None and self.plain.teacher_knows_classes
        if is_known and progress["teacher"] is None:
            progress["teacher"] = evaluate_teacher(
                self.plain.classify_as_teacher, self.data, self.accelerator, teacher_name(self.cfg)
            )

    def test_peers(self, progress: dict[str, Any]) -> None:
        """Test the networks beside the student, which are not saved.

        Args:
            progress: progress of the run, whose `peers` are changed.
        """
        if self.plain.peers is None:
            return
        self.classifier.eval()
        share_buffers(self.plain.peers)
        progress["peers"] = [
            {
                "name": name,
                **evaluate(
                    partial(self.plain.classify_as_peer, i), self.data.test, self.accelerator
                ),
            }
            for i, name in enumerate(self.cfg.PEERS.NAMES)
        ]
        shown = [f"{x['name']} {x['top1']:.2f}" for x in progress["peers"]]
        logger.info("top1 of the networks beside the student: %s", ", ".join(shown))

    def _student_weights(self) -> dict[str, Tensor]:
        """The student's own state dict; where it is tapped, the traced copy holds its buffers."""
        return self.student.state_dict() | self.tested.net.state_dict()

    def _classify(self, images: Tensor) -> Tensor:
        return self.plain.classify(images, self.tested)
