"""One list of classes for all data sets of a run: the same everywhere, or mapped by name."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from reviewkd_det.common.data.classes import map_classes, require_same_classes
from reviewkd_det.common.runs.files import file_name_of
from reviewkd_det.d2.data.data_use import DataUse
from reviewkd_det.d2.data.views import show_classes, write_evaluation_file

__all__ = ["order_by_name", "settle_classes"]

logger = logging.getLogger(__name__)
Records = Sequence[dict[str, Any]]


def settle_classes(use: DataUse, records: Mapping[str, Records]) -> list[str] | None:
    """Compare the class lists of a run's data sets, or map them onto the first one by name.

    Args:
        use: how the run uses its data.
        records: records of every data set that is trained or evaluated, by name.

    Returns:
        The class names in the order of the model's class numbers; None where none are known.

    Raises:
        ValueError: two lists differ and are not to be mapped, or objects are of a class that the
            first list does not have.
    """
    lists = {name: classes for name in records if (classes := _classes_of(name))}
    _warn_of_equal_names(lists)
    if not use.has_classes or not (lists or use.known_classes):
        return None
    if use.known_classes is not None:
        known, whose = list(use.known_classes), use.known_whose
    else:
        first = next(iter(lists))
        known, whose = lists[first], f"'{first}'"
    for name, classes in lists.items():
        if classes != known and use.map_classes:
            _map(use, name, records[name], known, whose)
        elif classes != known:
            require_same_classes(
                classes,
                known,
                whose=f"'{name}'",
                known_whose=whose,
                fix=f"write them in one order, or set {use.keys.map_classes} to True to map them "
                "by name",
            )
    for name in use.test:
        if name in lists and (lists[name] == known or not use.map_classes):
            _show_ignored_as_crowds(use, name, records[name], known)
    return known


def _warn_of_equal_names(lists: Mapping[str, Sequence[str]]) -> None:
    for name, classes in lists.items():
        twice = sorted(key for key, count in Counter(classes).items() if count > 1)
        if twice and comm.is_main_process():
            logger.warning(
                "'%s' has several classes of the same name, which are trained as different ones "
                "and shown as one: %s",
                name,
                ", ".join(twice),
            )


def _classes_of(name: str) -> list[str]:
    return list(MetadataCatalog.get(name).get("thing_classes") or ())


def _map(use: DataUse, name: str, records: Records, known: list[str], whose: str) -> None:
    """Give one data set the classes of the known list."""
    classes = _classes_of(name)
    order = order_by_name(name, records, known, whose)
    _show(use, name, order, known)
    unused = [other for other, place in zip(classes, order, strict=True) if place < 0]
    absent = [other for other in known if other not in classes]
    logger.info(
        "Mapped the classes of '%s' by name onto those of %s%s%s",
        name,
        whose,
        f"; left out, without an object: {', '.join(unused)}" if unused else "",
        f"; without an object there: {', '.join(absent)}" if absent else "",
    )


def order_by_name(name: str, records: Records, known: Sequence[str], whose: str) -> list[int]:
    """Find a data set's classes in a list, by name.

    Args:
        name: name of the data set, which is loaded.
        records: its records.
        known: class names of the list.
        whose: whose names these are, for the error sentence.

    Returns:
        The place in the list of each of its classes; -1 for one that is not there and that no
        object has.

    Raises:
        ValueError: objects are of a class that is not in the list.
    """
    classes = _classes_of(name)
    used = {x["category_id"] for record in records for x in record.get("annotations", ())}
    needed = [index for index in range(len(classes)) if index in used or classes[index] in known]
    places = map_classes(
        [classes[index] for index in needed], known, whose=f"'{name}'", onto_whose=whose
    )
    order = [-1] * len(classes)
    for index, place in zip(needed, places, strict=True):
        order[index] = place
    return order


def _show_ignored_as_crowds(
    use: DataUse, name: str, records: Records, known: Sequence[str]
) -> None:
    """Let the evaluation see as crowds what the file has as ignored."""
    if any(x.get("ignore", 0) for record in records for x in record.get("annotations", ())):
        _show(use, name, list(range(len(known))), known)


def _show(use: DataUse, name: str, order: Sequence[int], known: Sequence[str]) -> None:
    metadata = MetadataCatalog.get(name)
    source, ids = metadata.get("json_file"), metadata.get("thing_dataset_id_to_contiguous_id")
    if not source or ids is None or name not in use.test:
        return show_classes(name, order, known, None)
    # Beside <name>.json, which is the source where data of another format was converted.
    target = Path(use.folder, "data", file_name_of(name, ".evaluated.json"))
    if comm.is_main_process():
        by_id = {category: order[index] for category, index in ids.items()}
        write_evaluation_file(source, target, by_id, known)
    comm.synchronize()
    return show_classes(name, order, known, str(target))
