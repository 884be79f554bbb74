import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bpsutils.collate import collate_fn_pad


def sample(height, width, index=0, channels=1, **more):
    """Grey levels above 32767, and all different: nothing may wrap, clip or move."""
    pixels = np.arange(channels * height * width, dtype=np.uint16).reshape(channels, height, width) + 40_000
    return {"image": torch.from_numpy(pixels), "group": "Fe/A6", "path": f"{index}.tif", "index": index, **more}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6), st.sampled_from([1, 3]))
def test_padding_is_zero_below_and_right_and_the_mask_says_where(sizes, channels):
    samples = [sample(h, w, i, channels, label=i % 2) for i, (h, w) in enumerate(sizes)]
    batch = collate_fn_pad(samples)
    height, width = np.max(sizes, axis=0)
    assert batch["images"].shape == (len(sizes), channels, height, width)
    assert batch["images"].dtype == torch.uint16
    assert batch["sizes"].tolist() == [list(size) for size in sizes]
    for one, image, mask, (h, w) in zip(samples, batch["images"], batch["mask"], sizes, strict=True):
        assert np.array_equal(image[:, :h, :w].numpy(), one["image"].numpy())
        assert mask[:h, :w].all()
        assert int(mask.sum()) == h * w
        assert int((image.numpy() != 0).sum()) == channels * h * w


def test_batch_carries_labels_groups_paths_and_indices():
    batch = collate_fn_pad([sample(2, 3, 5, label=1), sample(3, 2, 4, label=0)])
    assert list(batch) == ["images", "mask", "sizes", "labels", "groups", "paths", "indices"]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["groups"] == ["Fe/A6", "Fe/A6"]
    assert batch["paths"] == ["5.tif", "4.tif"]
    assert batch["indices"].tolist() == [5, 4]
    assert {batch[key].dtype for key in ("labels", "indices", "sizes")} == {torch.int64}
    assert batch["mask"].dtype == torch.bool


def test_batch_without_labels_has_no_labels():
    assert "labels" not in collate_fn_pad([sample(2, 3), sample(3, 2)])


def test_collate_refuses_what_makes_no_batch():
    with pytest.raises(ValueError, match="got no samples"):
        collate_fn_pad([])
    with pytest.raises(TypeError, match="'image' tensor.*got a tuple; use ImageDataset"):
        collate_fn_pad([(torch.zeros(1, 2, 2), 0)])
    with pytest.raises(TypeError, match="got a ndarray"):
        collate_fn_pad([{"image": np.zeros((1, 2, 2))}])
    with pytest.raises(ValueError, match="same channels and dtype.*from 7.tif"):
        collate_fn_pad([sample(2, 2), sample(2, 2, 7, channels=3)])
    with pytest.raises(ValueError, match="same channels and dtype.*torch.float32 of shape"):
        collate_fn_pad([sample(2, 2), {"image": torch.zeros(1, 2, 2)}])
    with pytest.raises(ValueError, match=r"samples \[1\] of the batch have no 'label'"):
        collate_fn_pad([sample(2, 2, label=1), sample(2, 2)])
