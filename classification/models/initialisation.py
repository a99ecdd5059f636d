"""The initialisation that several families share."""

from torch import nn

__all__ = ["initialise"]


def initialise(network: nn.Module, *, classifier_std: float | None = None) -> None:
    """Draw a network's weights as He et al., ICCV 2015, arXiv:1502.01852, and torchvision do.

    Convolutions: normal with variance 2 / (outputs * kernel cells) ("fan out"), bias 0. Batch
    normalisation keeps PyTorch's weight 1 and bias 0.

    Args:
        network: network that is changed in place.
        classifier_std: standard deviation of the linear layers' weights, whose bias is then 0;
            None keeps PyTorch's default.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and classifier_std is not None:
            nn.init.normal_(module.weight, std=classifier_std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
