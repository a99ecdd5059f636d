"""Detectron2's own training scripts, as docs/extending.md shows them, train and resume a student.

Here every batch is of one image and every forward pass is seeded by its iteration, so that a run
which goes on is the run that was never stopped, if all that belongs to it was kept.
"""

import json
from contextlib import suppress

import pytest
import torch
from detectron2.utils.events import get_event_storage

from reviewkd_det.d2.data import register_coco_format
from tests.d2 import scenes, tiny
from tests.docs_commands import ROOT, blocks

SHOWN = dict(blocks(ROOT / "docs" / "extending.md", "python"))
DATASET = "scenes_of_stock_scripts"


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """Make a student's config for an output folder."""
    folder = tmp_path_factory.mktemp("stock")
    tree = scenes.run_tree(
        folder, DATASET, MAX_ITER=4, IMS_PER_BATCH=1, CHECKPOINT_PERIOD=2, BASE_LR=0.01
    )
    ((_, json_file, image_root),) = tree["DATASETS"].pop("COCO_FORMAT")
    with open(json_file) as file:
        content = json.load(file)
    of_one_image = content["annotations"][:2]
    with open(json_file, "w") as file:
        json.dump({**content, "images": content["images"][:1], "annotations": of_one_image}, file)
    register_coco_format(DATASET, json_file, image_root)
    tree["INPUT"]["RANDOM_FLIP"] = "none"
    tiny.save_teacher(folder)

    def make(name):
        return tiny.save_student(folder, **{**tree, "OUTPUT_DIR": str(folder / name)})

    return make


class StoppedError(Exception):
    """A training is interrupted."""


def trained(script, config, *, resume=False, stop_at=None, without=None):
    """The losses of each iteration of a script, whose model is the same at every start."""
    losses, names = {}, {}
    text = "\n".join(
        line for line in SHOWN[script].splitlines() if not without or not line.endswith(without)
    )
    exec(compile(text, script, "exec"), names)

    def watched(build, *arguments):
        torch.manual_seed(5)
        model = build(*arguments)

        def begin(*_):
            if get_event_storage().iter == stop_at:
                raise StoppedError
            torch.manual_seed(get_event_storage().iter)

        def end(_, __, output):
            if model.training:
                losses[get_event_storage().iter] = {k: v.detach() for k, v in output.items()}

        model.register_forward_pre_hook(lambda *_: begin() if model.training else None)
        model.register_forward_hook(end)
        return model

    if "DefaultTrainer" in names:
        stock = names["DefaultTrainer"]
        names["DefaultTrainer"] = type(
            "Watched",
            (stock,),
            {
                "build_model": classmethod(lambda cls, cfg: watched(stock.build_model, cfg)),
                "build_evaluator": classmethod(lambda cls, cfg, name: None),
            },
        )
    else:
        build = names["build_model"]
        names["build_model"] = lambda cfg: watched(build, cfg)
    with suppress(StoppedError):
        names["main"](str(config), resume)
    return losses


@pytest.mark.parametrize("script", ["plain_train.py", "default_train.py"])
def test_a_resumed_run_of_a_stock_script_goes_on_exactly(configs, script):
    whole = trained(script, configs(f"{script}_whole"))
    assert "loss_reviewkd" in whole[0]
    part = trained(script, configs(f"{script}_part"), stop_at=2)
    rest = trained(script, configs(f"{script}_part"), resume=True)
    assert (sorted(part), sorted(rest)) == ([0, 1], [2, 3])
    assert {**part, **rest} == whole


@pytest.mark.parametrize("script", ["plain_train.py", "default_train.py"])
def test_without_its_third_line_a_resumed_run_begins_its_methods_anew(configs, script):
    trained(script, configs(f"{script}_forgetful"), stop_at=2, without="# 3")
    whole = trained(script, configs(f"{script}_entire"))
    rest = trained(script, configs(f"{script}_forgetful"), resume=True, without="# 3")
    assert rest[2]["loss_reviewkd"] != whole[2]["loss_reviewkd"]
    assert rest[2]["loss_rpn_cls"] == whole[2]["loss_rpn_cls"]
