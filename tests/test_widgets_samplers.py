import re

import numpy as np
import pytest
from looking import parts, shown
from torch.utils.data import RandomSampler, SequentialSampler

from bpsutils import widgets
from bpsutils.samplers import ClassBalancedSampler

LABELS = np.array(["X-ray", "Fe", "X-ray", "X-ray"] * 3)


pytestmark = pytest.mark.usefixtures("shell")


def stream():
    samplers = {
        "sequential": SequentialSampler(LABELS),
        "random": RandomSampler(LABELS),
        "undersampled": ClassBalancedSampler(LABELS, num_samples=6),
    }
    return widgets.sampler_stream(samplers, LABELS)


def test_the_stream_says_what_a_sampler_shows():
    with shown(stream) as (control, outputs):
        control.value = "undersampled"
    assert parts(outputs[1])[1] == (
        "sequential: 12 draws in epoch 0 show 12 of 12 images, 3 draws are Fe; epoch 1 has the same order; "
        "0 images do not come in 4 epochs."
    )
    assert (
        "undersampled: 6 draws in epoch 0 show 6 of 12 images, 3 draws are Fe; epoch 1 has another"
        in (parts(outputs[2])[1])
    )
    assert parts(outputs[1])[0] != parts(outputs[2])[0]


def test_coming_back_to_a_random_sampler_shows_the_same_stream():
    with shown(stream) as (control, outputs):
        for name in ("random", "sequential", "random"):
            control.value = name
    assert parts(outputs[2]) == parts(outputs[4])


def test_imbalance_counts_batches_without_the_rare_class():
    with shown(widgets.imbalance) as (control, outputs):
        control.value = 0.5
    start, half = parts(outputs[1])[1], parts(outputs[2])[1]
    assert start.startswith("5%: 32 of 640 images are rare. In random order ")
    empty = int(re.search(r"In random order (\d+) of 40 batches hold none", start)[1])
    assert 10 < empty < 26  # 0.95 ** 16 of 40 is 17.6
    assert start.endswith("each rare image comes 10 times an epoch on average.")
    assert "In random order 0 of 40 batches hold none" in half
    assert half.endswith("each rare image comes 1 times an epoch on average.")
