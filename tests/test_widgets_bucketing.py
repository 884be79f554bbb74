import numpy as np
import pandas as pd
import pytest
from looking import parts, shown

from bpsutils import plots, widgets
from bpsutils.bucketing import padding_waste
from bpsutils.datasets import ImageDataset
from bpsutils.images import write_image

pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture
def dataset(tmp_path):
    rows = []
    for number, (height, width) in enumerate([(10, 40), (20, 20), (30, 30), (30, 30)]):
        path = tmp_path / f"{number}.tif"
        write_image(path, np.full((height, width), 400 + number, np.uint16))
        rows.append({"path": str(path), "height": height, "width": width})
    return ImageDataset(pd.DataFrame(rows), target=None)


def test_the_viewer_says_what_a_batch_and_the_epoch_waste(dataset):
    batches = [[0, 1], [2, 3]]
    with shown(lambda: widgets.batch_viewer(dataset, batches)) as (control, outputs):
        control.value = 2
    epoch = f"{padding_waste(dataset.sizes, batches):.0%} of the epoch."
    assert parts(outputs[1])[1] == (
        "Batch 1 of 2: 2 images, 20 to 40 px wide and 10 to 20 px high, are padded to 20 × 40 px. "
        f"Padding is 50% of this batch, and {epoch}"
    )
    assert "Batch 2 of 2: 2 images, 30 to 30 px wide" in parts(outputs[2])[1]
    assert f"Padding is 0% of this batch, and {epoch}" in parts(outputs[2])[1]
    assert parts(outputs[1])[0] != parts(outputs[2])[0]
    pixels = [dataset[i]["image"][0].numpy() for i in (0, 1)]
    static = plots.as_html(plots.padded_batch(pixels), "x", "y")
    assert parts(outputs[1])[0] == parts({"data": {"text/html": static}})[0]


def test_the_viewer_needs_sizes(dataset):
    dataset.sizes = None
    with pytest.raises(ValueError, match="from a table with height and width"):
        widgets.batch_viewer(dataset, [[0]])


def test_boundaries_state_the_waste_of_their_strips():
    rng = np.random.default_rng(0)
    sizes = np.stack([rng.integers(79, 171, 200), rng.integers(114, 183, 200)], axis=1)
    with shown(lambda: widgets.bucket_boundaries(sizes, 8)) as (control, outputs):
        assert (control.value, control.min, control.max) == (5, 1, 25)
        control.value = 1
    for output, strips, word in ((outputs[1], 5, "strips"), (outputs[2], 1, "strip")):
        waste = padding_waste(sizes, plots.strip_batches(sizes, 8, strips))
        assert parts(output)[1].startswith(f"{strips} {word} of height, 25 batches: inside a typical batch")
        assert parts(output)[1].endswith(f"{waste:.1%} of all pixels are padding.")
    assert parts(outputs[1])[0] != parts(outputs[2])[0]
