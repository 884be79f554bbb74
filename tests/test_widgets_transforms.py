import re

import numpy as np
import pytest
import torch
from IPython.utils.capture import capture_output

from bpsutils import AddNoise, CenterCrop, widgets


@pytest.fixture
def image():
    levels = np.full((1, 60, 70), 400, np.uint16)
    levels[0, [10, 30, 50], [10, 35, 60]] = 20_000
    return torch.from_numpy(levels)


def sentences(outputs):
    return [re.search(r"<p>(.*)</p>", output["data"]["text/html"])[1] for output in outputs[1:]]


def test_the_playground_counts_foci_before_and_after(shell, image):
    with capture_output() as captured:
        control = widgets.augmentation_playground(image, {"as it is": lambda x: x, "crop": CenterCrop(20)})
        control.value = "crop"
    before, after = sentences(captured._outputs)
    assert before == "as it is: 3 foci can be counted, 3 before; 60 x 70 pixels, mean grey level 414 (before 414)."
    assert after == "crop: 1 foci can be counted, 3 before; 20 x 20 pixels, mean grey level 449 (before 414)."


def test_chance_is_the_same_each_time_and_the_generator_is_left_alone(shell, image):
    state = torch.get_rng_state()
    with capture_output() as captured:
        control = widgets.augmentation_playground(image, {"noise": AddNoise(300.0), "none": lambda x: x})
        control.value = "none"
        control.value = "noise"
    assert captured._outputs[1]["data"] == captured._outputs[3]["data"]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_playground_starts_where_it_is_told_to(shell, image):
    with capture_output() as captured:
        control = widgets.augmentation_playground(image, {"a": lambda x: x, "b": CenterCrop(20)}, start="b")
    assert control.value == "b"
    assert sentences(captured._outputs)[0].startswith("b: 1 foci")


def test_an_empty_playground_is_refused(image):
    with pytest.raises(ValueError, match="at least one augmentation"):
        widgets.augmentation_playground(image, {})
