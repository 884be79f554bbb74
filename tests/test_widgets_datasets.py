import re

import numpy as np
import pandas as pd
import pytest
from IPython.utils.capture import capture_output

from bpsutils import ImageDataset, widgets, write_image


@pytest.fixture
def table(tmp_path):
    for number, shape in enumerate([(8, 9), (10, 9), (8, 9)]):
        write_image(tmp_path / f"{number}.tif", np.full(shape, 300 + number, np.uint16))
    paths = [str(tmp_path / f"{number}.tif") for number in range(3)]
    return pd.DataFrame({"path": paths, "particle_type": ["Fe", "X-ray", "Fe"], "group": ["Fe/A6", "X-ray/C7", ""]})


def sentences(outputs):
    return [re.search(r"<p>(.*)</p>", output["data"]["text/html"])[1] for output in outputs[1:]]


def test_the_viewer_says_what_the_dataset_returns(shell, table):
    with capture_output() as captured:
        control = widgets.sample_viewer(ImageDataset(table, classes=["X-ray", "Fe"]))
        control.value = 1
        control.value = 2
    said = sentences(captured._outputs)
    assert said[0] == (
        "dataset[0] of 3: 8 x 9 pixels, label 1 (Fe), group Fe/A6; only another one of this size stacks with it."
    )
    assert said[1] == (
        "dataset[1] of 3: 10 x 9 pixels, label 0 (X-ray), group X-ray/C7; it does not stack with sample 0."
    )
    assert said[2] == "dataset[2] of 3: 8 x 9 pixels, label 1 (Fe), group unknown; it has the size of sample 0."
    assert (control.min, control.max) == (0, 2)


def test_the_viewer_shows_images_without_labels(shell, table):
    with capture_output() as captured:
        widgets.sample_viewer(ImageDataset(table, target=None))
    assert "no label" in sentences(captured._outputs)[0]


def test_the_viewer_wants_dicts(shell, table):
    with capture_output(), pytest.raises(TypeError, match="without as_tuple"):
        widgets.sample_viewer(ImageDataset(table, as_tuple=True))
