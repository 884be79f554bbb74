"""Configuration in one place: paths, cases, hyperparameters, filters, device, workers (notebook 05)."""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import typing
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE_DIR = REPOSITORY / "data_sample"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything about an experiment that is not the model's code.

    A ``Config`` cannot be changed after it is made; ``dataclasses.replace(config, epochs=3)`` makes a new one.

    Attributes:
        image_dir: Folder that is searched for images. Default: the shipped simulated sample.
        meta: CSV with a ``filename`` column, one row an image. Default: ``image_dir/meta.csv`` where it exists.
        labels: CSV with the columns ``case`` and ``label``, for labels kept apart from the images.
        out_dir: Folder for everything a run writes.
        index_path: The metadata index (Parquet). Default: ``out_dir/index.parquet``.
        scheme: How file names are read: ``"bps"``, ``"slides"``, or a regular expression with named groups.
        target: Column to predict.
        classes: Values of ``target``, in the order of the class numbers. The last one is the "positive" class.
        irradiated_only: Leave out rows with ``dose_Gy`` 0, where the particle is only a label.
        group: Columns that together name a group (a mouse). No group is ever in two splits.
        train_cases: Groups for training, written ``"Fe/A6"``. Empty, with the two below: drawn by ``seed``.
        val_cases: Groups for validation.
        test_cases: Groups for the test.
        fractions: Shares of the rows for train, val and test when groups are drawn.
        batch_size: Images per batch (on each GPU, where several train together).
        pixel_budget: Most pixels in a padded batch; ``batch_size`` then only caps the number of images.
        learning_rate: Largest step size of the optimiser.
        weight_decay: Decay of the weights per step, as a share of the learning rate.
        epochs: Passes over the training images.
        class_weights: Weigh each class in the loss by the inverse of its share of the training images.
        stain: Keep only this stain. Default: all.
        min_size: Leave out images whose shorter side is below this, in pixels.
        max_size: Leave out images whose longer side is above this, in pixels.
        resize: Resize every image to this square, in pixels. Default: keep sizes and pad within a batch.
        value_range: Grey levels that are scaled to 0 and 1. 16-bit images: (0, 65535).
        model: ``"small_cnn"`` or the name of a torchvision backbone, such as ``"resnet18"``.
        pretrained: Start a backbone from ImageNet weights where they can be fetched.
        trainable: Prefixes of parameter names that are trained; empty trains all of them.
        force_rebuild_metadata_full: Read every header again, even those the index knows.
        device: ``"auto"``, ``"cuda"``, ``"mps"`` or ``"cpu"``.
        num_workers: Processes that load data from image files. 0 loads in the main process.
        packed: Decode every image once into a packed store, and load from there. Default: where there are more than
            a few hundred images, see `bpsutils.packed.PACK_FROM`.
        pack_path: Folder of the packed store. Default: ``out_dir/images.pack``.
        mixed_precision: Compute in the GPU's fast half precision (no effect on CPUs and older GPUs).
        channels_last: Keep images with the channels as the last dimension in memory.
        compile: Let ``torch.compile`` fuse the network's operations.
        seed: Order, augmentation and initial weights are functions of it (and of the epoch).

    Raises:
        ValueError: If a value cannot be right; the message names the field.

    Example:
        >>> Config(epochs=3).epochs
        3
        >>> Config(epochs=0)
        Traceback (most recent call last):
            ...
        ValueError: Config.epochs must be at least 1, got 0
    """

    image_dir: Path = SAMPLE_DIR / "bps"
    meta: Path | None = None
    labels: Path | None = None
    out_dir: Path = Path("runs/sample")
    index_path: Path | None = None
    scheme: str = "bps"

    target: str = "particle_type"
    classes: tuple[str, ...] = ("X-ray", "Fe")
    irradiated_only: bool = True
    group: tuple[str, ...] = ("particle_type", "well")
    train_cases: tuple[str, ...] = ()
    val_cases: tuple[str, ...] = ()
    test_cases: tuple[str, ...] = ()
    fractions: tuple[float, ...] = (0.5, 0.25, 0.25)

    batch_size: int = 16
    pixel_budget: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    epochs: int = 30
    class_weights: bool = True

    stain: str | None = None
    min_size: int | None = None
    max_size: int | None = None
    resize: int | None = None
    value_range: tuple[int, ...] = (0, 65535)

    model: str = "small_cnn"
    pretrained: bool = True
    trainable: tuple[str, ...] = ()

    force_rebuild_metadata_full: bool = False
    device: str = "auto"
    num_workers: int = 0
    packed: bool | None = None
    pack_path: Path | None = None
    mixed_precision: bool = False
    channels_last: bool = False
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for field, kind in typing.get_type_hints(type(self)).items():
            object.__setattr__(self, field, _as_kind(field, getattr(self, field), kind))
        for field in ("batch_size", "pixel_budget", "epochs", "min_size", "max_size", "resize"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"Config.{field} must be at least 1, got {value}")
        for field in ("weight_decay", "num_workers", "seed"):
            if getattr(self, field) < 0:
                raise ValueError(f"Config.{field} must not be negative, got {getattr(self, field)}")
        if self.learning_rate <= 0:
            raise ValueError(f"Config.learning_rate must be above 0, got {self.learning_rate}")
        if len(self.fractions) != 3 or min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(
                f"Config.fractions must be three shares (train, val, test) that add up to 1, got {self.fractions}"
            )
        if self.classes and len(set(self.classes)) < max(2, len(self.classes)):
            raise ValueError(f"Config.classes must name at least two classes, each once, got {self.classes}")
        if not self.group:
            raise ValueError("Config.group must name at least one column: without groups every split leaks")
        if len(self.value_range) != 2 or self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"Config.value_range must be (low, high) with low < high, got {self.value_range}")
        if self.min_size and self.max_size and self.min_size > self.max_size:
            raise ValueError(f"Config.min_size {self.min_size} is above Config.max_size {self.max_size}")
        if self.device not in ("auto", "cuda", "mps", "cpu"):
            raise ValueError(f"Config.device must be 'auto', 'cuda', 'mps' or 'cpu', got {self.device!r}")
        self._check_cases()

    def _check_cases(self) -> None:
        """A case in two splits would leak; cases for some splits only would leave the others to chance."""
        named = {split: getattr(self, f"{split}_cases") for split in SPLITS}
        if any(named.values()) and not all(named.values()):
            empty = ", ".join(f"Config.{split}_cases" for split, cases in named.items() if not cases)
            raise ValueError(f"name the cases of all three splits or of none; empty: {empty}")
        together = [case for cases in named.values() for case in cases]
        twice = sorted({case for case in together if together.count(case) > 1})
        if twice:
            raise ValueError(f"these cases are named more than once among the splits: {', '.join(twice)}")

    @property
    def index(self) -> Path:
        """Where the metadata index is kept."""
        return self.index_path or self.out_dir / "index.parquet"

    @property
    def pack(self) -> Path:
        """Where the packed store is kept."""
        return self.pack_path or self.out_dir / "images.pack"

    def to_toml(self, path: str | os.PathLike[str]) -> None:
        """Write all fields that are set as TOML to ``path``."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        values = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        with atomically(path) as temporary:
            temporary.write_text(tomli_w.dumps(values), encoding="utf-8")

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **changes: Any) -> Config:
        """Read a configuration; ``changes`` replace what the file says.

        Relative paths in the file are relative to the current folder, as on the command line.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not TOML, names a field that does not exist, or has a value that cannot be
                right.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no configuration file {path}; leave out --config to run with the defaults")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # TOMLDecodeError, or a UnicodeDecodeError
            raise ValueError(f"{path} is not valid TOML: {error}") from error
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{path}: unknown field {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        try:
            return cls(**{**values, **changes})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


@contextmanager
def atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Let a file appear whole or not at all: write to the path given, which then takes the final name.

    Args:
        path: The final name. Missing folders are made.

    Yields:
        A temporary path in the same folder (a rename between disks would not be atomic).

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with atomically(f"{folder}/notes.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [file.name for file in Path(folder).iterdir()]
        ['notes.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")  # no image suffix: a scan must not list it
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _as_kind(field: str, value: Any, kind: Any) -> Any:
    """``value`` in the type that ``field`` declares (TOML knows no paths and no tuples), or a clear error."""
    options = typing.get_args(kind) if type(None) in typing.get_args(kind) else (kind,)
    if value is None and type(None) in options:
        return None
    kind = options[0]
    if kind is Path and isinstance(value, str | os.PathLike):
        return Path(value).expanduser()
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        item = typing.get_args(kind)[0]
        return tuple(_as_kind(field, element, item) for element in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind in (str, int) and isinstance(value, kind) and not isinstance(value, bool):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", Path: "a path"}
    raise ValueError(f"Config.{field} must be {names.get(kind, 'a list')}, got {value!r}")
