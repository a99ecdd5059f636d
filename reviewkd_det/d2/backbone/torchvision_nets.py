"""torchvision's classifiers with their weights, giving maps instead of classes."""

import difflib

import torchvision
from torch import nn

from reviewkd_det.common.tracing.graph import build_tapped
from reviewkd_det.common.tracing.stages import find_taps
from reviewkd_det.d2.backbone.network_file import NAME, WEIGHTS, misfit, read_network_file

__all__ = ["build_torchvision_features"]

PIXELS = 128  # a side of the image by which stages are found


def build_torchvision_features(
    name: str, weights: str, entry: str = ""
) -> tuple[nn.Module, list[str]]:
    """Build the part of a network of torchvision that gives maps.

    Args:
        name: torchvision's name.
        weights: "" draws them, "pretrained" fetches torchvision's newest, else a file.
        entry: entry or prefix of the file that is taken; "" finds it.

    Returns:
        The part, which maps images to a list of maps, and the module that gives each map.

    Raises:
        FileNotFoundError: no file has this name, or torchvision's weights are out of reach.
        KeyError: no network has this name; the sentence names the nearest.
        ValueError: the network cannot be traced, or a file holds others than its weights.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        near = [f"torchvision/{x}" for x in difflib.get_close_matches(name, names, cutoff=0)]
        raise KeyError(
            f"{NAME} must be a classifier of torchvision; got 'torchvision/{name}'; the nearest "
            f"are {', '.join(near)}"
        )
    network = _load(name, weights, entry)
    try:
        nodes = find_taps(network, PIXELS, before_activation=False, pooled=False)
    except Exception as error:  # whatever the network's own code raises on a size
        raise ValueError(
            f"{NAME} must be a network whose maps can be found by tracing it with an image of "
            f"{PIXELS} x {PIXELS} pixels; got torchvision/{name}: {error}"
        ) from error
    net = build_tapped(network, nodes, NAME, with_output=False)
    modules = dict(net.named_modules())
    return net, [_module_of(node, modules) for node in nodes]


def _load(name: str, weights: str, entry: str) -> nn.Module:
    if weights == "pretrained":
        known = torchvision.models.get_model_weights(name).DEFAULT
        try:  # the builder would unpickle a file of the cache, whatever that holds
            known.get_state_dict(check_hash=True, weights_only=True)
        except OSError as error:
            raise FileNotFoundError(
                f"{WEIGHTS} must be within reach; got 'pretrained' for torchvision/{name}: "
                f"{error}; without a connection, name a file"
            ) from error
        # It knows what old files lack or name otherwise, and what input they take.
        return torchvision.models.get_model(name, weights=known)
    options = {"transform_input": True} if weights and name == "googlenet" else {}
    network = torchvision.models.get_model(name, **options)
    if not weights:
        return network
    state = read_network_file(network, weights, entry)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # names or shapes that differ
        raise misfit(f"torchvision/{name}", weights, error) from error
    return network


def _module_of(node: str, modules: dict[str, nn.Module]) -> str:
    """The module that a node belongs to: its own, or the one that calls its function."""
    while node not in modules:
        node = node.rpartition(".")[0]
    return node
