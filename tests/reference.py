"""The method again, naively: the textbook form of the benchmark, by the state dict of ours."""

from benchmarks.textbook import TextbookReview
from benchmarks.textbook import textbook_hcl as hcl

__all__ = ["hcl", "review_walk"]


def review_walk(state, student_levels, teacher_sizes, training):
    """All levels, coarse to fine, with the state dict of a `ReviewPath`; batch norm, eps 1e-5."""
    count = len(student_levels)
    reduced = [state[f"levels.{i}.reduce.0.weight"] for i in range(count)]
    expanded = [state[f"levels.{i}.expand.0.weight"] for i in range(count)]
    channels = [[weight.shape[side] for weight in weights]
                for weights, side in ((reduced, 1), (expanded, 0))]  # fmt: skip
    review = TextbookReview(*channels, len(reduced[0])).to(student_levels[0].dtype)
    review.load_state_dict({f"path.{name}": value for name, value in state.items()})
    return review.train(training).fuse(student_levels, teacher_sizes)
