"""CartPole drawn, without a display."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

ENVIRONMENT = "CartPole-v1"
_SIZE = (480, 240)
_FINER = 4
"""Times finer than shown it is drawn, and then scaled down: slanted edges stay straight."""
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
    width, height = (side * _FINER for side in _SIZE)
    image = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(image)
    metre = width / (2 * _HALF_TRACK + 0.4)
    x, floor, u = width / 2 + position * metre, height - 40 * _FINER, _FINER
    draw.line([(0, floor), (width, floor)], fill=_INK, width=2 * u)
    for end in (-_HALF_TRACK, _HALF_TRACK):
        edge = width / 2 + end * metre
        draw.line([(edge, floor - 8 * u), (edge, floor + 8 * u)], fill=_INK, width=2 * u)
    top = floor - 26 * u
    draw.rectangle([x - 28 * u, top, x + 28 * u, floor - 4 * u], fill=_CART)
    along = np.array([math.sin(angle), -math.cos(angle)]) * _POLE_METRES * metre
    across = np.array([math.cos(angle), math.sin(angle)]) * 4 * u
    joint = np.array([x, top])
    corners = [joint - across, joint + across, joint + along + across, joint + along - across]
    draw.polygon([tuple(corner) for corner in corners], fill=_POLE)
    draw.ellipse([x - 5 * u, top - 5 * u, x + 5 * u, top + 5 * u], fill=_INK)
    image = image.resize(_SIZE, Image.Resampling.LANCZOS)
    ImageDraw.Draw(image).text((8, _SIZE[1] - 20), f"step {step}", fill=_INK)
    return image.quantize(16)
