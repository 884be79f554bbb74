import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from bpsutils import plots

MESSAGE = """Caught ImageError in DataLoader worker process 3.
Original Traceback (most recent call last):
  File "/x/site-packages/torch/utils/data/_utils/worker.py", line 375, in _worker_loop
    data = fetcher.fetch(index)
  File "/x/site-packages/torch/utils/data/_utils/fetch.py", line 54, in fetch
    data = [self.dataset[idx] for idx in possibly_batched_index]
  File "/x/site-packages/torch/utils/data/_utils/fetch.py", line 54, in <listcomp>
    data = [self.dataset[idx] for idx in possibly_batched_index]
  File "/y/bpsutils/datasets.py", line 114, in __getitem__
    pixels = read_image(path)
bpsutils.images.ImageError: half.tif: truncated
"""


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@given(st.integers(0, 12), st.floats(1, 100), st.floats(1, 100), st.integers(1, 20), st.integers(1, 6))
def test_a_schedule_never_trains_on_what_is_not_loaded(workers, load, train, batches, cores):
    plan = plots.schedule(workers, load, train, batches, cores)
    assert [batch for _, batch, _, _ in plan.loading] == list(range(batches))
    for (_, _, _, loaded), (start, _) in zip(plan.loading, plan.training, strict=True):
        assert loaded <= start
    ends = [0.0] + [end for _, end in plan.training]
    assert all(end <= start for end, (start, _) in zip(ends, plan.training, strict=False))
    assert plan.waiting == pytest.approx(plan.total - batches * train, abs=1e-6)


@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 3))
def test_a_worker_does_one_thing_at_a_time_and_is_never_further_ahead_than_allowed(workers, batches, prefetch):
    plan = plots.schedule(workers, batches=batches, prefetch=prefetch)
    for worker in range(workers):
        own = [(start, end) for who, _, start, end in plan.loading if who == worker]
        assert all(before[1] <= after[0] for before, after in zip(own, own[1:], strict=False))
    for _, batch, start, _ in plan.loading[prefetch * workers :]:
        assert start >= plan.training[batch - prefetch * workers][0]


def test_the_schedule_by_hand():
    assert plots.schedule(0, 30, 10, 3).total == 120  # one after the other
    assert plots.schedule(3, 30, 10, 12, 4).waiting == 30  # only for the first batch
    assert plots.schedule(8, 30, 10, 12, 4).training[0][0] == 60  # eight share four cores
    assert plots.schedule(2, 30, 10, 12, 2).waiting > plots.schedule(3, 30, 10, 12, 4).waiting


def test_the_timeline_names_workers_batches_and_the_wait():
    said = words(plots.worker_timeline(3))
    assert "3 workers: the GPU waits 20% of 150 ms" in said
    assert {"worker 0", "worker 2", "GPU trains", "11"} <= set(said)
    assert "worker 3" not in said
    assert "No workers: the GPU waits 75% of 480 ms" in words(plots.worker_timeline(0))


def test_too_many_workers_finds_the_best_number_of_each_machine():
    said = words(plots.too_many_workers())
    assert "More than 2 or 3 workers save no time and take memory" in said
    assert {"2 cores, best with 2", "4 cores, best with 3"} <= set(said)


@pytest.mark.parametrize(("n", "size", "weight"), [(197, 16, "3.0"), (28, 16, "1.2"), (32, 16, "1.0")])
def test_the_weight_of_the_last_batch(n, size, weight):
    title = words(plots.last_batch(n, size))
    assert f"In a mean of batch means, an image of the last batch weighs {weight} times its share" in title


def test_the_xray_counts_where_the_image_changes():
    image = np.arange(64, dtype=np.uint16).reshape(8, 8)
    batch = np.stack([image] * 4)
    stages = {"read": image, "collate": batch, "pin": batch, "device": batch / np.float32(65535)}
    said = words(plots.batch_xray([7, 1, 2, 3], stages))
    assert "Image 7 passes 5 stations; its pixels change at 1 of them" in said
    assert {"1  sampler", "3  collate", "7", "uint16, 8 × 8\n0 to 63", "uint16, 4 × 8 × 8\n0 to 63"} <= set(said)


def test_a_traceback_without_inner_lines_and_folders():
    said = words(plots.worker_traceback(MESSAGE))
    assert {"who: worker 3", "where: your Dataset", "what, to which file"} <= set(said)
    assert {"  datasets.py, in __getitem__", "ImageError: half.tif: truncated"} <= set(said)
    assert not any("listcomp" in text or "/" in text for text in said)
    with pytest.raises(ValueError, match="an exception that a worker raised"):
        plots.worker_traceback("ImageError: half.tif")


def test_the_measurements_name_the_fastest():
    measured = pd.DataFrame({"batch_size": [1, 16], "loading": [100.0, 120.0], "training": [50.0, 200.0]})
    workers = pd.DataFrame({"num_workers": [0, 1, 2], "images_per_second": [100.0, 90.0, 170.0]})
    said = words(plots.throughput(measured, workers))
    assert "Here 2 workers load fastest; batches speed up training 4.0 times, loading 1.2" in said
    assert {"× 1.0", "× 0.9", "× 1.7"} <= set(said)
