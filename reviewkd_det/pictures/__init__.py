"""Pictures of trained runs: what they detect, and what a distilled one has of its teacher."""

from reviewkd_det.pictures.draw import draw_pictures

__all__ = ["draw_pictures"]
