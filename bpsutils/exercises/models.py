"""Exercises of notebook 08: a linear layer, softmax, counting parameters, a masked mean, a network for any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bpsutils.exercises import Exercise, Misconception

_LINEAR = "def linear(x, weight, bias):\n    return "


def _test_linear(linear: Callable[..., Any]) -> str | None:
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])
    weight = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0], [5.0, 0.0, -1.0]])
    bias = torch.tensor([10.0, 20.0, 30.0, 40.0])
    got = linear(x, weight, bias)
    if not isinstance(got, torch.Tensor):
        return f"return a tensor, not {type(got).__name__}"
    right = torch.nn.functional.linear(x, weight, bias)
    if tuple(got.shape) == (4, 2):
        return "your result has shape (4, 2): it should have a row for each image, x comes first"
    if got.shape != right.shape:
        return f"two images and four outputs make shape (2, 4), yours is {tuple(got.shape)}"
    if torch.allclose(got, right - bias):
        return "the weights are right; the bias is missing"
    if torch.allclose(got, (x + bias[:3]) @ weight.T):
        return "the bias belongs to the outputs, not to the inputs"
    if not torch.allclose(got, right):
        return f"the first image should give {right[0].tolist()}, yours gives {got[0].tolist()}"
    return None


q1 = Exercise(
    name="q1",
    answer="linear",
    test=_test_linear,
    right="each output is a weighted sum of all inputs, plus its bias",
    hints=(
        "Rows meet columns: a matrix product. Shapes are (images, inputs), (outputs, inputs), (outputs,).",
        "x @ weight does not fit, for both end in inputs. weight.T has shape (inputs, outputs).",
        "x @ weight.T, and then add the bias; broadcasting repeats it for each image.",
    ),
    solution_code=_LINEAR + "x @ weight.T + bias\n",
    why="nn.Linear stores one row of weights for each output, hence the transpose.",
    misconceptions={
        "not transposed": Misconception(_LINEAR + "x @ weight + bias", "your function stopped with"),
        "no bias": Misconception(_LINEAR + "x @ weight.T", "the bias is missing"),
        "weights first": Misconception(_LINEAR + "weight @ x.T + bias[:, None]", "a row for each image"),
        "bias on the inputs": Misconception(_LINEAR + "(x + bias[:3]) @ weight.T", "belongs to the outputs"),
    },
)

_SOFTMAX = """
def softmax(logits):
    powers = torch.exp({inside})
    return powers / {total}
"""
_INSIDE, _TOTAL = "logits - logits.amax(dim=1, keepdim=True)", "powers.sum(dim=1, keepdim=True)"


def _test_softmax(softmax: Callable[[torch.Tensor], Any]) -> str | None:
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.5, 3.0], [1.0, 1.0, 1.0]])
    got = softmax(logits)
    if not isinstance(got, torch.Tensor):
        return f"return a tensor, not {type(got).__name__}"
    if got.shape != logits.shape:
        return f"there is one probability for each logit, shape (3, 3); yours has shape {tuple(got.shape)}"
    right = torch.softmax(logits, dim=1)
    for message, wrong in {
        "your columns sum to 1, so the images of the batch compete; each row should": torch.softmax(logits, dim=0),
        "that is each logit alone (a sigmoid): the classes of an image should sum to 1": torch.sigmoid(logits),
        "you divide logits by their sum: first take the exponential, it makes all of them positive": logits
        / logits.sum(1, keepdim=True),
        "all values together sum to 1: each image should": logits.exp() / logits.exp().sum(),
    }.items():
        if torch.allclose(got, wrong):
            return message
    if not torch.allclose(got, right):
        return f"logits {logits[0].tolist()} become {[round(p, 3) for p in right[0].tolist()]}, yours {got[0].tolist()}"
    large = softmax(torch.tensor([[1000.0, 998.0], [0.0, 1.0]]))
    if not torch.isfinite(large[0]).all():
        return "a logit of 1000 gives inf / inf: subtract each row's largest logit first, which changes no share"
    if not torch.isfinite(large[1]).all():
        return "one image's logit of 1000 makes 0 / 0 of another image: subtract each row's own largest logit"
    if not torch.allclose(large[0], torch.softmax(torch.tensor([1000.0, 998.0]), 0), atol=1e-3):
        return "logits of 1000 and 998 should give what 2 and 0 give"
    return None


q2 = Exercise(
    name="q2",
    answer="softmax",
    test=_test_softmax,
    right="positive, summing to 1 for each image, and safe for large logits",
    hints=(
        "Take the exponential of every logit, then divide by a sum. Over which axis?",
        "dim=1 are the classes of one image; keepdim=True keeps the sum beside its row. Then try a logit of 1000.",
        "exp(1000) overflows. Subtract logits.amax(dim=1, keepdim=True) before the exponential: shares stay.",
    ),
    solution_code=_SOFTMAX.format(inside=_INSIDE, total=_TOTAL),
    why="a constant added to all logits of an image cancels in the division, so the largest may be made 0.",
    misconceptions={
        "over the batch": Misconception(
            _SOFTMAX.format(inside="logits - logits.amax(dim=0)", total="powers.sum(dim=0)"), "your columns sum to 1"
        ),
        "no exponential": Misconception(
            "def softmax(logits):\n    return logits / logits.sum(dim=1, keepdim=True)", "first take the exponential"
        ),
        "overflow": Misconception(_SOFTMAX.format(inside="logits", total=_TOTAL), "gives inf / inf"),
        "one largest for all": Misconception(
            _SOFTMAX.format(inside="logits - logits.max()", total=_TOTAL), "each row's own largest"
        ),
        "each class alone": Misconception("def softmax(logits):\n    return torch.sigmoid(logits)", "a sigmoid"),
        "one sum for all": Misconception(
            _SOFTMAX.format(inside="logits - logits.max()", total="powers.sum()"), "all values together"
        ),
    },
)

_COUNT = "def conv_parameters(inputs, outputs, kernel, bias):\n    return "


def _test_conv_parameters(conv_parameters: Callable[[int, int, int, bool], Any]) -> str | None:
    cases = ((1, 16, 5, False), (3, 8, 3, True), (16, 32, 3, False), (1, 8, 1, True))
    got = {case: conv_parameters(*case) for case in cases}
    wrong: dict[str, Callable[..., int]] = {
        "the kernel is a square: kernel * kernel weights for each input channel": lambda i, o, k, b: o * (i * k + b),
        "each output has a kernel for every input channel; you count one": lambda i, o, k, b: o * (k**2 + b),
        "one bias belongs to each output channel, not one to the whole layer": lambda i, o, k, b: o * i * k**2 + b,
        "the bias is missing where there is one": lambda i, o, k, b: o * i * k**2,
        "a bias is one number for an output channel, not one for each kernel": lambda i, o, k, b: o * i * (k**2 + b),
    }
    for message, count in wrong.items():
        if all(got[case] == count(*case) for case in cases):
            return message
    for inputs, outputs, kernel, bias in cases:
        layer = torch.nn.Conv2d(inputs, outputs, kernel, bias=bias)
        right = sum(parameter.numel() for parameter in layer.parameters())
        if got[inputs, outputs, kernel, bias] != right:
            return (
                f"{inputs} to {outputs} channels, kernel {kernel}, bias={bias}: {right} parameters, "
                f"you count {got[inputs, outputs, kernel, bias]}"
            )
    return None


q3 = Exercise(
    name="q3",
    answer="conv_parameters",
    test=_test_conv_parameters,
    right="as many whatever the image's size: that is why convolutions take any",
    hints=(
        "Count for one output channel first: what does it look at, and with how many weights?",
        "One output channel has a kernel × kernel square of weights for every input channel, and at most one bias.",
        "outputs * (inputs * kernel**2 + bias): True counts as 1.",
    ),
    solution_code=_COUNT + "outputs * (inputs * kernel**2 + bias)\n",
    why="the same weights visit every place of the image, so its height and width do not appear.",
    misconceptions={
        "a line, not a square": Misconception(_COUNT + "outputs * (inputs * kernel + bias)", "the kernel is a square"),
        "inputs forgotten": Misconception(_COUNT + "outputs * (kernel**2 + bias)", "for every input channel; you"),
        "one bias in all": Misconception(_COUNT + "outputs * inputs * kernel**2 + bias", "not one to the whole"),
        "no bias": Misconception(_COUNT + "outputs * inputs * kernel**2", "the bias is missing"),
        "a bias a kernel": Misconception(_COUNT + "outputs * inputs * (kernel**2 + bias)", "not one for each kernel"),
    },
)

_MEAN = "def masked_mean(features, mask):\n    return "


def _test_masked_mean(masked_mean: Callable[[torch.Tensor, torch.Tensor], Any]) -> str | None:
    features = torch.arange(1.0, 49.0).reshape(2, 3, 2, 4)
    mask = torch.zeros(2, 1, 2, 4)
    mask[0, :, :, :2], mask[1] = 1, 1  # the first image is padded, and what lies in its padding is not 0
    got = masked_mean(features, mask)
    if not isinstance(got, torch.Tensor):
        return f"return a tensor, not {type(got).__name__}"
    right = (features * mask).sum((2, 3)) / mask.sum((2, 3))
    if got.shape != right.shape:
        return f"one number for each image and channel, shape (2, 3); yours has shape {tuple(got.shape)}"
    for message, wrong in {
        "that is the mean over all pixels, padding included": features.mean((2, 3)),
        "you divide by the real pixels, but the sum above contains the padding": features.sum((2, 3))
        / mask.sum((2, 3)),
        "padding is set to 0 but still counted: divide by the number of real pixels": (features * mask).mean((2, 3)),
        "that is the sum over real pixels; divide by how many there are": (features * mask).sum((2, 3)),
    }.items():
        if torch.allclose(got, wrong):
            return message
    if not torch.allclose(got, right):
        return f"the first image's channels should give {right[0].tolist()}, yours give {got[0].tolist()}"
    return None


q4 = Exercise(
    name="q4",
    answer="masked_mean",
    test=_test_masked_mean,
    right="padding neither adds to the sum nor to the count",
    hints=(
        "A mean is a sum divided by a count. Padding must stay out of both.",
        "features * mask sets padding to 0 before the sum; mask.sum(…) counts the real pixels.",
        "Sum both over (2, 3): shapes (B, C) and (B, 1), which broadcast.",
    ),
    solution_code=_MEAN + "(features * mask).sum((2, 3)) / mask.sum((2, 3))\n",
    why="an image then gives the same numbers alone and in a batch with larger ones.",
    misconceptions={
        "padding counted": Misconception(_MEAN + "(features * mask).mean((2, 3))", "but still counted"),
        "padding summed": Misconception(_MEAN + "features.sum((2, 3)) / mask.sum((2, 3))", "contains the padding"),
        "mask unused": Misconception(_MEAN + "features.mean((2, 3))", "padding included"),
        "never divided": Misconception(_MEAN + "(features * mask).sum((2, 3))", "the sum over real pixels"),
    },
    equivalent=(
        _MEAN + "(features * mask).sum((3, 2)) / mask.sum((2, 3))",
        _MEAN + "(features * mask).sum((2, 3)) / mask.sum((3, 2))",
    ),
)


def _relu_after_pooling(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor | None:
    """The logits that the network's own layers give with pooling and ReLU in the wrong order."""
    convolutions = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    linears = [module for module in net.modules() if isinstance(module, torch.nn.Linear)]
    if len(convolutions) != 1 or len(linears) != 1 or linears[0].in_features != convolutions[0].out_channels:
        return None
    logits: torch.Tensor = linears[0](torch.relu(convolutions[0](images).mean((2, 3))))
    return logits


def _test_size_free(size_free: Callable[[int, int], Any]) -> str | None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = size_free(2, 3)
        images = 3 * torch.randn(4, 2, 12, 20)
    if not isinstance(net, torch.nn.Module):
        return "make it a class that inherits from torch.nn.Module"
    with torch.no_grad():
        got = net(images)
        if not isinstance(got, torch.Tensor) or tuple(got.shape) != (4, 3):
            shape = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
            return f"four images and three classes make logits of shape (4, 3), yours: {shape}"
        try:
            other = net(images[..., :9, :17])
        except Exception:  # noqa: BLE001 - whatever stops it, it was fine at the first size
            return "images of another size do not pass: what comes before the linear layer still depends on the size"
        late = _relu_after_pooling(net, images)
        flat = torch.allclose(net(images) + net(-images), 2 * net(torch.zeros_like(images)), atol=1e-5)
    count = sum(parameter.numel() for parameter in net.parameters())
    right = 8 * (2 * 9 + 1) + 3 * (8 + 1)
    if count == 0:
        return "PyTorch sees no parameters: keep layers as attributes or in nn.Sequential, not in a Python list"
    if tuple(other.shape) != (4, 3):
        return f"for another size the logits have shape {tuple(other.shape)}; it should stay (4, 3)"
    if torch.allclose(got.sum(1), torch.ones(4)):
        return "each row sums to 1, you end in a softmax; return logits, cross-entropy does the rest"
    if flat:
        return "there is no non-linearity: convolution and linear layer together are still one linear function"
    if late is not None and torch.allclose(got, late, atol=1e-6):
        return "the ReLU comes after the pooling: it then sees one mean a channel, and not the places that stand out"
    return None if count == right else f"it should have {right} parameters for 2 channels and 3 classes, yours {count}"


_SIZE_FREE = """
class SizeFree(torch.nn.Module):
    def __init__(self, channels, n_classes):
        super().__init__()
        self.stack = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 8, 3),
            {relu}torch.nn.AdaptiveAvgPool2d(1),
            {late}torch.nn.Flatten(),
            torch.nn.Linear(8, n_classes),{softmax}
        )

    def forward(self, images):
        return self.stack(images)
"""
_RELU = "torch.nn.ReLU(),\n            "

q5 = Exercise(
    name="q5",
    answer="SizeFree",
    test=_test_size_free,
    right="a network for images of any size, and you can say what each layer is for",
    hints=(
        "Five layers in a row: convolution, ReLU, adaptive pooling, flatten, linear. nn.Sequential holds them.",
        "AdaptiveAvgPool2d(1) leaves one number for each of the 8 feature channels, whatever the size.",
        "In __init__: self.stack = torch.nn.Sequential(Conv2d(channels, 8, 3), …); forward returns self.stack(images).",
    ),
    solution_code=_SIZE_FREE.format(relu=_RELU, late="", softmax=""),
    why="only the linear layer needs a fixed number of inputs, and adaptive pooling gives it 8.",
    misconceptions={
        "flattened at one size": Misconception(
            "class SizeFree(torch.nn.Module):\n"
            "    def __init__(self, channels, n_classes):\n"
            "        super().__init__()\n"
            "        self.stack = torch.nn.Sequential(torch.nn.Conv2d(channels, 8, 3), torch.nn.ReLU(),\n"
            "            torch.nn.Flatten(), torch.nn.Linear(8 * 10 * 18, n_classes))\n"
            "    def forward(self, images):\n"
            "        return self.stack(images)",
            "images of another size do not pass",
        ),
        "layers in a list": Misconception(
            "class SizeFree(torch.nn.Module):\n"
            "    def __init__(self, channels, n_classes):\n"
            "        super().__init__()\n"
            "        self.layers = [torch.nn.Conv2d(channels, 8, 3), torch.nn.ReLU(),\n"
            "            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, n_classes)]\n"
            "    def forward(self, images):\n"
            "        for layer in self.layers:\n"
            "            images = layer(images)\n"
            "        return images",
            "PyTorch sees no parameters",
        ),
        "softmax at the end": Misconception(
            _SIZE_FREE.format(relu=_RELU, late="", softmax=" torch.nn.Softmax(dim=1)"), "you end in a softmax"
        ),
        "no ReLU": Misconception(_SIZE_FREE.format(relu="", late="", softmax=""), "there is no non-linearity"),
        "ReLU too late": Misconception(
            _SIZE_FREE.format(relu="", late=_RELU, softmax=""), "the ReLU comes after the pooling"
        ),
    },
)
