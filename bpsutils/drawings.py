"""Drawn digits and simulated slide patches: the makers of ``data_sample/digits`` and ``data_sample/slides``.

Nothing here comes from a camera or a scanner. The digits stand in for MNIST where there is no network; the
patches stand in for a pathology archive: three stains, twelve cases, sizes that differ by a factor of ten.

Colours follow Beer-Lambert: a pixel is ``255 * exp(-density)``, where the density is a sum of stains, each with
its own absorption in red, green and blue: for hematoxylin and the brown chromogen those of Ruifrok and Johnston
(2001), "Quantification of histochemical staining by color deconvolution", Anal. Quant. Cytol. Histol. 23:291-299,
for eosin the pinker default of QuPath (Bankhead et al. 2017, doi 10.1038/s41598-017-17204-5). The shapes follow what
pathology calls atypia (nuclei large, unequal, irregular, dark, crowded, with nucleoli); their amounts are our choice.
"""

from __future__ import annotations

import csv
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bpsutils.config import atomically
from bpsutils.images import write_image

PathLike = str | os.PathLike[str]

# -------------------------------------------------------------------------------------------------- drawn digits


def _arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> np.ndarray:
    """Points on part of an ellipse; angles in degrees, clockwise from three o'clock."""
    angle = np.radians(np.linspace(start, stop, 25))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _line(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points)


_SIX = (_arc(0.78, 0.66, 0.54, 0.58, -95, -180), _arc(0.5, 0.68, 0.26, 0.24, 0, 360))

# The strokes of each digit as points (x, y) in the unit square, y downwards.
GLYPHS: tuple[tuple[np.ndarray, ...], ...] = (
    (_arc(0.5, 0.5, 0.28, 0.42, 0, 360),),
    (_line((0.34, 0.25), (0.54, 0.08), (0.54, 0.92)),),
    (np.vstack([_arc(0.49, 0.32, 0.28, 0.24, -170, 40), _line((0.22, 0.92), (0.8, 0.92))]),),
    (np.vstack([_arc(0.47, 0.28, 0.26, 0.2, -150, 90), _arc(0.47, 0.7, 0.29, 0.22, -90, 150)]),),
    (_line((0.64, 0.92), (0.64, 0.08), (0.2, 0.66), (0.84, 0.66)),),
    (np.vstack([_line((0.76, 0.08), (0.32, 0.08), (0.28, 0.47)), _arc(0.47, 0.66, 0.29, 0.26, -125, 140)]),),
    _SIX,
    (_line((0.2, 0.1), (0.8, 0.1), (0.42, 0.92)),),
    (_arc(0.5, 0.28, 0.21, 0.19, 0, 360), _arc(0.5, 0.7, 0.27, 0.23, 0, 360)),
    tuple(1 - stroke for stroke in _SIX),
)


def draw_digit(digit: int, rng: np.random.Generator) -> np.ndarray:
    """One digit, white on black, with its own slant, size, place, thickness and noise.

    Args:
        digit: 0 to 9.
        rng: Source of the variation.

    Returns:
        Array of shape ``(28, 28)``, uint8.

    Example:
        >>> image = draw_digit(3, np.random.default_rng(0))
        >>> image.shape, bool(image.max() > 200)
        ((28, 28), True)
    """
    slant, shear, bend = np.radians(rng.random() * 24 - 12), rng.random() * 0.4 - 0.2, rng.random() * 0.08 - 0.04
    scale = np.array([18.0, 19.5]) * (0.85 + 0.25 * rng.random(2))
    middle = 13.5 + rng.random(2) * 4 - 2
    turn = np.array([[np.cos(slant), -np.sin(slant)], [np.sin(slant), np.cos(slant)]]) @ [[1, shear], [0, 1]]
    radius = 0.8 + 0.9 * rng.random()
    distance = np.full((28, 28), np.inf)
    for stroke in GLYPHS[digit]:
        points = stroke + bend * np.sin(2 * np.pi * stroke[:, ::-1])
        points = (points - 0.5) * scale @ turn.T + middle
        distance = np.minimum(distance, _distance_to_stroke(points))
    ink = np.clip(radius + 0.5 - distance, 0, 1) * (200 + 55 * rng.random())
    return np.clip(ink + 14 * rng.random((28, 28)) - 4, 0, 255).astype(np.uint8)


def _distance_to_stroke(points: np.ndarray) -> np.ndarray:
    """Distance of each of 28 x 28 pixels to a polyline, in pixels."""
    pixels = np.stack(np.meshgrid(np.arange(28), np.arange(28)), axis=-1).reshape(-1, 1, 2)
    start, along = points[:-1], np.diff(points, axis=0)
    where = ((pixels - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)
    nearest = start + np.clip(where, 0, 1)[..., None] * along
    distance: np.ndarray = np.linalg.norm(pixels - nearest, axis=-1).min(axis=1)
    return distance.reshape(28, 28)


def draw_digits(out: PathLike, seed: int = 0, *, train: int = 300, test: int = 100) -> None:
    """Write drawn digits where ``torchvision.datasets.MNIST(out, download=False)`` looks for them.

    Args:
        out: Folder; the files land in ``out/MNIST/raw``, in MNIST's IDX format, uncompressed.
        seed: Same seed, same pixels.
        train: Images for training, as many of each digit as of any other.
        test: Images for the test.
    """
    for part, (name, count) in enumerate((("train", train), ("t10k", test))):
        rng = _generator(seed, part)
        labels = (np.arange(count) % 10)[np.argsort(rng.random(count))]
        images = np.stack([draw_digit(int(label), rng) for label in labels])
        _write_idx(Path(out) / "MNIST" / "raw" / f"{name}-images-idx3-ubyte", images)
        _write_idx(Path(out) / "MNIST" / "raw" / f"{name}-labels-idx1-ubyte", labels)


def _write_idx(path: Path, values: np.ndarray) -> None:
    """IDX: two zero bytes, type 8 (unsigned byte), number of axes, each axis as big-endian uint32, then the data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomically(path) as temporary:
        head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
        temporary.write_bytes(head + values.astype(np.uint8).tobytes())


def _generator(*key: int) -> np.random.Generator:
    # Spelled out, and used for random() alone: default_rng and the distributions may change between NumPy versions.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


# ------------------------------------------------------------------------------------------ simulated slide patches

CLASSES = ("benign", "malignant")
SECTIONS = (("h&e", 2), ("melan", 3), ("sox10", 3), ("h&e", 2))  # serial sections of a case: stain, patches
HEMATOXYLIN, EOSIN, DAB = np.array([[0.65, 0.70, 0.29], [0.22, 0.80, 0.56], [0.27, 0.57, 0.78]])


@dataclass(frozen=True)
class Case:
    """What all simulated patches of one patient share.

    Attributes:
        label: One of `CLASSES`.
        radius: Mean radius of a nucleus, in pixels.
        spread: Largest deviation of a nucleus's radius, as a share of the mean.
        bumps: Irregularity of a nucleus's outline, as a share of its radius.
        spacing: Distance between cells, in pixels.
        stains: Strength of hematoxylin, eosin and the brown chromogen, 1 as a rule.
        light: Grey level of empty glass in red, green and blue.
        positive: Share of cells that take the brown chromogen.
        grain: Size of the tissue's texture, in pixels.
    """

    label: str
    radius: float
    spread: float
    bumps: float
    spacing: float
    stains: tuple[float, ...]
    light: tuple[float, ...]
    positive: float
    grain: float


def draw_case(label: str, rng: np.random.Generator) -> Case:
    """A simulated patient: the class sets the nuclei, chance sets what the laboratory adds.

    Example:
        >>> benign, malignant = (draw_case(label, np.random.default_rng(0)) for label in CLASSES)
        >>> malignant.radius > benign.radius
        True
    """
    sick = CLASSES.index(label)
    own = (0.88 + 0.24 * rng.random(4)).tolist()
    return Case(
        label=label,
        radius=(4.5, 5.8)[sick] * own[0],
        spread=(0.16, 0.36)[sick] * own[1],
        bumps=(0.05, 0.11)[sick] * own[2],
        spacing=(18.0, 16.5)[sick] * own[3],
        stains=tuple((0.75 + 0.5 * rng.random(3)).tolist()),
        light=tuple((238 + 14 * rng.random(3)).tolist()),
        positive=0.55 + 0.35 * rng.random(),
        grain=14 + 22 * rng.random(),
    )


def draw_patch(case: Case, stain: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One simulated patch of a stained section.

    Args:
        case: The patient.
        stain: ``"h&e"``; or ``"melan"`` (brown cytoplasm) or ``"sox10"`` (brown nuclei), both over blue nuclei.
        height: Rows, in pixels.
        width: Columns, in pixels.
        rng: Source of the variation.

    Returns:
        Array of shape ``(height, width, 3)``, uint8.

    Raises:
        ValueError: If the stain is another.
    """
    if stain not in ("h&e", "melan", "sox10"):
        raise ValueError(f"stain must be 'h&e', 'melan' or 'sox10', got {stain!r}")
    tissue = _tissue(case.grain, (height, width), rng)
    hematoxylin, eosin, brown = 0.06 * tissue, (0.5 if stain == "h&e" else 0.05) * tissue, 0.03 * tissue
    chromatin = 0.75 + 0.5 * _clouds((height, width), 2.5, rng)
    for y, x in _cell_centres(height, width, case.spacing, rng):
        inside, nucleus, body = _cell(y, x, case, (height, width), rng)
        positive = rng.random() < case.positive and stain != "h&e"
        marked = nucleus if stain == "sox10" else np.clip(body - nucleus, 0, 1)
        counterstain = 0.35 if positive and stain == "sox10" else 0.6 if stain != "h&e" else 1.0
        hematoxylin[inside] = np.maximum(hematoxylin[inside], counterstain * nucleus * chromatin[inside])
        eosin[inside] = np.maximum(eosin[inside], (0.42 if stain == "h&e" else 0.04) * body)
        brown[inside] = np.maximum(brown[inside], 0.85 * positive * marked * chromatin[inside])
    strength = np.array(case.stains)[:, None, None] * np.stack([hematoxylin, eosin, brown])
    density = np.einsum("shw,sc->hwc", strength, np.stack([HEMATOXYLIN, EOSIN, DAB]))
    seen = _soften(np.array(case.light) * np.exp(-1.25 * density))
    return np.clip(seen + 4 * rng.random((height, width, 1)) - 2, 0, 255).round().astype(np.uint8)


def _soften(image: np.ndarray) -> np.ndarray:
    """What the objective does to an edge: each pixel takes a third from its neighbours, along each axis."""
    for axis in (0, 1):
        after = image.take(np.arange(1, image.shape[axis] + 1).clip(max=image.shape[axis] - 1), axis)
        before = image.take(np.arange(-1, image.shape[axis] - 1).clip(min=0), axis)
        image = (before + 4 * image + after) / 6
    return image


def _tissue(grain: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Ground substance: bundles of fibres, torn open here and there. About 0 (glass) to 1 (dense)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    angle, drift = np.pi * rng.random(), 9 * _clouds(shape, 2 * grain, rng)
    fibres = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) * 0.55 + 2.2 * drift)
    bundles: np.ndarray = 0.45 + 0.45 * _clouds(shape, grain, rng) + 0.16 * fibres * _clouds(shape, grain, rng)
    torn = np.clip((_clouds(shape, 45, rng) - 0.74) * 9, 0, 1)
    return bundles * (1 - 0.9 * torn)


def _clouds(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random values between 0 and 1 that vary over ``scale`` pixels."""
    knots = rng.random((int(shape[0] / scale) + 2, int(shape[1] / scale) + 2))
    for axis, length in enumerate(shape):
        place = np.arange(length) / scale
        low = place.astype(int)
        step = (place - low) ** 2 * (3 - 2 * (place - low))
        step = step[:, None] if axis == 0 else step
        knots = knots.take(low, axis) * (1 - step) + knots.take(low + 1, axis) * step
    return knots


def _cell_centres(height: int, width: int, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Rows and columns of cells: a hexagonal grid, shaken, with one cell in six missing."""
    rows, columns = np.mgrid[-1 : height / spacing + 1, -1 : width / spacing + 1]
    grid = np.stack([rows, columns + 0.5 * (rows % 2)], axis=-1).reshape(-1, 2)
    shaken = (grid + 0.6 * rng.random(grid.shape) - 0.3) * spacing
    return shaken[rng.random(len(grid)) < 5 / 6]


def _cell(
    y: float, x: float, case: Case, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Where a cell lies in the patch, and how far each pixel there belongs to its nucleus and to its body (0 to 1)."""
    radius = case.radius * (1 + case.spread * (2 * rng.random() - 1))
    reach = 2.6 * radius
    (top, bottom), (left, right) = (
        np.clip([int(at - reach), int(at + reach) + 2], 0, side) for at, side in zip((y, x), shape, strict=True)
    )
    inside = slice(top, bottom), slice(left, right)
    rows, columns = np.mgrid[inside]
    tilt, longer = np.pi * rng.random(), 1 + 2.5 * case.spread * rng.random()
    u = ((rows - y) * np.cos(tilt) + (columns - x) * np.sin(tilt)) / np.sqrt(longer)
    v = ((columns - x) * np.cos(tilt) - (rows - y) * np.sin(tilt)) * np.sqrt(longer)
    angle, distance = np.arctan2(v, u), np.hypot(u, v)
    outline = radius * (1 + sum(case.bumps * 2 / k * np.cos(k * angle + 6.3 * rng.random()) for k in (2, 3, 4)))
    nucleus = np.clip(outline - distance + 0.5, 0, 1)
    rim = np.clip(1 - np.abs(outline - 1 - distance) / 1.5, 0, 1)
    nucleolus = np.clip(2 - np.hypot(u - 0.3 * radius, v), 0, 1) * (case.label == "malignant")
    body = np.clip((1.8 * outline - distance) / 3 + 0.5, 0, 1)
    return inside, nucleus * (0.62 + 0.28 * rng.random() + 0.2 * rim + 0.35 * nucleolus), body


def draw_slides(out: PathLike, seed: int = 0, *, cases: int = 12) -> None:
    """Write simulated patches of every case, and the cases' labels in another folder.

    Args:
        out: Folder. Patches land in ``out/images``, named ``case01_h&e_s1_001.png`` (case, stain, section, patch);
            ``out/annotations/labels.csv`` has the columns ``case`` and ``label``.
        seed: Same seed, same pixels.
        cases: Patients; every second one is malignant.
    """
    images, annotations = Path(out) / "images", Path(out) / "annotations"
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    labels = {f"case{number + 1:02d}": CLASSES[number % 2] for number in range(cases)}
    for number, (name, label) in enumerate(labels.items()):
        rng = _generator(seed, number)
        case = draw_case(label, rng)
        for section, (stain, patches) in enumerate(SECTIONS, start=1):
            for patch in range(1, patches + 1):
                pixels = draw_patch(case, stain, *_patch_size(rng), rng)
                write_image(images / f"{name}_{stain}_s{section}_{patch:03d}.png", pixels)
    with atomically(annotations / "labels.csv") as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("case", "label"), *labels.items()])


def _patch_size(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width: the shorter side 40 to 190 px, the longer up to 2.1 times as long, lying or standing."""
    short = 40 * (190 / 40) ** rng.random()
    sides = (round(short), round(short * (1 + 1.1 * rng.random())))
    return sides if rng.random() < 0.5 else sides[::-1]
