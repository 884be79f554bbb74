"""The generator of ``data_sample/bps``: simulated nuclei in the format of the BPS data set.

A table of what is in each image comes first (`simulate_table`), then each image is rendered from its row (`render`).
Every random number belongs to (seed, file name, purpose), so an image can be rendered again alone, and without its
foci it is the same nucleus in the same noise. Lengths are in pixels of about 0.18 µm, brightness in grey levels of a
plate with gain 1.

What is taken from the literature:

* Fluence = dose x density / LET: 1 Gy is 6.24 keV/µm³ in water, and 600 MeV/n iron has about 170 keV/µm, which gives
  the 1.1 and 3 particles per 100 µm² of the real data (Penninckx et al. 2019, doi 10.1667/RR15338.1).
* Foci of 53BP1 after X-rays: about 64 per Gy at 0.1 Gy and 15 per Gy at 2 Gy (Neumaier et al. 2012,
  doi 10.1073/pnas.1117849108); between them we draw a straight line on logarithmic axes.
* Foci lie along the track of an iron ion and scattered after X-rays (Costes et al. 2007,
  doi 10.1371/journal.pcbi.0030155); breaks by iron are repaired more slowly (Asaithamby et al. 2008,
  doi 10.1667/RR1165.1).
* A point seen through a microscope is close to a Gaussian (Zhang et al. 2007, doi 10.1364/AO.46.001819).

What is set by hand, within what is seen in real images: rates of decay, foci along a track, how mice and plates
differ, and all brightness, fitted to the percentiles of one real image.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from scipy.special import ndtri
from tqdm.auto import tqdm

from bpsutils.config import SAMPLE_DIR, atomically
from bpsutils.flaky import flaky_mount as flaky_mount  # simulated too: a mount instead of an image
from bpsutils.images import write_image

PathLike = str | os.PathLike[str]

REAL_COUNTS = SAMPLE_DIR / "bps" / "real_counts.csv"
META_COLUMNS = ["filename", "dose_Gy", "particle_type", "hr_post_exposure"]
TRAITS = ("area", "autofluorescence", "texture", "spontaneous", "repair")

KEV_PER_UM3_OF_1_GY = 6.24
LET_IRON = 170.0  # keV/µm
CROSS_SECTION = 120.0  # µm² that a slanting beam meets: between 80 seen from the side and 176 seen from above
FOCI_PER_TRACK = 11.0
SPONTANEOUS_FOCI = 0.7
# Share of foci that is repaired fast and slowly, and half-lives in hours.
DECAY = {"X-ray": ((0.85, 2.0), (0.15, 30.0)), "Fe": ((0.4, 4.0), (0.6, 50.0))}


# ----------------------------------------------------------------------------------------------- chance


def _stream(seed: int, *purpose: object) -> np.random.Generator:
    # Only random() is drawn from it: NumPy may change its other distributions between versions.
    key = zlib.crc32("/".join(map(str, purpose)).encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, key])))


def _normal(rng: np.random.Generator, shape: int | tuple[int, ...] | None = None) -> Any:
    return ndtri(np.clip(rng.random(shape), 1e-12, 1 - 1e-12))


def _poisson(rng: np.random.Generator, mean: float) -> int:
    """Count events in unit time: the waiting times between them are exponential."""
    count, time = -1, 0.0
    while time <= mean:
        count, time = count + 1, time - np.log1p(-rng.random())
    return count


# ---------------------------------------------------------------------------------------------- physics


def foci_left(particle_type: str, hours: float) -> float:
    """Share of radiation foci that is still there some hours after exposure.

    Example:
        >>> [round(foci_left("X-ray", hours), 2) for hours in (0, 4, 24, 48)]
        [1.0, 0.35, 0.09, 0.05]
        >>> foci_left("Fe", 24) > foci_left("X-ray", 24)
        True
    """
    return float(sum(share * 0.5 ** (hours / half_life) for share, half_life in DECAY[particle_type]))


def xray_foci(dose_Gy: float) -> float:  # noqa: N803 - the field's own spelling
    """Mean number of foci in a nucleus right after X-rays.

    Example:
        >>> [round(xray_foci(dose), 1) for dose in (0, 0.1, 1.0)]
        [0.0, 6.4, 21.0]
    """
    slope = np.log(15 / 64) / np.log(2 / 0.1)
    return float(64 * dose_Gy * (dose_Gy / 0.1) ** slope) if dose_Gy else 0.0


def iron_tracks(dose_Gy: float) -> float:  # noqa: N803
    """Mean number of iron ions that cross a nucleus: fluence times its cross-section.

    Example:
        >>> [round(iron_tracks(dose), 2) for dose in (0.3, 0.82)]
        [1.32, 3.61]
    """
    return dose_Gy * KEV_PER_UM3_OF_1_GY / LET_IRON * CROSS_SECTION


# ------------------------------------------------------------------------------------------- the table


def simulate_table(
    images: int,
    seed: int = 0,
    *,
    mouse_effect: float = 1.0,
    plate_effect: float = 1.0,
    counts: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What is in each simulated image: names and conditions of the real set, and what only a generator knows.

    Args:
        images: How many, spread evenly over the 135 plate-wells.
        seed: Same seed, same table.
        mouse_effect: How much mice differ in nucleus area, autofluorescence, texture, spontaneous foci and repair;
            0 makes them all alike. A mouse is a (particle, well) on all its plates.
        plate_effect: How much plates differ in brightness (gain and offset); 0 makes them all alike.
        counts: Plates and wells, such as `REAL_COUNTS`, which is the default.

    Returns:
        One row an image: ``filename`` and the columns of ``meta.csv``; ``plate``, ``barcode``, ``well``, ``field``,
        ``nucleus``, ``mouse``; sizes ``height``, ``width``, ``area_px``, ``texture_px`` (pixels);
        ``autofluorescence`` (1 is the average); ``spontaneous_foci``, ``tracks``, ``radiation_foci``; ``focus``
        (``"sharp"`` or ``"blurred"``), ``kind`` (``"normal"``, ``"dark"`` or ``"saturated"``), ``gain``, ``offset``.

    Raises:
        ValueError: If ``images`` is below 1.

    Example:
        >>> table = simulate_table(270)
        >>> len(table), table["plate"].nunique(), table["mouse"].nunique()
        (270, 17, 16)
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    text = {"plate": str, "barcode": str, "well": str}
    wells = pd.read_csv(REAL_COUNTS, dtype=text) if counts is None else counts.astype(text)
    wells = wells.sort_values(["plate", "well"], ignore_index=True).drop(columns="n", errors="ignore")
    table = _names(wells, images, seed)
    traits = _mice(wells, seed) * mouse_effect
    plates = {plate: _plate(plate, seed, plate_effect) for plate in wells["plate"].unique()}
    known = [_truth(row, traits.loc[row["mouse"]], plates[row["plate"]], seed) for row in table.to_dict("records")]
    return pd.concat([table, pd.DataFrame(known)], axis=1)


def _names(wells: pd.DataFrame, images: int, seed: int) -> pd.DataFrame:
    """Real file names: as many images of each plate-well, one more of some if they do not divide evenly."""
    share, rest = divmod(images, len(wells))
    first = np.argsort(np.argsort(_stream(seed, "rest").random(len(wells))))
    table = wells.loc[np.repeat(wells.index, share + (first < rest))].reset_index(drop=True)
    number = table.groupby(["plate", "well"]).cumcount()
    in_a_field = 21  # the real set has 77,177 nuclei in 3,595 fields
    table["field"] = [f"{1 + n // in_a_field:03d}" for n in number]
    table["nucleus"] = [f"{1 + n % in_a_field:03d}" for n in number]
    place = table["plate"] + "_" + table["barcode"] + "-" + table["well"]
    table.insert(0, "filename", place + "_" + table["field"] + "_" + table["nucleus"] + "_proj.tif")
    table["mouse"] = table["particle_type"] + "/" + table["well"]
    return table


def _mice(wells: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Standard scores of each mouse in each trait: the same set in both branches, dealt out by chance."""
    mice = []
    for particle, branch in wells.groupby("particle_type"):
        names = [f"{particle}/{well}" for well in sorted(branch["well"].unique())]
        scores = ndtri((np.arange(len(names)) + 0.5) / len(names))
        dealt = {trait: scores[np.argsort(_stream(seed, particle, trait).random(len(names)))] for trait in TRAITS}
        mice.append(pd.DataFrame(dealt, index=names))
    return pd.concat(mice)


def _plate(plate: str, seed: int, effect: float) -> dict[str, float]:
    rng = _stream(seed, "plate", plate)
    return {
        "gain": round(float(np.exp(0.2 * effect * _normal(rng))), 4),
        "offset": round(35 * effect * _normal(rng), 2),
    }


def _truth(row: dict[str, Any], mouse: pd.Series, plate: dict[str, float], seed: int) -> dict[str, Any]:
    """Everything about one image that is drawn by chance before it is rendered."""
    rng = _stream(seed, row["filename"], "truth")
    height, width = _size(rng)
    rare = rng.random(2)
    return {
        "height": height,
        "width": width,
        "area_px": round(5450 * float(np.exp(0.15 * mouse["area"] + 0.13 * _normal(rng))), 1),
        "texture_px": round(5 * float(np.exp(0.25 * mouse["texture"])), 3),
        "autofluorescence": round(float(np.exp(0.1 * mouse["autofluorescence"])), 4),
        "spontaneous_foci": _poisson(rng, SPONTANEOUS_FOCI * np.exp(0.35 * mouse["spontaneous"])),
        **_radiation(row, float(np.exp(-0.15 * mouse["repair"])), rng),
        "focus": "blurred" if rare[0] < 0.05 else "sharp",
        "kind": "dark" if rare[1] < 0.02 else "saturated" if rare[1] < 0.04 else "normal",
        **plate,
    }


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width like the real ones: 79 to 170 and 114 to 182 px, and rare crops that are larger."""
    height, width = np.clip(125 + 19 * _normal(rng), 79, 170), np.clip(148 + 14 * _normal(rng), 114, 182)
    larger = 1.75 if rng.random() < 0.008 else 1.0
    return int(larger * height), int(larger * width)


def _radiation(row: dict[str, Any], slowness: float, rng: np.random.Generator) -> dict[str, int]:
    """Tracks and foci that the exposure left in one nucleus."""
    left = foci_left(row["particle_type"], row["hr_post_exposure"]) * slowness
    if row["particle_type"] == "Fe":
        tracks = _poisson(rng, iron_tracks(row["dose_Gy"]))
        return {"tracks": tracks, "radiation_foci": _poisson(rng, tracks * FOCI_PER_TRACK * left)}
    return {"tracks": 0, "radiation_foci": _poisson(rng, xray_foci(row["dose_Gy"]) * left)}


# ------------------------------------------------------------------------------------------- the pixels


def render(row: Mapping[str, Any], seed: int = 0, *, foci: bool = True) -> np.ndarray:
    """Simulate the image of one row of `simulate_table`, or of the ``truth.csv`` that was made from one.

    Args:
        row: A dict or a Series.
        seed: That of the table.
        foci: False leaves out all foci. Everything else, also the noise's random numbers, stays the same.

    Returns:
        Grey levels of shape ``(height, width)``, uint16.
    """
    name, shape = row["filename"], (int(row["height"]), int(row["width"]))
    nucleus = _Nucleus(row, shape, seed)
    light = nucleus.light() + _neighbours(nucleus, row, seed)
    if foci:
        light += _foci(nucleus, row, seed)
    if row["focus"] == "blurred":
        light = _blur(light, 4 + 4 * _stream(seed, name, "blur").random())
    light += _background(nucleus, row, seed)
    light *= 0.06 if row["kind"] == "dark" else 1.0
    # Poisson noise grows with the root of the light; the constant is the camera's read noise. Both are scaled by the
    # plate's gain with the image, so that a plate changes brightness and nothing else.
    noisy = light + np.sqrt(0.38 * light + 30) * _normal(_stream(seed, name, "noise"), shape)
    levels = 100 + row["offset"] + row["gain"] * noisy
    stored: np.ndarray = np.clip(np.round(levels), 0, 65535).astype(np.uint16)
    return stored


class _Nucleus:
    """Place and outline of the nucleus that a crop is centred on."""

    def __init__(self, row: Mapping[str, Any], shape: tuple[int, int], seed: int) -> None:
        self.name, self.shape = row["filename"], shape
        self.rows, self.columns = np.mgrid[: shape[0], : shape[1]].astype(float)
        self.rng = _stream(seed, self.name, "nucleus")
        self.y, self.x = np.array(shape) / 2 + 4 * _normal(self.rng, 2)
        self.angle, elongation = np.pi * self.rng.random(), 1 + 0.4 * self.rng.random()
        self.long = np.sqrt(row["area_px"] / np.pi * elongation)
        self.short = self.long / elongation
        self.dents = 0.035 * _normal(self.rng, (3, 2))
        self.texture_px = row["texture_px"]
        self.inside = self.outline(self.y, self.x, self.angle)

    def outline(self, y: float, x: float, angle: float) -> np.ndarray:
        """1 inside a nucleus of this size at ``(y, x)``, 0 outside, with a soft edge; shape ``(H, W)``."""
        rows, columns = self.rows - y, self.columns - x
        u = (columns * np.cos(angle) + rows * np.sin(angle)) / self.long
        v = (rows * np.cos(angle) - columns * np.sin(angle)) / self.short
        around = np.arctan2(v, u)
        rim = 1 + sum(c * np.cos(k * around) + s * np.sin(k * around) for k, (c, s) in enumerate(self.dents, start=2))
        beyond = (np.hypot(u, v) / rim - 1) * np.sqrt(self.long * self.short)
        soft: np.ndarray = 1 / (1 + np.exp(np.clip(beyond / 3.2, -60, 60)))
        return soft

    def light(self) -> np.ndarray:
        """Diffuse protein: patches of the mouse's own size, and fine grain."""
        patches = gaussian_filter(_normal(self.rng, self.shape), self.texture_px)
        grain = gaussian_filter(_normal(self.rng, self.shape), 1.5)
        pattern = 1 + 0.13 * patches / patches.std() + 0.06 * grain / grain.std()
        light: np.ndarray = 375 * np.exp(0.1 * _normal(self.rng)) * self.inside * np.maximum(pattern, 0)
        return light


def _neighbours(nucleus: _Nucleus, row: Mapping[str, Any], seed: int) -> np.ndarray:
    """Up to three nuclei that reach in over the edges; in a saturated crop at least one, far too bright."""
    rng, light = _stream(seed, row["filename"], "neighbours"), np.zeros(nucleus.shape)
    too_bright = row["kind"] == "saturated"
    for _ in range(max(int(4 * rng.random()), int(too_bright))):
        side, (height, width) = 2 * np.pi * rng.random(), nucleus.shape
        away = np.hypot(height * np.sin(side), width * np.cos(side)) / 2 + 20
        level = 300 * np.exp(0.25 * _normal(rng)) * (600 if too_bright else 1)
        y, x = height / 2 + away * np.sin(side), width / 2 + away * np.cos(side)
        light += level * nucleus.outline(y, x, np.pi * rng.random())
    return light


def _foci(nucleus: _Nucleus, row: Mapping[str, Any], seed: int) -> np.ndarray:
    """Small bright points: spontaneous and X-ray foci anywhere in the nucleus, those of iron along its tracks."""
    rng = _stream(seed, row["filename"], "foci")
    places = [_somewhere(nucleus, rng) for _ in range(int(row["spontaneous_foci"]))]
    beam = np.pi * rng.random()  # all ions of a beam fly in one direction; crops are turned in any
    tracks = [_somewhere(nucleus, rng) for _ in range(int(row["tracks"]))]
    for number in range(int(row["radiation_foci"])):
        if tracks:
            places.append(_on_track(nucleus, tracks[number % len(tracks)], beam, rng))
        else:
            places.append(_somewhere(nucleus, rng))
    light = np.zeros(nucleus.shape)
    for y, x in places:
        spread, peak = 1.7 * np.exp(0.12 * _normal(rng)), 560 * np.exp(0.5 * _normal(rng))
        light += peak * np.exp(-((nucleus.rows - y) ** 2 + (nucleus.columns - x) ** 2) / (2 * spread**2))
    return light


def _somewhere(nucleus: _Nucleus, rng: np.random.Generator) -> np.ndarray:
    """A point well inside the nucleus."""
    pixels = np.argwhere(nucleus.inside > 0.85)
    place: np.ndarray = pixels[int(rng.random() * len(pixels))] + rng.random(2) - 0.5
    return place


def _on_track(nucleus: _Nucleus, through: np.ndarray, beam: float, rng: np.random.Generator) -> np.ndarray:
    """A point inside the nucleus beside the straight track of an ion."""
    along, across = np.array([np.sin(beam), np.cos(beam)]), np.array([np.cos(beam), -np.sin(beam)])
    steps = np.arange(-2 * nucleus.long, 2 * nucleus.long)
    pixels = np.round(through + steps[:, None] * along).astype(int)
    seen = ((pixels >= 0) & (pixels < nucleus.shape)).all(axis=1)
    steps, pixels = steps[seen], pixels[seen]
    steps = steps[nucleus.inside[tuple(pixels.T)] > 0.7]
    place: np.ndarray = through + steps[int(rng.random() * len(steps))] * along + 0.7 * _normal(rng) * across
    return place


def _blur(light: np.ndarray, radius: float) -> np.ndarray:
    """Out of focus, a point becomes a disc with bright rings."""
    distance = np.hypot(*np.mgrid[-12:13, -12:13])
    rings = np.exp(-((distance - radius) ** 2) / 3) + 0.6 * np.exp(-((distance - radius / 2.5) ** 2) / 2)
    blurred: np.ndarray = fftconvolve(np.pad(light, 12, mode="edge"), rings / rings.sum(), mode="valid")
    return blurred.clip(min=0)


def _background(nucleus: _Nucleus, row: Mapping[str, Any], seed: int) -> np.ndarray:
    """Autofluorescence: of the medium, of the cell around its nucleus, and a slope across the field of view."""
    rng, (height, width) = _stream(seed, row["filename"], "background"), nucleus.shape
    distance2 = (nucleus.rows - nucleus.y) ** 2 + (nucleus.columns - nucleus.x) ** 2
    cell = 150 * np.exp(-distance2 / (2.2 * nucleus.long * nucleus.short))
    light = row["autofluorescence"] * (225 * np.exp(0.06 * _normal(rng)) + cell)
    down, across = 30 * _normal(rng, 2)
    slope = down * (nucleus.rows / height - 0.5) + across * (nucleus.columns / width - 0.5)
    background: np.ndarray = np.maximum(light + slope, 0)
    return background


# -------------------------------------------------------------------------------------------- the folder


def simulate_folder(
    out: PathLike,
    images: int,
    seed: int = 0,
    *,
    mouse_effect: float = 1.0,
    plate_effect: float = 1.0,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Write simulated images, ``meta.csv`` in the real format, and ``truth.csv`` with all that the generator knows.

    A call that was interrupted is finished by the same call: images that are there are not rendered again.

    Args:
        out: A new or empty folder, or one that the same call began.
        images: How many; 77,177 is the size of the real set.
        seed: Same seed, same pixels and names.
        mouse_effect: See `simulate_table`.
        plate_effect: See `simulate_table`.
        workers: Processes. Default: one a core.
        progress: Whether to show a progress bar.

    Raises:
        FileExistsError: If the folder holds something else; nothing is changed then.
        ValueError: If ``images`` is below 1.
    """
    out = Path(out)
    table = simulate_table(images, seed, mouse_effect=mouse_effect, plate_effect=plate_effect)
    out.mkdir(parents=True, exist_ok=True)
    _check_folder(out, table)
    _write_csv(table, out / "truth.csv")
    todo = [row for row in table.to_dict("records") if not (out / row["filename"]).exists()]
    with ProcessPoolExecutor(workers) as pool:
        done = pool.map(_write, [(out, row, seed) for row in todo], chunksize=16)
        for _ in tqdm(done, total=len(todo), unit="image", disable=not progress):
            pass
    _write_csv(table[META_COLUMNS], out / "meta.csv")


def _check_folder(out: Path, table: pd.DataFrame) -> None:
    """Images of two tables in one folder would be taken for one set."""
    if not any(out.iterdir()):
        return
    truth = out / "truth.csv"
    if not truth.exists() or truth.read_text(encoding="utf-8") != _csv(table):
        raise FileExistsError(f"{out} holds other files; give --out a new or empty folder, nothing was changed")


def _write(job: tuple[Path, dict[str, Any], int]) -> None:
    out, row, seed = job
    write_image(out / row["filename"], render(row, seed))


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, lineterminator="\n"))


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomically(path) as temporary:
        temporary.write_text(_csv(table), encoding="utf-8", newline="\n")
