"""VOC-style folders of any classes, against boxes worked out by hand."""

import json
import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from reviewkd_det.d2.data import check_evaluable, register_voc_format
from reviewkd_det.d2.data.voc_format import read_voc_format

SIZE = (40, 30)  # (width, height)


def thing(name, left, top, right, bottom, more=""):
    return (
        f"<object><name>{name}</name>{more}<part><name>head</name><bndbox><xmin>1</xmin></bndbox>"
        f"</part><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox></object>"
    )


def xml(*objects, width=SIZE[0], height=SIZE[1]):
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>x</filename>{size}{''.join(objects)}</annotation>"


@pytest.fixture
def voc(tmp_path):
    """A folder with three images in two splits; the classes of each split differ."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    contents = {
        "a": xml(thing("cat", 1, 1, 40, 30), thing("zebra", 11, 6, 20, 16.5)),
        "b": xml(thing("cat", 3, 4, 3, 4, "<difficult>1</difficult>"), width=0, height=0),
        "c.d": xml(thing("a dog", 5, 5, 9, 9)),
    }
    for stem, content in contents.items():
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(content)
        Image.new("RGB", SIZE).save(tmp_path / "JPEGImages" / f"{stem}.jpg")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("c.d\n")
    return tmp_path


def read(folder, split="train", **options):
    return read_voc_format(str(folder), split, **options)


def test_boxes_begin_at_pixel_1_and_end_with_their_last_pixel(voc):
    content = read(voc)
    boxes = [entry["bbox"] for entry in content["annotations"]]
    assert boxes == [[0, 0, 40, 30], [10, 5, 10, 11.5], [2, 3, 1, 1]]
    assert [entry["id"] for entry in content["annotations"]] == [1, 2, 3]
    assert [entry["image_id"] for entry in content["annotations"]] == [1, 1, 2]
    assert content["annotations"][1]["area"] == 115
    assert {(image["width"], image["height"]) for image in content["images"]} == {SIZE}


def test_difficult_objects_become_crowds(voc):
    assert [entry["iscrowd"] for entry in read(voc)["annotations"]] == [0, 0, 1]


def test_all_splits_have_the_same_classes(voc):
    train, val = read(voc), read(voc, "val")
    names = [entry["name"] for entry in train["categories"]]
    assert names == ["a dog", "cat", "zebra"]
    assert val["categories"] == train["categories"]
    assert [entry["category_id"] for entry in val["annotations"]] == [1]


def test_a_list_of_classes_gives_their_order(voc):
    (voc / "classes.txt").write_text("zebra\ncat\na dog\nnever seen\n")
    content = read(voc)
    assert next(entry["name"] for entry in content["categories"]) == "zebra"
    assert [entry["category_id"] for entry in content["annotations"]] == [2, 1, 2]
    (voc / "classes.txt").write_text("zebra\ncat\n")
    with pytest.raises(ValueError, match=r"'a dog' in '.*c.d.xml'; it has zebra, cat"):
        read(voc)


def test_it_is_known_by_its_name_and_can_be_evaluated(voc, tmp_path):
    name = f"voc_{tmp_path.name}"
    register_voc_format(name, str(voc), "train", output_dir=str(tmp_path / "run"))
    register_voc_format(name, str(voc), "train", output_dir=str(tmp_path / "run"))
    check_evaluable(name)
    records = DatasetCatalog.get(name)
    assert [record["file_name"] for record in records] == [
        str(voc / "JPEGImages" / f"{stem}.jpg") for stem in "ab"
    ]
    assert records[0]["annotations"][1]["bbox_mode"] == BoxMode.XYWH_ABS
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["a dog", "cat", "zebra"]
    assert json.loads((tmp_path / "run" / "data" / f"{name}.json").read_text()) == read(voc)
    with pytest.raises(ValueError, match=f"must be new; got '{name}' for .*val"):
        register_voc_format(name, str(voc), "val", output_dir="")


def test_a_folder_for_each_split_is_read_too(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "1.xml").write_text(xml(thing(split, 1, 1, 4, 4)))
        Image.new("RGB", SIZE).save(tmp_path / split / "1.png")
    content = read(tmp_path, "valid")
    assert [image["file_name"] for image in content["images"]] == [
        str(tmp_path / "valid" / "1.png")
    ]
    assert [entry["name"] for entry in content["categories"]] == ["train", "valid"]


def test_lists_of_one_class_and_endings_are_understood(voc):
    path = voc / "ImageSets" / "Main" / "cat_train.txt"
    path.write_text("a.jpg  1\nb -1\nJPEGImages/c.d.jpg\n")
    images = [image["file_name"] for image in read(voc, "cat_train")["images"]]
    assert images == [str(voc / "JPEGImages" / name) for name in ("a.jpg", "c.d.jpg")]


def test_images_alone_need_no_xml(voc):
    (voc / "Annotations" / "a.xml").write_text("<broken")
    content = read(voc, needs_annotations=False)
    assert (len(content["images"]), content["annotations"]) == (2, [])
    (voc / "Annotations" / "a.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"must have an XML file .*; got 1 of 2 .*a.jpg"):
        read(voc)


def test_boxes_from_0_are_warned_of(voc, caplog):
    (voc / "Annotations" / "a.xml").write_text(xml(thing("cat", 0, 0, 40, 30)))
    with caplog.at_level(logging.WARNING):
        read(voc)
    assert "1 of 2 boxes" in caplog.text


BOMB = '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation>", r"XML file must be readable; got '.*a.xml': no element found"),
        (BOMB, r"must not declare entities; got '.*a.xml'"),
        (xml(thing("", 1, 1, 2, 2)), r"every object of '.*a.xml' must have a name; got none for 1"),
        (xml(thing("cat", 5, 1, 2, 2)), r"object 1 of '.*a.xml' .*; got xmin 5, ymin 1, xmax 2"),
        (xml(thing("cat", 1, "nan", 2, 2)), "ymin nan"),
        (xml("<object><name>cat</name></object>"), "xmin None, ymin None"),
    ],
)
def test_bad_xml_is_named(voc, content, words):
    (voc / "Annotations" / "a.xml").write_text(content)
    with pytest.raises(ValueError, match=words):
        read(voc)


def test_what_is_missing_is_named(voc):
    with pytest.raises(FileNotFoundError, match=r"folder of DATASETS.VOC_FORMAT must exist; got"):
        read(voc / "no")
    with pytest.raises(FileNotFoundError, match="got 'test'; there are train, val"):
        read(voc, "test")
    (voc / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train.txt' must be a file; got none of 'b' in"):
        read(voc)
    (voc / "ImageSets" / "Main" / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"split 'empty' of .* must have an image; got none"):
        read(voc, "empty")


def test_images_without_objects_or_classes_may_be_unlabelled(voc):
    for path in (voc / "Annotations").iterdir():
        path.unlink()
    assert len(read(voc, needs_annotations=False)["images"]) == 2
    (voc / "Annotations" / "a.xml").write_text(xml())
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a")
    with pytest.raises(ValueError, match=r"must have an object, or 'classes.txt' there .*1 files"):
        read(voc)
