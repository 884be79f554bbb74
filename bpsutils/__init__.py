"""Data pipelines for microscopy, one module a chapter of the course in ``notebooks/``.

The names below are the course's vocabulary; each is taught in the notebook that its module names.
"""

# ruff: noqa: E402 - the imports below import torch, which reads the environment once
import os

# OpenMP's threads wait for their next piece of work in a loop that keeps a core busy. Beside a busy neighbour that core
# is then missing where work is done: a loader fell from 1,649 images a second to about 100. PASSIVE waits asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from bpsutils.bucketing import BucketSampler, collate_fn_pad, make_boundaries_for_batches, padding_waste
from bpsutils.config import SAMPLE_DIR, Config
from bpsutils.datasets import ImageDataset, ImageStream
from bpsutils.device import doctor, pick_device, seed_everything, to_device
from bpsutils.download import download_images, stream_table
from bpsutils.evaluation import Evaluation, evaluate, predict
from bpsutils.headers import read_headers
from bpsutils.images import ImageError, ImageHeader, decode_image, read_header, read_image, to_float, write_image
from bpsutils.loaders import make_loaders, measure_workers
from bpsutils.metadata import build_metadata, fast_scan, load_table, read_labels, read_meta
from bpsutils.models import Backbone, SmallCNN, freeze, make_model
from bpsutils.packed import PackedImages, collate_fn_packed
from bpsutils.pipeline import fit, run
from bpsutils.samplers import ClassBalancedSampler, DistributedBatches, HardExampleSampler
from bpsutils.simulate import render, simulate_folder, simulate_table
from bpsutils.splits import group_ids, leakage_report, split_by_group, split_table
from bpsutils.training import load_checkpoint, train
from bpsutils.transforms import (
    AddNoise,
    CenterCrop,
    Compose,
    HorizontalFlip,
    Normalize,
    QuarterTurn,
    RandomCrop,
    Resize,
    Standardise,
    ToFloat,
    ToTensor,
    VerticalFlip,
    eval_transform,
    train_transform,
)

__all__ = [
    "AddNoise",
    "Backbone",
    "BucketSampler",
    "CenterCrop",
    "ClassBalancedSampler",
    "Compose",
    "Config",
    "DistributedBatches",
    "Evaluation",
    "HardExampleSampler",
    "HorizontalFlip",
    "ImageDataset",
    "ImageError",
    "ImageHeader",
    "ImageStream",
    "Normalize",
    "PackedImages",
    "QuarterTurn",
    "RandomCrop",
    "Resize",
    "SAMPLE_DIR",
    "SmallCNN",
    "Standardise",
    "ToFloat",
    "ToTensor",
    "VerticalFlip",
    "build_metadata",
    "collate_fn_packed",
    "collate_fn_pad",
    "decode_image",
    "doctor",
    "download_images",
    "eval_transform",
    "evaluate",
    "fast_scan",
    "fit",
    "freeze",
    "group_ids",
    "leakage_report",
    "load_checkpoint",
    "load_table",
    "make_boundaries_for_batches",
    "make_loaders",
    "make_model",
    "measure_workers",
    "padding_waste",
    "pick_device",
    "predict",
    "read_header",
    "read_headers",
    "read_image",
    "read_labels",
    "read_meta",
    "render",
    "run",
    "seed_everything",
    "simulate_folder",
    "simulate_table",
    "split_by_group",
    "split_table",
    "stream_table",
    "to_device",
    "to_float",
    "train",
    "train_transform",
    "write_image",
]
