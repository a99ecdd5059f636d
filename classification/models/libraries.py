"""Classification networks of torchvision and, where it is installed, timm."""

import difflib
import importlib.util
import logging
from pickle import UnpicklingError
from typing import Any

import torchvision
from torch import Tensor, nn

from reviewkd_det.common.weights.plain_pickle import refusal_reason

__all__ = [
    "classes_of_weights",
    "create_timm_model",
    "create_torchvision_model",
    "load_body",
    "torchvision_names",
]

logger = logging.getLogger(__name__)

# Their constructors warn unless init_weights is given, and answer with a tuple in train mode
# unless the auxiliary classifiers are off.
_WITH_AUXILIARY_CLASSIFIERS = ("googlenet", "inception_v3")
# Trained weights of inception_v3 still have one; googlenet's builder removes its own.
_AUXILIARY_PREFIX = "AuxLogits."
# What torchvision's weights decide besides the parameters, as attribute and as argument.
_DECIDED_BY_WEIGHTS = ("image_size", "transform_input")


def torchvision_names() -> list[str]:
    """List the models of torchvision.models that classify images."""
    return torchvision.models.list_models(module=torchvision.models)


def create_torchvision_model(name: str, *, num_classes: int, weights: str = "") -> nn.Module:
    """Build one of torchvision's networks.

    With weights of another class count, the classifier's weight and bias start new; a log line
    names them. googlenet and inception_v3 come without auxiliary classifiers.

    Args:
        name: one of `torchvision_names`.
        num_classes: at least 2.
        weights: "" draws them; else a name of torchvision's weights API, such as DEFAULT.

    Raises:
        KeyError: no classification model, or no weights of it, has this name.
        ValueError: their file holds more than plain data.
    """
    if name not in torchvision_names():
        nearest = difflib.get_close_matches(name, torchvision_names(), cutoff=0)
        raise KeyError(
            "model must be a classification model of torchvision; "
            f"got torchvision/{name}; the nearest are "
            + ", ".join(f"torchvision/{other}" for other in nearest)
        )
    options: dict[str, Any] = {}
    if name in _WITH_AUXILIARY_CLASSIFIERS:
        options = {"aux_logits": False, "init_weights": not weights}
    if not weights:
        return torchvision.models.get_model(name, num_classes=num_classes, **options)
    known = torchvision.models.get_model_weights(name)
    if weights not in known.__members__:
        raise KeyError(
            f"weights must be torchvision's for {name}; got {weights}; "
            f"it has {', '.join(known.__members__)}"
        )
    try:  # the builder would unpickle a file of the cache, whatever that holds
        known[weights].get_state_dict(check_hash=True, weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"weights torchvision/{name} {weights} must be plain data; got {refusal_reason(error)}"
        ) from error
    # torchvision's own builder reads the file: it knows what old ones lack or name otherwise.
    trained = torchvision.models.get_model(name, weights=known[weights])
    options |= {key: vars(trained)[key] for key in _DECIDED_BY_WEIGHTS if key in vars(trained)}
    model = torchvision.models.get_model(name, num_classes=num_classes, **options)
    state = trained.state_dict()
    for key in [key for key in state if key.startswith(_AUXILIARY_PREFIX)]:
        del state[key]
    load_body(model, state, source=f"torchvision/{name} {weights}")
    return model


def classes_of_weights(name: str, weights: str) -> int | None:
    """The number of classes of a library's weights; None where it has none of that name.

    Args:
        name: `torchvision/NAME` or `timm/NAME`.
        weights: name of weights, as the library's builder takes it.
    """
    library, _, own_name = name.rpartition("/")
    if library == "torchvision" and own_name in torchvision_names():
        known = torchvision.models.get_model_weights(own_name)
        if weights in known.__members__:
            return len(known[weights].meta["categories"])
    if library == "timm" and importlib.util.find_spec("timm"):
        from timm.models import get_pretrained_cfg

        full_name = own_name if weights == "DEFAULT" else f"{own_name}.{weights}"
        try:
            config = get_pretrained_cfg(full_name)
        except RuntimeError:  # no such weights
            return None
        return None if config is None else config.num_classes
    return None


def load_body(model: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Load a state dict whose class count may differ: the classifier then keeps its own values.

    Args:
        model: network that is changed in place; its last module is the classifier.
        state: changed in place: entries that are not loaded leave it.
        source: names the state dict in messages.

    Raises:
        ValueError: the names differ, or the shapes of more than the classifier's weight and bias.
    """
    own = model.state_dict()
    classifier = next(reversed(own)).rpartition(".")[0]
    new = [key for key in own if key in state and own[key].shape != state[key].shape]
    wrong = sorted(own.keys() ^ state.keys())
    wrong += [key for key in new if key.rpartition(".")[0] != classifier]
    if wrong:
        raise ValueError(
            f"weights {source} must fit the model but for {classifier}; "
            f"got {len(wrong)} entries that do not, such as {', '.join(wrong[:3])}"
        )
    if new:
        counts = len(own[new[0]]), len(state[new[0]])
        logger.info(
            "%s start new: the model has %d classes, %s %d", " and ".join(new), counts[0],
            source, counts[1],
        )  # fmt: skip
    for key in new:
        del state[key]
    model.load_state_dict(state, strict=not new)


def create_timm_model(name: str, *, num_classes: int, weights: str = "") -> nn.Module:
    """Build one of timm's networks.

    Args:
        name: a name that timm.list_models() lists.
        num_classes: at least 2.
        weights: "" draws them; DEFAULT or a tag that timm.list_pretrained() lists fetches them.

    Raises:
        ImportError: timm is not installed.
        KeyError: timm has no such model, or no such weights of it.
        ValueError: weights for a model of which timm has none.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"timm must be installed for the model timm/{name}; got {error}; pip install timm"
        ) from error
    if name not in timm.list_models():
        nearest = difflib.get_close_matches(name, timm.list_models(), cutoff=0)
        raise KeyError(
            f"model must be one that timm lists; got timm/{name}; the nearest are "
            + ", ".join(f"timm/{other}" for other in nearest)
        )
    if not weights:
        return timm.create_model(name, num_classes=num_classes)
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    if not tags:
        raise ValueError(f"weights must be '' for timm/{name}, which has none; got {weights!r}")
    if weights not in ("DEFAULT", *tags):
        raise KeyError(
            f"weights must be timm's for {name}; got {weights}; it has DEFAULT, {', '.join(tags)}"
        )
    full_name = name if weights == "DEFAULT" else f"{name}.{weights}"
    return timm.create_model(full_name, pretrained=True, num_classes=num_classes)
