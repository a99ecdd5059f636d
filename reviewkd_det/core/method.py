"""What a distillation method is, whoever trains with it.

Shapes: N images; a level is (N, C, H, W); R rows of logits over K classes and of D features, where
a row is an image, a region or an anchor; P of them have an object. Level lists run from high to low
resolution and are paired: level i of the student is compared with level i of the teacher.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from enum import Flag, auto
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from reviewkd_det.core.settings import Settings

__all__ = ["BY_CLASS", "Branch", "Level", "Method", "Need", "Side", "Truth", "View", "given"]

T = TypeVar("T")


class Need(Flag):
    """What a method must be given; a further need is a member here and a field of a view."""

    LEVELS = auto()
    LOGITS = auto()
    TARGET = auto()
    VECTOR = auto()
    BOXES = auto()
    SAMPLE = auto()
    NORMS = auto()
    INPUT_GRADIENT = auto()
    STAGE = auto()
    DELTAS = auto()
    MASKS = auto()
    OBJECTNESS = auto()
    BRANCHES = auto()
    CLASSIFIER = auto()
    ALONE = auto()
    PEERS = auto()
    SHARED = auto()

    @property
    def words(self) -> str:
        """The needs in a sentence, as in "logits and target"."""
        words = {Need.NORMS: "batch norms before the levels", Need.STAGE: "a stage before training",
                 Need.INPUT_GRADIENT: "gradients on the images", Need.DELTAS: "regressed boxes",
                 Need.OBJECTNESS: "objectness of anchors",
                 Need.BRANCHES: "branches of a dense head",
                 Need.CLASSIFIER: "a classifier that is replaced",
                 Need.ALONE: "a training without a teacher",
                 Need.PEERS: "networks trained beside the student",
                 Need.SHARED: "a map that they share"}  # fmt: skip
        needs = [need for need in type(self) if need in self]
        return " and ".join(words.get(need, str(need.name).lower()) for need in needs)


# What a network gives class by class.
BY_CLASS = Need.LOGITS | Need.DELTAS | Need.MASKS | Need.CLASSIFIER


class Level(NamedTuple):
    """What is known of a level before the first batch.

    Args:
        name: name of the level, or of the module whose output it is.
        channels: C.
        size: (H, W) where all images have one size; None where they differ.
        stride: pixels of the image between two cells; None where it is not known.
        norm: weights and biases, (C,) each, of the batch norm that gives the level; None without.
    """

    name: str
    channels: int
    size: tuple[int, int] | None = None
    stride: int | None = None
    norm: tuple[tuple[float, ...], tuple[float, ...]] | None = None


class Side(NamedTuple):
    """What is known of a network before the first batch.

    Args:
        levels: levels of the network, paired with the other side's.
        classes: K of the network's rows of logits; None where it gives none.
        binary: whether each class is told apart by a sigmoid of its own, a yes or no, instead of
            one of K by a softmax.
        vector: D of the network's rows of features; None where it gives none.
        branch: channels of the maps of its branches; None where it gives none.
        peers: what is known of the networks that are trained beside it.
        shared: channels of the map that these share with it; None where they share none.
    """

    levels: tuple[Level, ...] = ()
    classes: int | None = None
    binary: bool = False
    vector: int | None = None
    branch: int | None = None
    peers: tuple["Side", ...] = ()
    shared: int | None = None


class Branch(NamedTuple):
    """Half of a dense head, which gives classes or boxes, taken apart behind some of its layers.

    Args:
        maps: its maps before an activation, (N, C, H, W) for each level.
        finish: what the layers behind make of such maps: rows of logits, (N, R, K), or of boxes as
            x0, y0, x1, y1 in pixels, (N, R, 4).
    """

    maps: Sequence[Tensor]
    finish: Callable[[Sequence[Tensor]], Tensor]


class View(NamedTuple):
    """What a network gave for one batch.

    Args:
        levels: maps (N, C, H, W), ordered as `Side.levels`.
        logits: class logits, (R, K).
        vector: what the classifier of the rows is given, (R, D).
        input_gradient: gradient on each image of the logit of the teacher's class, (N, 3, H, W).
        deltas: regressed box of each row with an object, as it is coded by the student, (P, 4).
        masks: mask logits of each row with an object, of its true class, (P, H, W).
        objectness: logits of anchors that are sampled, (A,).
        anchor_deltas: regressed boxes of these anchors, as they are coded by the student, (A, 4).
        classes: branch of a dense head that gives classes.
        boxes: branch of a dense head that gives boxes.
        others: what further teachers gave, where there are several.
        peers: what the networks gave that are trained beside the student, with gradients.
        past: logits of the student and of these, (R, K) each, by what they were some steps ago;
            without gradient.
        shared: map that the student and these have in common, (N, C, H, W).
    """

    levels: Sequence[Tensor] = ()
    logits: Tensor | None = None
    vector: Tensor | None = None
    input_gradient: Tensor | None = None
    deltas: Tensor | None = None
    masks: Tensor | None = None
    objectness: Tensor | None = None
    anchor_deltas: Tensor | None = None
    classes: Branch | None = None
    boxes: Branch | None = None
    others: Sequence["View"] = ()
    peers: Sequence["View"] = ()
    past: Sequence[Tensor] = ()
    shared: Tensor | None = None


class Truth(NamedTuple):
    """What is known of the batch.

    Args:
        target: true class of each row of logits, (R,), integers in [0, K).
        boxes: true boxes of each image, (B, 4) as x0, y0, x1, y1 in pixels.
        size: height and width in pixels of the images as the levels cover them.
        sample: number of each image in the training set, (N,).
        deltas: true box of each row with an object, as it is coded by the student, (P, 4).
        objects: P, where rows are assigned objects.
    """

    target: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    size: tuple[int, int] | None = None
    sample: Tensor | None = None
    deltas: Tensor | None = None
    objects: int | None = None


def given(value: T | None) -> T:
    """What a method has said that it needs, so that it is there."""
    assert value is not None, "a method is given what it needs"
    return value


class Method(nn.Module):
    """A way to learn from a teacher.

    Parameters are trained with the student; parameters and buffers are saved with the run and never
    with the student. `register` makes a subclass known by its name.

    Attributes:
        needs: what `forward` must be given.
        takes_binary: whether it understands logits whose classes are binary, see `Side`.
        Settings: class of the settings.
        remedy: what else can be changed where the loss is far from the student's own, for the log.
        activation: "before" or "after" where its levels are meant so, of the activation that ends
            them; "" where both will do.
        teaches_in_stage: whether the student learns in the stage before training.
        ends_with_stage: whether the method is over when that stage is.
        learns_from_labels: whether the student's own loss on the labels is kept beside it.
        gaussian_warmup: whether the weight grows along a Gaussian instead of linearly.
    """

    needs: ClassVar[Need]
    takes_binary: ClassVar[bool] = False
    Settings: ClassVar[type[Settings]] = Settings
    remedy: ClassVar[str] = ""
    activation: ClassVar[str] = ""
    teaches_in_stage: ClassVar[bool] = True
    ends_with_stage: ClassVar[bool] = False
    learns_from_labels: ClassVar[bool] = True
    gaussian_warmup: ClassVar[bool] = False

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        """Build what is trained with the method.

        Args:
            settings: an instance of `Settings`.
            student: the student before its first batch.
            teacher: the teacher before its first batch.

        Raises:
            ValueError: a setting does not fit these two.
        """
        super().__init__()
        self.settings = settings

    def meet_samples(self, classes: Tensor) -> None:
        """Take notice of the training set, once before training, where `Need.SAMPLE` is needed.

        Args:
            classes: class of each image by its number, (N,); -1 where it is not known.
        """

    def forward_stage(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the parts of the loss in the stage before training; by default as after it."""
        return self.forward(student, teacher, truth)

    @abstractmethod
    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the parts of the loss, before its weight.

        Args:
            student: what the student gave.
            teacher: what the teacher gave, without gradient.
            truth: what is known of the batch.

        Returns:
            Parts of shape () whose sum is the loss: by the name of their level, or one as "".
        """
