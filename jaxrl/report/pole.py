"""CartPole drawn, without a display."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_SIZE = (480, 240)
_HALF_TRACK = 2.4
"""Metres from the middle at which an episode ends."""
_POLE_METRES = 1.0
_MILLISECONDS = 40
"""Of a picture: two of the environment's steps of 20 ms."""
_INK, _CART, _POLE, _PAPER = "#334155", "#1d4ed8", "#d97706", "#ffffff"


def animate(observations: Sequence[np.ndarray] | np.ndarray) -> bytes:
    """A GIF of an episode, in real time.

    Args:
        observations: ``[T, 4]``: position (m), velocity, angle (rad), angular velocity.
    """
    frames = [_draw(row[0], row[2], 2 * i) for i, row in enumerate(np.asarray(observations)[::2])]
    file = io.BytesIO()
    frames[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=_MILLISECONDS,
        loop=0,
    )
    return file.getvalue()


def _draw(position: float, angle: float, step: int) -> Image.Image:
    image = Image.new("RGB", _SIZE, _PAPER)
    draw = ImageDraw.Draw(image)
    width, height = _SIZE
    metre = width / (2 * _HALF_TRACK + 0.4)
    x, floor = width / 2 + position * metre, height - 40
    draw.line([(0, floor), (width, floor)], fill=_INK, width=2)
    for end in (-_HALF_TRACK, _HALF_TRACK):
        edge = width / 2 + end * metre
        draw.line([(edge, floor - 8), (edge, floor + 8)], fill=_INK, width=2)
    draw.rectangle([x - 28, floor - 26, x + 28, floor - 4], fill=_CART)
    joint = (x, floor - 26)
    length = _POLE_METRES * metre
    tip = (x + length * math.sin(angle), floor - 26 - length * math.cos(angle))
    draw.line([joint, tip], fill=_POLE, width=8)
    draw.ellipse([x - 5, floor - 31, x + 5, floor - 21], fill=_INK)
    draw.text((8, height - 20), f"step {step}", fill=_INK)
    return image.quantize(16)
