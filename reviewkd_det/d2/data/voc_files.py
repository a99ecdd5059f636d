"""The images of a split of a VOC-style folder, and their XML files."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from reviewkd_det.common import listed
from reviewkd_det.common.data.folders import files_below, image_endings

__all__ = ["KEY", "VOCImage", "all_xml", "images_of_split"]

KEY = "DATASETS.VOC_FORMAT"
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", ".")
XML_FOLDERS = ("Annotations", "annotations", ".")


class VOCImage(NamedTuple):
    """An image and its XML file, where it has one."""

    image: Path
    xml: Path | None


def images_of_split(root: Path, split: str, *, needs_annotations: bool) -> list[VOCImage]:
    """The images of a split: those that a list of `ImageSets/Main` names, or those of a folder.

    Raises:
        FileNotFoundError: the folder, the split, an image or its XML file is missing.
        ValueError: the split has no image.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"folder of {KEY} must exist; got '{root}'")
    for place in ("ImageSets/Main", "ImageSets", "."):
        if (path := root / place / f"{split}.txt").is_file():
            found = _of_list(root, path)
            break
    else:
        found = _of_folder(root, split)
    if not found:
        raise ValueError(f"split '{split}' of '{root}' must have an image; got none")
    lacking = [str(entry.image) for entry in found if entry.xml is None]
    if lacking and needs_annotations:
        raise FileNotFoundError(
            f"every image of split '{split}' of '{root}' must have an XML file of its name; got "
            f"{len(lacking)} of {len(found)} without one: {listed(lacking)}"
        )
    return found


def all_xml(root: Path) -> list[Path]:
    """Every XML file of a folder, whatever its split."""
    return files_below(root, {".xml"})


def _of_list(root: Path, path: Path) -> list[VOCImage]:
    images = _index(root, IMAGE_FOLDERS, image_endings())
    xml = _index(root, XML_FOLDERS, {".xml"})
    found = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        image_id = _id_of(line.strip(), images)
        if not image_id:
            continue
        if image_id not in images:
            places = " or ".join(f"'{root / place}'" for place in IMAGE_FOLDERS[:2])
            raise FileNotFoundError(
                f"every image of '{path}' must be a file; got none of '{image_id}' in {places}"
            )
        found.append(VOCImage(images[image_id], xml.get(image_id)))
    return list(dict.fromkeys(found))


def _id_of(line: str, known: Iterable[str]) -> str:
    """The id of a line; VOC's lists of one class have 1, 0 or -1 after it, and -1 is no."""
    head, _, flag = line.rpartition(" ")
    if line not in known and head and flag in ("-1", "0", "1"):
        line = "" if flag == "-1" else head.strip()
    if Path(line).suffix.lower() in image_endings():  # some lists hold file names, or paths
        line = str(Path(line).with_suffix(""))
    return line if line in known else Path(line).name


def _of_folder(root: Path, split: str) -> list[VOCImage]:
    if not (root / split).is_dir() or split in (*IMAGE_FOLDERS, *XML_FOLDERS, ""):
        lists = sorted({path.stem for path in root.glob("ImageSets/**/*.txt")})
        folders = sorted({str(path.parent.relative_to(root)) for path in root.glob("*/*.xml")})
        known = listed(lists + [x for x in folders if x not in XML_FOLDERS], 10)
        raise FileNotFoundError(
            f"split of {KEY} must be a list in '{root / 'ImageSets' / 'Main'}' or a folder with XML"
            f" files in '{root}'; got '{split}'; there are {known or 'none'}"
        )
    xml = _index(root / split, (*XML_FOLDERS[:2], "."), {".xml"})
    images = _index(root / split, IMAGE_FOLDERS, image_endings())
    return [VOCImage(image, xml.get(image_id)) for image_id, image in sorted(images.items())]


def _index(root: Path, places: Iterable[str], endings: set[str]) -> dict[str, Path]:
    """Files by their path in the first of the places that has it, without the ending."""
    found: dict[str, Path] = {}
    for place in places:
        folder = root / place
        for path in files_below(folder, endings):
            if place != "." or path.parent == root:
                found.setdefault(str(path.relative_to(folder).with_suffix("")), path)
    return found
