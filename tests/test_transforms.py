import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bpsutils.config import Config
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
    transpose_batch,
)

# Every pixel differs from every other and none is 0: whatever moves or changes a pixel shows.
GREY = np.arange(1, 31, dtype=np.uint16).reshape(5, 6) * 2000
IMAGE = torch.from_numpy(GREY.copy())[None]
BATCH = torch.from_numpy(np.stack([GREY, GREY[:, ::-1], GREY[::-1]])[:, None])


def numbers(images):
    """As NumPy, because torch cannot compare uint16."""
    return np.asarray(images)


def seen(transform, images, times=60):
    torch.manual_seed(0)
    return [numbers(transform(images)) for _ in range(times)]


def test_to_tensor_puts_channels_first_and_keeps_every_grey_level():
    assert np.array_equal(numbers(ToTensor()(GREY)), GREY[None])
    assert ToTensor()(GREY).dtype == torch.uint16
    colour = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(numbers(ToTensor()(colour)), np.moveaxis(colour, 2, 0))


def test_to_tensor_takes_foreign_byte_order_read_only_arrays_and_pil():
    foreign = GREY.astype(GREY.dtype.newbyteorder(">"))
    foreign.flags.writeable = False
    assert np.array_equal(numbers(ToTensor()(foreign)), GREY[None])
    assert np.array_equal(numbers(ToTensor()(Image.fromarray(GREY))), GREY[None])


def test_to_tensor_does_not_share_memory_with_the_array():
    array = GREY.copy()
    ToTensor()(array).zero_()
    assert np.array_equal(array, GREY)


def test_to_tensor_leaves_tensors_and_refuses_other_shapes():
    assert ToTensor()(IMAGE) is IMAGE
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, C\), got shape \(4,\)"):
        ToTensor()(np.zeros(4))


@pytest.mark.parametrize(("flip", "axis"), [(HorizontalFlip, 2), (VerticalFlip, 1)])
def test_flips_mirror_their_own_axis(flip, axis):
    flipped = flip(p=1.0)(IMAGE)
    assert flipped.dtype == torch.uint16
    assert np.array_equal(numbers(flipped), np.flip(GREY[None], axis))
    assert np.array_equal(numbers(flip(p=0.0)(IMAGE)), GREY[None])


@pytest.mark.parametrize("flip", [HorizontalFlip(0.5), VerticalFlip(0.5)])
def test_flips_toss_a_coin_for_each_image_of_a_batch(flip):
    both = type(flip)(p=1.0)
    patterns = set()
    for flipped in seen(flip, BATCH):
        turned = [np.array_equal(one, numbers(both(image))) for one, image in zip(flipped, BATCH, strict=True)]
        kept = [np.array_equal(one, numbers(image)) for one, image in zip(flipped, BATCH, strict=True)]
        assert all(a != b for a, b in zip(turned, kept, strict=True))
        patterns.add(tuple(turned))
    assert len(patterns) == 8


@pytest.mark.parametrize("flip", [HorizontalFlip, VerticalFlip])
def test_flips_refuse_what_is_no_probability(flip):
    with pytest.raises(ValueError, match=f"{flip.__name__}.p must be from 0 to 1, got 1.5"):
        flip(p=1.5)


def test_quarter_turn_reaches_all_four_and_nothing_else():
    turns = [np.rot90(GREY[None], k, (1, 2)) for k in range(4)]
    found = [[np.array_equal(one, turn) for turn in turns] for one in seen(QuarterTurn(), IMAGE)]
    assert all(sum(row) == 1 for row in found)
    assert np.all(np.any(found, axis=0))


def test_quarter_turn_turns_each_image_of_a_square_batch():
    square = BATCH[..., :5]
    turned = seen(QuarterTurn(), square, 20)
    assert all(
        any(np.array_equal(one, np.rot90(numbers(image), k, (1, 2))) for k in range(4))
        for batch in turned
        for one, image in zip(batch, square, strict=True)
    )
    with pytest.raises(ValueError, match=r"square images, got \(3, 1, 5, 6\)"):
        QuarterTurn()(BATCH)


def test_random_crop_reaches_every_place_and_copies_pixels_as_they_are():
    places = {(top, left): GREY[None, top : top + 3, left : left + 4] for top in range(3) for left in range(3)}
    found = {
        place
        for crop in seen(RandomCrop((3, 4)), IMAGE, 200)
        for place, window in places.items()
        if np.array_equal(crop, window)
    }
    assert found == set(places)


def test_random_crop_cuts_each_image_of_a_batch_elsewhere():
    crops = seen(RandomCrop(2), torch.stack([IMAGE, IMAGE]), 20)
    assert crops[0].shape == (2, 1, 2, 2)
    assert not all(np.array_equal(first, second) for first, second in crops)


def test_center_crop_cuts_the_middle():
    assert np.array_equal(numbers(CenterCrop(3)(IMAGE)), GREY[None, 1:4, 1:4])
    assert CenterCrop((5, 2))(BATCH).shape == (3, 1, 5, 2)


@pytest.mark.parametrize("crop", [RandomCrop(6), CenterCrop((5, 7))])
def test_crops_refuse_a_smaller_image(crop):
    with pytest.raises(ValueError, match="only 5 x 6 pixels; leave small images out with Config.min_size"):
        crop(IMAGE)


@pytest.mark.parametrize("transform", [RandomCrop, CenterCrop, Resize])
def test_sizes_must_be_positive(transform):
    with pytest.raises(ValueError, match=f"{transform.__name__}.size must be at least 1 pixel, got 0"):
        transform(0)


def test_resize_averages_when_it_shrinks():
    """A single bright pixel, like a focus, is still seen after shrinking four times."""
    focus = torch.full((1, 16, 16), 400, dtype=torch.uint16).numpy()
    focus[0, 6, 9] = 65535
    small = numbers(Resize(4)(torch.from_numpy(focus)))
    assert small.dtype == np.uint16
    assert small.max() > 1500
    assert abs(float(small.mean()) - float(focus.mean())) < 40


def test_resize_rounds_and_keeps_the_range():
    assert np.array_equal(numbers(Resize((5, 6))(IMAGE)), GREY[None])
    step = torch.tensor([[[0, 65535]]], dtype=torch.uint16)
    assert numbers(Resize((1, 4))(step)).tolist() == [[[0, 16384, 49151, 65535]]]
    assert Resize((2, 3))(BATCH).shape == (3, 1, 2, 3)
    assert Resize((2, 3))(IMAGE.float()).dtype == torch.float32


def test_resize_shrinks_a_batch_as_it_shrinks_each_image():
    one_by_one = np.stack([numbers(Resize(3)(image)) for image in BATCH])
    assert np.array_equal(numbers(Resize(3)(BATCH)), one_by_one)


def test_noise_has_the_stated_spread_and_keeps_the_dtype():
    grey = torch.full((1, 200, 200), 1000, dtype=torch.uint16)
    torch.manual_seed(0)
    noisy = AddNoise(sigma=15.0)(grey)
    assert noisy.dtype == torch.uint16
    assert abs(numbers(noisy).astype(float).mean() - 1000) < 0.5
    assert abs(numbers(noisy).astype(float).std() - 15) < 0.5


@pytest.mark.parametrize("level", [0, 65535])
def test_noise_never_wraps(level):
    torch.manual_seed(0)
    noisy = numbers(AddNoise(sigma=100.0)(torch.full((1, 50, 50), level, dtype=torch.uint16)))
    assert np.abs(noisy.astype(int) - level).max() < 1000
    assert np.ptp(noisy) > 0


def test_noise_refuses_a_negative_sigma():
    with pytest.raises(ValueError, match=r"AddNoise.sigma must not be negative, got -1"):
        AddNoise(-1)


def test_to_float_scales_by_the_declared_range():
    assert torch.allclose(ToFloat((0, 65535))(IMAGE), torch.from_numpy(GREY[None] / np.float32(65535)))
    assert ToFloat((2000, 60000))(IMAGE).flatten()[[0, -1]].tolist() == [0.0, 1.0]


def test_normalize_takes_one_mean_and_std_a_channel():
    colour = torch.stack([torch.full((2, 2), 0.5), torch.full((2, 2), 2.0)])
    normal = Normalize(mean=[0.25, 1.0], std=[0.25, 0.5])(colour)
    assert normal[:, 0, 0].tolist() == [1.0, 2.0]
    assert torch.equal(Normalize([0.25, 1.0], [0.25, 0.5])(torch.stack([colour, colour]))[1], normal)


def test_normalize_refuses_whole_numbers_wrong_channels_and_no_spread():
    with pytest.raises(TypeError, match=r"Normalize takes floats, got torch.uint16.*ToFloat"):
        Normalize([0.5], [0.5])(IMAGE)
    with pytest.raises(ValueError, match="is for 3 channels, got an image"):
        Normalize([0.5] * 3, [0.5] * 3)(IMAGE.float())
    with pytest.raises(ValueError, match="a std above 0 for each channel"):
        Normalize([0.5], [0.0])


@given(gain=st.floats(0.05, 20), offset=st.floats(-3, 3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_standardise_takes_out_any_gain_and_offset(gain, offset, seed):
    images = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(seed))
    mask = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(seed + 1)) < 0.7
    expected = Standardise()(images, mask)
    assert expected.abs().max() > 0.5
    assert torch.allclose(Standardise()(gain * images + offset, mask), expected, atol=2e-3)


def test_standardise_gives_mean_0_and_spread_1_over_each_mask():
    images = ToFloat()(BATCH)
    mask = torch.ones(3, 5, 6, dtype=torch.bool)
    mask[1, 3:] = False
    standard = Standardise()(images, mask)
    for image, real in zip(standard[:, 0], mask, strict=True):
        assert abs(float(image[real].mean())) < 1e-5
        assert abs(float(image[real].std(correction=0)) - 1) < 1e-5
        assert not image[~real].any()


def test_standardise_of_a_padded_batch_is_that_of_each_image_alone():
    small, large = ToFloat()(IMAGE[:, :3, :4]), ToFloat()(IMAGE)
    padded = torch.zeros(2, 1, 5, 6)
    padded[0, :, :3, :4], padded[1] = small, large
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    mask[0, :3, :4], mask[1] = True, True
    together = Standardise()(padded, mask)
    assert torch.allclose(together[0, :, :3, :4], Standardise()(small), atol=1e-5)
    assert torch.allclose(together[1], Standardise()(large), atol=1e-5)


def test_standardise_makes_an_image_of_one_grey_level_zeros():
    flat = torch.full((1, 1, 101, 149), 582 / 65535)
    assert not Standardise()(flat).any()
    assert not Standardise()(flat, torch.zeros(1, 101, 149, dtype=torch.bool)).any()


def test_standardise_refuses_whole_numbers():
    with pytest.raises(TypeError, match="Standardise takes floats, got torch.uint16"):
        Standardise()(IMAGE)


def test_compose_calls_in_order():
    assert Compose([ToTensor(), CenterCrop((1, 2)), HorizontalFlip(1.0)])(GREY).tolist() == [[[32000, 30000]]]
    assert repr(Compose([ToTensor(), Resize(4)])) == "Compose([ToTensor(), Resize(size=4)])"


def test_training_images_are_mirrored_both_ways():
    mirrored = {image.tobytes() for image in seen(train_transform(Config()), GREY)}
    assert mirrored == {numbers(GREY[::down, ::right]).tobytes() for down in (1, -1) for right in (1, -1)}


def test_eval_images_are_left_to_no_chance():
    assert np.array_equal(numbers(eval_transform(Config())(GREY)), GREY[None])
    resized = seen(eval_transform(Config(resize=4)), GREY, 5)
    assert resized[0].shape == (1, 4, 4)
    assert all(np.array_equal(resized[0], image) for image in resized)


def test_transpose_batch_takes_images_and_mask_alike_and_keeps_padding_in_its_corner():
    images = torch.arange(1, 31.0).reshape(2, 1, 3, 5)
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    mask[1, 2:], mask[1, :, 3:] = False, False
    images = images * mask[:, None]
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        changed, changed_mask = transpose_batch(images, mask)
        assert torch.equal(changed[:, 0] > 0, changed_mask)
        assert changed_mask[:, 0, 0].all()
        expected = {3: images, 5: images.transpose(2, 3)}[changed.shape[2]]
        assert torch.equal(changed, expected)
        seen.add(changed.shape[2])
    assert seen == {3, 5}
    assert transpose_batch(images)[1] is None
