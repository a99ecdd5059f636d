"""A plugin stays a plugin: what importing ours leaves of Detectron2 as it was."""

import json
import subprocess
import sys

from detectron2.data import DatasetCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

import reviewkd_det.d2  # noqa: F401
from reviewkd_det.d2.runs.yaml_config import load_run_config
from tests.d2 import scenes, tiny

# What a process has of Detectron2, and of the warnings that it shows, around the import of ours.
COMPARE = """
import json, pkgutil, warnings
import detectron2.data.datasets, detectron2.engine, detectron2.evaluation, detectron2.modeling
import torchvision
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

def states():
    return {
        "loaders": {name: id(load) for name, load in DatasetCatalog.data.items()},
        "metadata": {name: repr(x.as_dict()) for name, x in MetadataCatalog.data.items()},
        "files": {prefix: id(x) for prefix, x in PathManager._path_handlers.items()},
        "filters": list(map(repr, warnings.filters)),
    }

before = states()
import reviewkd_det.core, reviewkd_det.common, reviewkd_det.d2
for room in pkgutil.walk_packages(reviewkd_det.d2.__path__, "reviewkd_det.d2."):
    __import__(room.name)
after = states()
print(json.dumps({name: [before[name], after[name]] for name in before}))
"""


def test_importing_changes_nothing_of_detectron2_nor_of_the_warnings_shown():
    done = subprocess.run([sys.executable, "-c", COMPARE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, (before, after) in json.loads(done.stdout.splitlines()[-1]).items():
        assert after == before, name
        assert len(before) > 2, name


def test_importing_registers_the_parts_that_configs_name():
    assert META_ARCH_REGISTRY.get("DistilledDetector")
    assert BACKBONE_REGISTRY.get("build_basic_resnet_fpn_backbone")
    assert BACKBONE_REGISTRY.get("build_mobilenet_v2_fpn_backbone")


def test_a_run_reads_detectron2s_names_through_the_checked_loader(tmp_path, monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
    config = tiny.save_student(tmp_path, **scenes.run_tree(tmp_path, "scenes_of_the_plugin"))
    before = DatasetCatalog.data["coco_2017_val"]
    load_run_config(str(config), [])
    assert DatasetCatalog.data["coco_2017_val"] is not before
