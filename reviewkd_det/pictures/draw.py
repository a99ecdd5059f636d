"""From run folders to pictures."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from reviewkd_det.d2.data.checks import check_classes
from reviewkd_det.pictures.levels import draw_levels
from reviewkd_det.pictures.predictions import draw_predictions
from reviewkd_det.pictures.runs import load_run, look
from reviewkd_det.pictures.scenes import (
    class_names,
    dataset_records,
    image_records,
    map_as_trained,
    read_scenes,
)

__all__ = ["draw_pictures"]


def draw_pictures(
    folders: Mapping[str, Path],
    output: Path,
    *,
    dataset: str = "",
    images: Iterable[Path] = (),
    count: int = 4,
    min_score: float = 0.5,
) -> list[Path]:
    """Draw what runs detect and, for each that fuses levels, these beside its teacher's.

    Nothing is written before all runs and images have been read.

    Args:
        folders: output folders of the runs, by name.
        output: folder for the pictures; it is made if absent.
        dataset: data set whose first images are drawn, with ground truth; "" means the first of
            the first run's `DATASETS.TEST`, which also names the classes for `images`.
        images: files and folders to draw instead.
        count: number of images.
        min_score: least score of the detections that are drawn.

    Returns:
        The files written: `predictions_IMAGE.png` and, by run, `levels_RUN_IMAGE.png`.

    Raises:
        FileNotFoundError, KeyError, ValueError: a run, the data set or an image cannot be read, or
            they do not fit together.
    """
    runs = [load_run(name, folder) for name, folder in folders.items()]
    dataset = dataset or next(iter(runs[0].cfg.DATASETS.TEST), "")
    if runs[0].cfg.DATASETS.MAP_CLASSES:
        map_as_trained(dataset, next(iter(folders.values())))
    records = image_records(images) or dataset_records(dataset)
    scenes = read_scenes(records, count)
    classes = class_names(dataset)
    if classes is not None:
        for run in runs:
            check_classes(run.cfg, [dataset])
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for scene in scenes:
        views = {run.name: look(run, scene) for run in runs}
        found = {name: view.found[view.found.scores >= min_score] for name, view in views.items()}
        written.append(output / f"predictions_{scene.name}.png")
        draw_predictions(scene, found, classes, min_score, written[-1])
        for name, view in views.items():
            if view.levels:
                written.append(output / f"levels_{name}_{scene.name}.png")
                draw_levels(view, f"{scene.name}: levels of {name} and of its teacher", written[-1])
    return written
