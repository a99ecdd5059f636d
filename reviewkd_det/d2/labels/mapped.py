"""A teacher's detections in the classes of a student.

Shapes: K classes; a row of class probabilities has K values, or K + 1 with the background last.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from reviewkd_det.d2.labels.detections import DetectionFiles, Detections, image_key

__all__ = ["ClassMap", "mapped_detections"]


class ClassMap:
    """Which class of a student each class of a teacher is.

    Args:
        places: the student's class by the teacher's, without those that the student does not know.
        teacher_count: number of the teacher's classes.
        student_count: number of the student's classes.
    """

    def __init__(self, places: Mapping[int, int], teacher_count: int, student_count: int) -> None:
        self.places, self.teacher_count, self.student_count = places, teacher_count, student_count

    def row(self, probabilities: Sequence[float]) -> list[float]:
        """Class probabilities; what the student does not know is background to it."""
        mapped = [0.0] * self.student_count
        for index, place in self.places.items():
            mapped[place] += probabilities[index]
        if len(probabilities) == self.teacher_count:  # of sigmoids
            return mapped
        return [*mapped, max(0.0, round(1.0 - sum(mapped), 6))]

    def detections(self, found: Detections) -> Detections:
        """Detections of classes that the student knows."""
        mapped = []
        for x in found:
            if x["category_id"] in self.places:
                label: dict[str, Any] = {**x, "category_id": self.places[x["category_id"]]}
                if "probabilities" in x:
                    label["probabilities"] = self.row(x["probabilities"])
                mapped.append(label)
        return mapped


def mapped_detections(
    files: DetectionFiles,
    records: Sequence[Mapping[str, Any]],
    classes: ClassMap,
    least_score: float = 0.0,
) -> list[Detections]:
    """What a teacher detected on each image, of some score and more, in the student's classes."""
    keys = [image_key(record["file_name"]) for record in records]
    found = files.read(keys, least_score)
    return [classes.detections(found[key]) for key in keys]
