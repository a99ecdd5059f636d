"""One demo scene: handwritten digits among clutter, with the mask of what is visible of each.

Shape legend: S = SCENE_SIDE_PX, N = number of source digits, h and w = size of one drawn glyph.
Pictures are RGB floats in [0, 1] of shape (S, S, 3) until the last step; masks are boolean (S, S).
"""

from dataclasses import dataclass

import numpy as np
from contourpy import FillType, contour_generator
from PIL import Image, ImageDraw, ImageFilter

SCENE_SIDE_PX = 96
DIGITS_PER_SCENE = (2, 6)
DIGIT_HEIGHT_PX = (14, 44)
CONTRAST = (0.18, 0.6)  # of a digit or a distractor to what is behind it; 1 is black on white
MAX_OVERLAP = 0.2  # of two glyphs' rectangles, as a part of the smaller
_DISTRACTORS = (3, 8)
_NOISE_STD = (0.01, 0.06)
_MAX_BLUR_PX = 0.8
_MAX_TURN_DEGREES = 12
_VISIBLE_INK = 0.4  # of a pixel that belongs to the digit
_TRIES = 20
_ENLARGED_PX = 64  # glyphs are turned at this size before they are shrunk to their own

Box = tuple[int, int, int, int]  # x, y, width, height in pixels


@dataclass
class VisibleDigit:
    """One digit of a scene; `mask` is what later digits leave visible."""

    label: int
    mask: np.ndarray  # (S, S)


def draw_scene(
    rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, list[VisibleDigit]]:
    """Draw one scene; the same state of `rng` gives the same scene.

    Args:
        rng: Source of every random choice.
        digits: Ink of the source digits in [0, 1], (N, 8, 8).
        labels: Their classes, (N,).

    Returns:
        The picture as bytes, (S, S, 3), and its digits from the farthest to the nearest.
    """
    picture = _draw_distractors(rng, _draw_background(rng))
    placed: list[VisibleDigit] = []
    boxes: list[Box] = []
    for _ in range(rng.integers(DIGITS_PER_SCENE[0], DIGITS_PER_SCENE[1] + 1)):
        source = rng.integers(len(digits))
        found = _find_place(rng, digits[source], boxes)
        if found is None:
            break
        glyph, box = found
        ink = np.zeros((SCENE_SIDE_PX,) * 2, np.float32)
        ink[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = glyph
        mask = ink > _VISIBLE_INK
        for other in placed:
            other.mask &= ~mask
        picture = _blend(picture, ink, _contrasting_color(rng, picture[mask].mean(axis=0)))
        boxes.append(box)
        placed.append(VisibleDigit(int(labels[source]), mask))
    return _degrade(rng, picture), placed


def draw_glyph(rng: np.random.Generator, digit: np.ndarray) -> np.ndarray:
    """Turn, stretch and scale one 8x8 digit to its drawn size; ink in [0, 1], (h, w)."""
    ink = Image.fromarray(np.pad(digit, 2).astype(np.float32))  # room to turn
    ink = ink.resize((_ENLARGED_PX, _ENLARGED_PX), Image.Resampling.BICUBIC)
    angle = rng.uniform(-_MAX_TURN_DEGREES, _MAX_TURN_DEGREES)
    ink = ink.rotate(angle, Image.Resampling.BICUBIC)
    x, y, width, height = bounds(np.asarray(ink) > _VISIBLE_INK)
    drawn_height = rng.integers(DIGIT_HEIGHT_PX[0], DIGIT_HEIGHT_PX[1] + 1)
    drawn_width = round(drawn_height * width / height * rng.uniform(0.85, 1.2))
    drawn_size = (int(np.clip(drawn_width, 4, DIGIT_HEIGHT_PX[1])), int(drawn_height))
    ink = ink.resize(drawn_size, Image.Resampling.BILINEAR, box=(x, y, x + width, y + height))
    return np.clip(np.asarray(ink), 0, 1)


def bounds(mask: np.ndarray) -> Box:
    """Tight box of a mask as (x, y, width, height) in pixels."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def outline(mask: np.ndarray) -> list[list[float]]:
    """Trace a mask as COCO polygons [x0, y0, x1, y1, ...]; rasterised, they give the mask again.

    COCO polygons have no holes, so a hole is entered from the first point of the outer ring and
    left on the same way: the two edges cancel.
    """
    x, y, width, height = bounds(mask)
    field = np.pad(mask[y : y + height, x : x + width], 1).astype(float)
    contours = contour_generator(z=field, fill_type=FillType.OuterOffset)
    corner = np.array([x - 0.5, y - 0.5])  # -1 for the padding, +0.5 for pixel centres
    polygons = []
    for points, offsets in zip(*contours.filled(0.5, np.inf), strict=True):
        rings = np.split(points + corner, offsets[1:-1])
        start = rings[0][:1]
        path = [rings[0], *(part for hole in rings[1:] for part in (hole, start))]
        polygons.append(np.concatenate(path).ravel().tolist())
    return polygons


def _draw_background(rng: np.random.Generator) -> np.ndarray:
    across, down = np.meshgrid(*[np.linspace(-0.5, 0.5, SCENE_SIDE_PX)] * 2)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(angle) * across + np.sin(angle) * down)[:, :, None]  # (S, S, 1)
    coarse = Image.fromarray(rng.uniform(-1, 1, (6, 6)).astype(np.float32))
    clouds = np.asarray(coarse.resize((SCENE_SIDE_PX,) * 2, Image.Resampling.BICUBIC))
    color = rng.uniform(0.1, 0.9) + rng.uniform(-0.12, 0.12, 3)
    slope = rng.uniform(-0.3, 0.3) + rng.uniform(-0.1, 0.1, 3)
    picture = np.clip(color + slope * ramp + 0.06 * clouds[:, :, None], 0, 1)
    return picture.astype(np.float32)


def _draw_distractors(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    for _ in range(rng.integers(_DISTRACTORS[0], _DISTRACTORS[1] + 1)):
        shape = Image.new("L", (SCENE_SIDE_PX,) * 2)
        draw = ImageDraw.Draw(shape)
        thickness = int(rng.integers(1, 6))
        centre = rng.uniform(0, SCENE_SIDE_PX, 2)
        kind = rng.integers(4)
        if kind == 0:  # a line through the scene
            draw.line([*rng.uniform(0, SCENE_SIDE_PX, 4)], fill=255, width=thickness)
        elif kind == 1:  # a stroke like a piece of writing
            steps = rng.uniform(-12, 12, (int(rng.integers(2, 5)), 2))
            path = np.cumsum(np.vstack([centre, steps]), axis=0)
            draw.line(path.ravel().tolist(), fill=255, width=thickness, joint="curve")
        else:  # a blob or a ring
            radii = rng.uniform(2, 14, 2)
            box = [*(centre - radii), *(centre + radii)]
            is_ring = kind == 3 and min(radii) > thickness
            draw.ellipse(
                box, fill=None if is_ring else 255, outline=255, width=thickness if is_ring else 0
            )
        ink = np.asarray(shape, np.float32) / 255
        if ink.any():
            color = _contrasting_color(rng, picture[ink > 0].mean(axis=0))
            picture = _blend(picture, ink, color)
    return picture


def _contrasting_color(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    contrast = rng.uniform(*CONTRAST)
    level = behind.mean()
    can_be_lighter, can_be_darker = level + contrast <= 1, level - contrast >= 0
    is_lighter = can_be_lighter and (not can_be_darker or rng.random() < 0.5)
    color = behind + (contrast if is_lighter else -contrast) + rng.uniform(-0.06, 0.06, 3)
    return np.clip(color, 0, 1).astype(np.float32)


def _blend(picture: np.ndarray, ink: np.ndarray, color: np.ndarray) -> np.ndarray:
    return picture + ink[:, :, None] * (color - picture)


def _find_place(
    rng: np.random.Generator, digit: np.ndarray, taken: list[Box]
) -> tuple[np.ndarray, Box] | None:
    for _ in range(_TRIES):  # each time with another size
        glyph = draw_glyph(rng, digit)
        height, width = glyph.shape
        for _ in range(_TRIES):
            x = int(rng.integers(SCENE_SIDE_PX - width + 1))
            y = int(rng.integers(SCENE_SIDE_PX - height + 1))
            box = (x, y, width, height)
            if all(_overlap(box, other) <= MAX_OVERLAP for other in taken):
                return glyph, box
    return None


def _overlap(first: Box, second: Box) -> float:
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    smaller = min(first[2] * first[3], second[2] * second[3])
    return max(width, 0) * max(height, 0) / smaller


def _degrade(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, _MAX_BLUR_PX)))
    noise = rng.normal(0, rng.uniform(*_NOISE_STD), picture.shape)
    return np.rint(np.clip(np.asarray(image) / 255 + noise, 0, 1) * 255).astype(np.uint8)
