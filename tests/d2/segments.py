"""Two images with things and stuff, annotated as COCO, COCO panoptic and Cityscapes do."""

import json

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

SIZES = [(64, 96), (80, 64)]  # (height, width)
THINGS, STUFF = ["cat", "dog"], ["things", "grass", "sky"]
THING_IDS, STUFF_IDS = {1: 0, 2: 1}, {0: 0, 10: 1, 11: 2}  # of the data set: of the model
IGNORED = 255
# Of each image: class of the model, x1 y1 x2 y2; apart from each other.
OBJECTS = [(0, 4, 6, 34, 40), (1, 40, 20, 60, 50)]
METADATA = {
    "thing_classes": THINGS,
    "thing_dataset_id_to_contiguous_id": THING_IDS,
    "stuff_classes": STUFF,
    "stuff_dataset_id_to_contiguous_id": STUFF_IDS,
}


def semantic(size):
    """(H, W) uint8: grass over sky, 0 for things, a strip that is ignored."""
    height, width = size
    labels = np.full(size, 2, dtype=np.uint8)
    labels[: height // 2] = 1
    labels[:, width - 3 :] = IGNORED
    for _, x1, y1, x2, y2 in OBJECTS:
        labels[y1:y2, x1:x2] = 0
    return labels


def panoptic(size):
    """(H, W) ids of segments, 0 for none, and what each is: (id, is a thing, model's class)."""
    labels = semantic(size)
    ids = np.where(labels == IGNORED, 0, labels + 100).astype(np.int32)
    segments = [(101, False, 1), (102, False, 2)]
    for number, (category, x1, y1, x2, y2) in enumerate(OBJECTS, start=1):
        ids[y1:y2, x1:x2] = number
        segments.append((number, True, category))
    return ids, segments


def write(folder):
    """Write all files; `folder` then has images, semantic, panoptic and three JSON files."""
    for name in ("images", "semantic", "panoptic"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations, segmented = [], [], []
    back = {v: k for k, v in THING_IDS.items()}, {v: k for k, v in STUFF_IDS.items()}
    for number, size in enumerate(SIZES, start=1):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
            folder / "images" / f"{number}.jpg"
        )
        Image.fromarray(semantic(size)).save(folder / "semantic" / f"{number}.png")
        ids, segments = panoptic(size)
        colors = np.stack([ids, np.zeros_like(ids), np.zeros_like(ids)], 2).astype(np.uint8)
        Image.fromarray(colors).save(folder / "panoptic" / f"{number}.png")
        images.append(
            {
                "id": number,
                "file_name": f"{number}.jpg",
                "coco_url": f"http://nowhere/images/{number}.jpg",
                "height": size[0],
                "width": size[1],
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
            }
        )
        for category, x1, y1, x2, y2 in OBJECTS:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": back[0][category],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
        info = [
            {
                "id": segment,
                "category_id": back[0 if thing else 1][category],
                "iscrowd": 0,
                "area": int((ids == segment).sum()),
            }
            for segment, thing, category in segments
        ]
        segmented.append({"image_id": number, "file_name": f"{number}.png", "segments_info": info})
    things = [
        {"id": back[0][i], "name": name, "frequency": "f", "isthing": 1}
        for i, name in enumerate(THINGS)
    ]
    stuff = [{"id": back[1][i], "name": STUFF[i], "isthing": 0} for i in range(1, len(STUFF))]
    instances = {"images": images, "annotations": annotations, "categories": things}
    (folder / "instances.json").write_text(json.dumps(instances))
    content = {"images": images, "annotations": segmented, "categories": things + stuff}
    (folder / "panoptic.json").write_text(json.dumps(content))
    return folder


def perfect(size):
    """What a detector that is always right gives for an image of this size."""
    height, width = size
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.tensor([box for _, *box in OBJECTS], dtype=torch.float32))
    instances.pred_classes = torch.tensor([category for category, *_ in OBJECTS])
    instances.scores = torch.ones(len(OBJECTS))
    instances.pred_masks = torch.zeros(len(OBJECTS), height, width, dtype=torch.bool)
    for mask, (_, x1, y1, x2, y2) in zip(instances.pred_masks, OBJECTS, strict=True):
        mask[y1:y2, x1:x2] = True
    labels = torch.from_numpy(semantic(size)).long()
    scores = torch.nn.functional.one_hot(labels.clamp(max=2), 3).permute(2, 0, 1)
    ids, segments = panoptic(size)
    info = [{"id": i, "isthing": thing, "category_id": c} for i, thing, c in segments]
    return {
        "instances": instances,
        "sem_seg": scores.float(),
        "panoptic_seg": (torch.from_numpy(ids), info),
    }
