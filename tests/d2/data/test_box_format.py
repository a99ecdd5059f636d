import pytest
from detectron2.structures import BoxMode

from reviewkd_det.d2.data.box_format import describe_odd_boxes

HEIGHT, WIDTH = 60, 100
SIZE = {"height": 480, "width": 640}
# Left, top, right, lower border in pixels.
BORDERS = [(10, 5, 50, 40), (60, 20, 98, 58), (30, 30, 90, 50), (5, 40, 20, 60), (70, 2, 95, 30)]


def records(boxes, **values):
    objects = [{"bbox": list(box), "bbox_mode": BoxMode.XYWH_ABS, **values} for box in boxes]
    return [{"height": HEIGHT, "width": WIDTH, "annotations": objects}]


def test_boxes_in_pixels_are_not_odd():
    assert describe_odd_boxes(records([(a, b, c - a, d - b) for a, b, c, d in BORDERS])) == ""
    assert describe_odd_boxes([{"height": HEIGHT, "width": WIDTH}]) == ""


def test_one_box_over_the_border_of_many_is_not_odd():
    boxes = [(a, b, c - a, d - b) for a, b, c, d in BORDERS] * 3
    assert describe_odd_boxes(records([*boxes, (90, 10, 30, 10)])) == ""


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (BORDERS, "4 of 5 boxes .* fit as [x1, y1, x2, y2]"),
        (
            [((a + c) / 2, (b + d) / 2, c - a, d - b) for a, b, c, d in BORDERS],
            "4 of 5 boxes .* fit as [x centre",
        ),
        ([[x / 100 for x in box] for box in BORDERS], "5 of 5 boxes lie in 0 to 1"),
        (
            [(a - c / 2 + 1, b - d / 2 + 1, c, d) for a, b, c, d in BORDERS],
            "of their image .* fit as [x1, y1, x2, y2] that were read as the middle",
        ),
        (
            [(10, 10, 30, 20), (0.1, 0.2, 0.3, 0.4), (5, 5, 9, 9)],
            "1 of 3 boxes lie in 0 to 1",
        ),
        ([[3 * x for x in (a, b, c - a, d - b)] for a, b, c, d in BORDERS], "of another size"),
    ],
)
def test_other_formats_are_counted_and_named(boxes, words):
    told = describe_odd_boxes(records(boxes))
    for part in words.split(" .* "):
        assert part in told


def test_percentages_in_large_images_are_named():
    boxes = [(10, 20, 30, 40), (50, 50, 50, 50)]
    large = [{**records(boxes)[0], **SIZE}]
    assert describe_odd_boxes(large) == "2 of 2 boxes lie in 0 to 100, as percentages do"
    assert describe_odd_boxes([{**records([*boxes, (90, 0, 20, 9)])[0], **SIZE}]) == ""


def test_crowds_are_passed_over():
    assert describe_odd_boxes(records(BORDERS, iscrowd=1)) == ""
