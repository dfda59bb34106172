"""Draws scenes: signed distances with analytic edges, vectorised over the batch.

Coordinates run from 0 to 1, x to the right, y down. ``n`` scenes are drawn at once; a colour is a
tensor (n, 3, 1, 1), a mask (n, 1, h, w) in [0, 1]. The order is that of a photograph: the scene, its
light, then the lens and film (cast, contrast, blur, grain), which are the craft.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench.mini.world import SIZE_PX, Scenes

TILT_MAX_RAD = math.radians(14.0)
CONTRAST_RANGE = (0.50, 1.10)
CAST_MAX = 0.38
BLUR_MAX_PX = 1.6
GRAIN_MAX = 0.032

SKY_TOP = ((0.42, 0.45, 0.72), (0.20, 0.48, 0.90), (0.30, 0.18, 0.42), (0.02, 0.03, 0.12))
SKY_LOW = ((0.98, 0.72, 0.66), (0.74, 0.88, 0.98), (0.99, 0.50, 0.18), (0.12, 0.15, 0.34))
LIGHT = ((0.92, 0.80, 0.84), (1.0, 1.0, 0.97), (1.0, 0.70, 0.52), (0.36, 0.40, 0.62))
SUN = ((1.0, 0.86, 0.74), (1.0, 0.98, 0.80), (1.0, 0.62, 0.22), (1.0, 1.0, 1.0))
FOG = ((0.86, 0.80, 0.82), (0.88, 0.91, 0.94), (0.86, 0.66, 0.56), (0.26, 0.28, 0.38))
FAR = ((0.42, 0.44, 0.56), (0.86, 0.70, 0.46), (0.16, 0.42, 0.60), (0.10, 0.30, 0.20))
GROUND = ((0.36, 0.40, 0.34), (0.92, 0.76, 0.46), (0.84, 0.76, 0.58), (0.20, 0.36, 0.16))
TENT = ((0.88, 0.10, 0.10), (0.10, 0.28, 0.90), (0.98, 0.84, 0.10), (0.96, 0.96, 0.96))
HAIR = ((0.06, 0.05, 0.06), (0.38, 0.22, 0.12), (0.92, 0.78, 0.42), (0.74, 0.24, 0.06))
SHIRT = ((0.80, 0.12, 0.14), (0.14, 0.30, 0.78), (0.12, 0.56, 0.26), (0.95, 0.80, 0.16))
BACKDROP = ((0.58, 0.58, 0.60), (0.10, 0.50, 0.54), (0.78, 0.54, 0.20), (0.44, 0.18, 0.44))
SKIN = ((0.98, 0.82, 0.70), (0.86, 0.64, 0.48), (0.62, 0.42, 0.30), (0.42, 0.27, 0.19))


@dataclass(frozen=True)
class Frame:
    """Camera of a batch: pixel coordinates after tilt, (n, 1, h, w), and the edge width of a pixel."""

    x: Tensor
    y: Tensor
    edge: float


def draw(scenes: Scenes) -> NDArray[np.uint8]:
    """Draw scenes: uint8 (n, 3, 64, 64), RGB. The same scenes always give the same bytes on a device."""
    craft = torch.from_numpy(scenes.craft)
    nuisance = torch.from_numpy(scenes.nuisance)
    content = torch.from_numpy(scenes.content)
    frame = _frame(craft[:, 1], nuisance[:, 0])
    worker = _landscape if scenes.kind == "landscape" else _portrait
    image = worker(frame, content, craft[:, 0], nuisance)
    image = _develop(image, craft, nuisance)
    return (image * 255).round().to(torch.uint8).numpy()


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _colour(table: tuple[tuple[float, float, float], ...], index: Tensor) -> Tensor:
    return torch.tensor(table)[index].view(-1, 3, 1, 1)


def _sign(values: Tensor) -> Tensor:
    return torch.where(values < 0.5, -1.0, 1.0)


def _frame(level: Tensor, direction: Tensor) -> Frame:
    axis = (torch.arange(SIZE_PX) + 0.5) / SIZE_PX - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = _column(_sign(direction) * (1 - level) * TILT_MAX_RAD)
    cos, sin = angle.cos(), angle.sin()
    return Frame(x * cos - y * sin + 0.5, x * sin + y * cos + 0.5, 1.0 / SIZE_PX)


def _cover(distance: Tensor, frame: Frame) -> Tensor:
    """Share of a pixel that lies inside, from the signed distance to the edge (negative inside)."""
    return (0.5 - distance / frame.edge).clamp(0, 1)


def _over(image: Tensor, mask: Tensor, colour: Tensor) -> Tensor:
    return image + mask * (colour - image)


def _ellipse(frame: Frame, cx: Tensor, cy: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """Approximate signed distance to an ellipse with its axes along x and y."""
    radius = (((frame.x - cx) / rx).square() + ((frame.y - cy) / ry).square()).sqrt()
    return (radius - 1) * torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry))


# --- landscapes ----------------------------------------------------------------------------


def _landscape(frame: Frame, content: Tensor, composition: Tensor, u: Tensor) -> Tensor:
    terrain, time, body, weather, tent = content.unbind(1)
    off = 1 - composition
    horizon = _column(0.64 + _sign(u[:, 1]) * off * 0.16)
    side = _sign(u[:, 2])
    body_x = _column(0.5 + side * 0.167 + _sign(u[:, 3]) * off * 0.24)
    tent_x = _column(0.5 - side * 0.167 + _sign(u[:, 4]) * off * 0.24)
    image = _sky(frame, time, horizon)
    image = _stars(image, frame, time, weather, horizon, u)
    image = _body(image, frame, time, body, body_x, horizon - _column(0.28 + 0.06 * u[:, 5]))
    image = _clouds(image, frame, time, weather, horizon, u)
    image = _ground(image, frame, terrain, time, horizon, u)
    image = _fog(image, frame, time, weather, horizon)
    return _tent(image, frame, time, tent, tent_x, horizon + 0.15)


def _sky(frame: Frame, time: Tensor, horizon: Tensor) -> Tensor:
    top, low = _colour(SKY_TOP, time), _colour(SKY_LOW, time)
    return top + (frame.y / horizon).clamp(0, 1) * (low - top)


def _stars(image: Tensor, frame: Frame, time: Tensor, weather: Tensor, horizon: Tensor, u: Tensor) -> Tensor:
    phase = _column(u[:, 6] * 50)
    hashed = ((frame.x * 64).floor() * 12.9898 + (frame.y * 64).floor() * 78.233 + phase).sin() * 43758.5453
    lit = ((hashed - hashed.floor()) > 0.985) & (frame.y < horizon)
    return _over(image, lit * _column((time == 3) & (weather == 0)) * 0.8, torch.ones(1, 3, 1, 1))


def _body(image: Tensor, frame: Frame, time: Tensor, body: Tensor, x: Tensor, y: Tensor) -> Tensor:
    is_moon = _column(body == 1).float()
    colour = _colour(SUN, time) * (1 - is_moon) + torch.tensor([0.96, 0.97, 1.0]).view(1, 3, 1, 1) * is_moon
    away = ((frame.x - x).square() + (frame.y - y).square()).sqrt()
    image = _over(image, (-(away / 0.16).square()).exp() * (0.55 - 0.3 * is_moon), colour)
    disc = _cover(away - 0.095, frame)
    bite = _cover(((frame.x - x - 0.055).square() + (frame.y - y + 0.02).square()).sqrt() - 0.085, frame)
    return _over(image, disc * (1 - bite * is_moon), colour)


def _clouds(image: Tensor, frame: Frame, time: Tensor, weather: Tensor, horizon: Tensor, u: Tensor) -> Tensor:
    cover = torch.zeros_like(frame.x + horizon)
    for index in range(5):
        cx = _column((u[:, 7] + 0.23 * index) % 1.0 * 1.1 - 0.05)
        cy = horizon * _column(0.12 + 0.17 * ((u[:, 8] * 7 + index * 1.7) % 1.0) + 0.06 * index)
        cover = cover + (-((frame.x - cx) / 0.17).square() - ((frame.y - cy) / 0.042).square()).exp()
    tone = 0.55 * _colour(FOG, time) + 0.45 * _colour(LIGHT, time)
    return _over(image, (cover * 1.3).clamp(0, 0.92) * _column(weather == 1), tone)


def _ground(image: Tensor, frame: Frame, terrain: Tensor, time: Tensor, horizon: Tensor, u: Tensor) -> Tensor:
    light = _colour(LIGHT, time)
    p = _column(u[:, 9] * 6.28)
    x = frame.x
    peaks = 0.20 * (1 - ((x * 5.2 + p).sin().abs())) + 0.07 * (1 - ((x * 13.1 + 2 * p).sin().abs()))
    waves = 0.05 + 0.055 * (x * 6.5 + p).sin() + 0.02 * (x * 14 + 2 * p).sin()
    saw = ((x * 11 + p) % 1.0 - 0.5).abs()
    trees = 0.07 + 0.20 * (1 - 2 * saw).abs() * (0.65 + 0.35 * (x * 9 + p).sin().abs())
    flat = torch.zeros_like(peaks)
    heights = torch.stack([peaks, waves, flat, trees], 0)
    height = heights.gather(0, terrain.view(1, -1, 1, 1, 1).expand(1, -1, 1, *x.shape[-2:]))[0]
    ridge = horizon - height
    far = _colour(FAR, terrain) * light
    image = _over(image, _cover(ridge - frame.y, frame), far)
    snow = _cover(ridge - frame.y, frame) * _cover(frame.y - ridge - 0.05, frame) * _column(terrain == 0)
    image = _over(image, snow * (height > 0.15), 0.95 * light)
    ripple = ((frame.y - horizon) * 75 + (x * 9 + p).sin()).sin() * _cover(horizon - frame.y, frame)
    image = image + 0.06 * ripple * _column(terrain == 2)
    shore = horizon + torch.where(_column(terrain == 2), 0.09, 0.035) + 0.012 * (x * 7 + p).sin()
    ground = _colour(GROUND, terrain) * light * (0.85 + 0.3 * (frame.y - horizon))
    return _over(image, _cover(shore - frame.y, frame), ground)


def _fog(image: Tensor, frame: Frame, time: Tensor, weather: Tensor, horizon: Tensor) -> Tensor:
    band = 0.35 + 0.5 * (-((frame.y - horizon + 0.05) / 0.22).square()).exp()
    return _over(image, band * _column(weather == 2), _colour(FOG, time))


def _tent(image: Tensor, frame: Frame, time: Tensor, tent: Tensor, x: Tensor, base: Tensor) -> Tensor:
    dx, up = frame.x - x, base - frame.y
    height, half = 0.20, 0.15
    inside = torch.maximum((dx.abs() * height + up * half - height * half) / math.hypot(height, half), -up)
    glow = torch.tensor([0.95, 1.0, 0.95, 0.80])[time].view(-1, 1, 1, 1)
    colour = _colour(TENT, tent) * glow
    image = _over(image, _cover(inside, frame), colour * torch.where(dx > 0, 0.78, 1.0))
    door = torch.maximum((dx.abs() * 0.11 + up * 0.035 - 0.11 * 0.035) / math.hypot(0.11, 0.035), -up)
    return _over(image, _cover(door, frame), colour * 0.22)


# --- portraits -----------------------------------------------------------------------------


def _portrait(frame: Frame, content: Tensor, composition: Tensor, u: Tensor) -> Tensor:
    hair, length, shirt, backdrop, light, framing = content.unbind(1)
    off = 1 - composition
    size = torch.where(_column(framing == 0), 0.235, 0.140) * _column(0.95 + 0.1 * u[:, 5])
    cx = _column(0.5 + _sign(u[:, 2]) * 0.14 + _sign(u[:, 3]) * off * 0.20)
    cy = torch.where(_column(framing == 0), 0.44, 0.34) + _column(_sign(u[:, 1]) * off * 0.11)
    image = _wall(frame, backdrop, u)
    hair_colour = _colour(HAIR, hair)
    image = _hair_behind(image, frame, length, hair_colour, cx, cy, size)
    image = _bust(image, frame, _colour(SHIRT, shirt), _skin(u), cx, cy, size)
    image = _face(image, frame, _skin(u), hair_colour, cx, cy, size)
    return _side_light(image, frame, light)


def _skin(u: Tensor) -> Tensor:
    return _colour(SKIN, (u[:, 6] * len(SKIN)).long().clamp(max=len(SKIN) - 1))


def _wall(frame: Frame, backdrop: Tensor, u: Tensor) -> Tensor:
    colour = _colour(BACKDROP, backdrop)
    vignette = 1.08 - 0.5 * ((frame.x - 0.5).square() + (frame.y - 0.45).square())
    rail = _column(0.66 + 0.05 * u[:, 7])
    panel = torch.where(frame.y > rail, 0.80, 1.0)
    line = _cover((frame.y - rail).abs() - 0.012, frame)
    return _over(colour * vignette * panel, line, colour * 0.5)


def _hair_behind(
    image: Tensor, frame: Frame, length: Tensor, colour: Tensor, cx: Tensor, cy: Tensor, r: Tensor
) -> Tensor:
    crown = _ellipse(frame, cx, cy - 0.22 * r, 1.02 * r, 1.12 * r)
    locks = torch.maximum((frame.x - cx).abs() - 1.06 * r, (frame.y - cy - 0.75 * r).abs() - 1.0 * r)
    shape = torch.where(_column(length == 1), torch.minimum(crown, locks), crown)
    return _over(image, _cover(shape, frame), colour)


def _bust(image: Tensor, frame: Frame, shirt: Tensor, skin: Tensor, cx: Tensor, cy: Tensor, r: Tensor) -> Tensor:
    shoulders = _ellipse(frame, cx, cy + 3.1 * r, 1.85 * r, 1.75 * r)
    torso = torch.maximum((frame.x - cx).abs() - 1.75 * r, cy + 2.6 * r - frame.y)
    image = _over(image, _cover(torch.minimum(shoulders, torso), frame), shirt)
    neck = torch.maximum((frame.x - cx).abs() - 0.36 * r, (frame.y - cy - 1.1 * r).abs() - 0.5 * r)
    return _over(image, _cover(neck, frame), skin * 0.86)


def _face(image: Tensor, frame: Frame, skin: Tensor, hair: Tensor, cx: Tensor, cy: Tensor, r: Tensor) -> Tensor:
    face = _cover(_ellipse(frame, cx, cy, 0.78 * r, 1.0 * r), frame)
    image = _over(image, face, skin)
    fringe = face * _cover(frame.y - (cy - 0.48 * r), frame)
    image = _over(image, fringe, hair)
    dark = torch.tensor([0.10, 0.07, 0.07]).view(1, 3, 1, 1)
    for sign in (-1, 1):
        eye = _cover(_ellipse(frame, cx + sign * 0.32 * r, cy - 0.08 * r, 0.13 * r, 0.10 * r), frame)
        image = _over(image, eye, dark)
    nose = _cover(_ellipse(frame, cx, cy + 0.22 * r, 0.09 * r, 0.17 * r), frame)
    image = _over(image, nose * 0.5, skin * 0.7)
    mouth = _cover(_ellipse(frame, cx, cy + 0.55 * r, 0.27 * r, 0.08 * r), frame)
    return _over(image, mouth, torch.tensor([0.66, 0.22, 0.22]).view(1, 3, 1, 1))


def _side_light(image: Tensor, frame: Frame, light: Tensor) -> Tensor:
    side = _column(torch.where(light == 0, -1.0, 1.0))
    return image * (0.80 + 0.78 * side * (frame.x - 0.5)).clamp(0.32, 1.25)


# --- the lens and the film: craft ----------------------------------------------------------


def _develop(image: Tensor, craft: Tensor, u: Tensor) -> Tensor:
    """Cast, contrast, blur and grain; (n, 3, h, w) in [0, 1]."""
    image = _cast(image.clamp(0, 1), 1 - craft[:, 3], u[:, 10])
    low, high = CONTRAST_RANGE
    mean = image.mean((1, 2, 3), keepdim=True)
    image = mean + _column(low + (high - low) * craft[:, 2]) * (image - mean)
    image = _blur(image, (1 - craft[:, 4]) * BLUR_MAX_PX)
    return (image + _grain(image.shape, (1 - craft[:, 5]) * GRAIN_MAX, u)).clamp(0, 1)


def _cast(image: Tensor, strength: Tensor, hue: Tensor) -> Tensor:
    angle = hue.view(-1, 1) * 2 * math.pi + torch.tensor([0.0, 2.0, 4.0]) * math.pi / 3
    tint = (0.75 + 0.5 * angle.cos()).view(-1, 3, 1, 1)
    luma = (image * torch.tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return _over(image, _column(strength * CAST_MAX), (0.15 + 0.85 * luma) * tint)


def _blur(image: Tensor, sigma_px: Tensor) -> Tensor:
    """Separable Gaussian blur with a width of its own for each image."""
    n, channels, height, width = image.shape
    offsets = torch.arange(-5, 6, dtype=torch.float32)
    kernel = (-0.5 * (offsets / sigma_px.clamp(min=1e-3).view(-1, 1)).square()).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = functional.pad(image, (5, 5, 5, 5), mode="replicate").view(1, n * channels, height + 10, width + 10)
    flat = functional.conv2d(flat, kernel.view(-1, 1, 1, 11), groups=n * channels)
    return functional.conv2d(flat, kernel.view(-1, 1, 11, 1), groups=n * channels).view_as(image)


def _grain(shape: torch.Size, sigma: Tensor, u: Tensor) -> Tensor:
    """Luminance grain, one to two pixels wide, from a seed in the scene's nuisance; std ``sigma``."""
    height, width = shape[-2:]
    seeds = (u[:, 11].double() * 2**31).long().tolist()
    fields = torch.stack(
        [torch.from_numpy(np.random.default_rng(s).standard_normal((1, height, width), np.float32)) for s in seeds]
    )
    soft = functional.avg_pool2d(functional.pad(fields, (0, 1, 0, 1), mode="replicate"), 2, stride=1) * 2
    return soft * _column(sigma)
