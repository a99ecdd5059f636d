"""Detectron2's projects by MODULES and Python configs, where its official tree is installed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import detectron2
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from reviewkd_det.d2 import load_config, own_configs
from reviewkd_det.d2.runs.solver import build_lr_scheduler, build_optimizer
from reviewkd_det.d2.teacher.build import TeacherLoader
from reviewkd_det.d2.teacher.source import read_teacher
from tests.d2 import scenes, tiny, zoo
from tests.d2.test_scripts import call

PROJECTS = Path(detectron2.__file__).resolve().parents[1] / "projects"
pytestmark = pytest.mark.skipif(
    not (PROJECTS / "PointRend").is_dir(), reason="this Detectron2 comes without its projects"
)
WIDE, NARROW = 16, 8
POINT_REND = tiny.merged(
    tiny.R_CNN,
    {
        "MASK_ON": True,
        "ROI_BOX_HEAD": {"TRAIN_ON_PRED_BOXES": True},
        "ROI_MASK_HEAD": {
            "NAME": "PointRendMaskHead",
            "POOLER_TYPE": "",
            "FC_DIM": 16,
            "IN_FEATURES": ["p2"],
            "POINT_HEAD_ON": True,
        },
        "POINT_HEAD": {"FC_DIM": 16, "IN_FEATURES": ["p2"], "NUM_CLASSES": tiny.CLASSES},
    },
)


def deeplab(width):
    """DeepLab's semantic segmentation, of this width."""
    return {
        "META_ARCHITECTURE": "SemanticSegmentor",
        "BACKBONE": {"NAME": "build_resnet_deeplab_backbone", "FREEZE_AT": 0},
        "RESNETS": {
            "DEPTH": 50,
            "NORM": "BN",
            "OUT_FEATURES": ["res2", "res3", "res5"],
            "RES2_OUT_CHANNELS": width,
            "STEM_OUT_CHANNELS": width,
            "WIDTH_PER_GROUP": width,
            "STRIDE_IN_1X1": False,
        },
        "SEM_SEG_HEAD": {
            "NAME": "DeepLabV3PlusHead",
            "IN_FEATURES": ["res2", "res5"],
            "NUM_CLASSES": zoo.STUFF,
            "NORM": "BN",
            "ASPP_CHANNELS": 8,
            "CONVS_DIM": 8,
            "PROJECT_CHANNELS": [8],
            "LOSS_TYPE": "hard_pixel_mining",
        },
        "DEVICE": "cpu",
    }


def panoptic_deeplab(width):
    """Panoptic-DeepLab, of this width."""
    head = {
        "IN_FEATURES": ["res2", "res3", "res5"],
        "PROJECT_FEATURES": ["res2", "res3"],
        "PROJECT_CHANNELS": [8, 8],
        "ASPP_CHANNELS": 8,
        "HEAD_CHANNELS": 8,
        "NORM": "BN",
    }
    own = {
        "META_ARCHITECTURE": "PanopticDeepLab",
        "SEM_SEG_HEAD": {"NAME": "PanopticDeepLabSemSegHead", **head},
        "INS_EMBED_HEAD": {"CONVS_DIM": 8, **head},
    }
    return tiny.merged(deeplab(width), own)


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """No function of another test's modules, and stand-ins for packages that projects import."""
    monkeypatch.setattr(own_configs, "_functions", {})
    for package, parts in {"cv2": {}, "panopticapi": {"utils": {"rgb2id": None}}}.items():
        if importlib.util.find_spec(package):
            continue
        module = ModuleType(package)
        monkeypatch.setitem(sys.modules, package, module)
        for name, content in parts.items():
            part = ModuleType(f"{package}.{name}")
            vars(part).update(content)
            monkeypatch.setitem(sys.modules, part.__name__, part)


def test_point_rend_is_trained_and_evaluated(tmp_path, monkeypatch):
    tree = scenes.run_tree(tmp_path, "scenes_of_point_rend")
    tree["INPUT"]["MASK_FORMAT"] = "bitmask"
    tree["MODULES"] = ["detectron2.projects.point_rend"]
    tiny.save_teacher(tmp_path)
    config = tiny.save_student(tmp_path, POINT_REND, **tree)
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    assert "segm" in (tmp_path / "run" / "summary.json").read_text()


@pytest.mark.parametrize(
    ("project", "model", "losses"),
    [
        ("deeplab", deeplab, {"loss_sem_seg"}),
        ("panoptic_deeplab", panoptic_deeplab, {"loss_sem_seg", "loss_center", "loss_offset"}),
    ],
)
def test_deeplab_learns_from_deeplab(tmp_path, project, model, losses):
    opts = ["MODULES", repr([f"detectron2.projects.{project}"])]
    solver = {"LR_SCHEDULER_NAME": "WarmupPolyLR", "MAX_ITER": 10}
    data = {"DATASETS": {"TRAIN": ["coco_2017_train_panoptic_separated"]}, "SOLVER": solver}
    path = tiny.write(tmp_path / "teacher.yaml", {"VERSION": 2, "MODEL": model(WIDE), **data})
    torch.save(build_model(load_config(path, opts, import_code=True)).state_dict(),
               tmp_path / "t.pth")  # fmt: skip
    teacher = {"CONFIG_FILE": "teacher.yaml", "WEIGHTS": str(tmp_path / "t.pth")}
    student = model(NARROW)
    distill = {"STUDENT_META_ARCHITECTURE": student["META_ARCHITECTURE"], "TEACHER": teacher}
    student |= {"META_ARCHITECTURE": "DistilledDetector", "DISTILL": distill}
    path = tiny.write(tmp_path / "student.yaml", {"VERSION": 2, "MODEL": student, **data})
    cfg = load_config(path, opts, import_code=True)
    detector = build_model(cfg).train()
    optimizer = build_optimizer(cfg, detector)
    assert type(build_lr_scheduler(cfg, optimizer)).__name__ == "WarmupPolyLR"
    assert isinstance(optimizer, torch.optim.Adam) == (project == "panoptic_deeplab")
    with EventStorage():
        found = detector([panoptic_input(i) for i in range(2)])
    assert losses < set(found)
    assert any("reviewkd" in name.lower() for name in set(found) - losses)
    assert all(torch.isfinite(loss) for loss in found.values())


def panoptic_input(seed, height=64, width=96):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, zoo.STUFF, (height, width), generator=generator)
    ones = torch.ones(height, width)
    return {
        "image": torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8),
        "sem_seg": labels,
        "sem_seg_weights": ones,
        "center": ones / 2,
        "center_weights": ones,
        "offset": torch.ones(2, height, width),
        "offset_weights": ones,
    }


@pytest.mark.filterwarnings("ignore:Importing from timm.models.layers:FutureWarning")
def test_vitdet_is_a_teacher():
    config = PROJECTS / "ViTDet" / "configs" / "COCO" / "mask_rcnn_vitdet_b_100ep.py"
    small = {
        "backbone.net": ["embed_dim=32", "depth=2", "num_heads=2", "img_size=64"],
        "backbone": ["square_pad=64", "out_channels=8"],
        "proposal_generator.head": ["conv_dims=[8]"],
        "roi_heads.box_head": ["conv_dims=[8]", "fc_dims=[8]"],
        "roi_heads.mask_head": ["conv_dims=[8,8]"],
    }
    opts = [f"model.{part}.{value}" for part, values in small.items() for value in values]
    with pytest.raises(ValueError, match=r"TEACHER.WEIGHTS must name a trained"):
        read_teacher(str(config), opts=opts)
    backbone = read_teacher(str(config), "w.pth", opts).build_backbone()
    assert {"p2", "p5"} < set(backbone.output_shape())
    with pytest.raises(ValueError, match="must not change what a Python config calls"):
        TeacherLoader(str(config), "w.pth", ["model._target_=os.getcwd"])()
