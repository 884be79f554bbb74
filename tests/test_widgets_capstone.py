import re

from IPython.utils.capture import capture_output

from bpsutils import widgets


def test_unfreezing_counts_the_weights_that_are_trained(shell):
    with capture_output() as captured:
        control = widgets.unfreezing({"_stem": 60, "_blocks.0": 300, "_head": 40}, images=20)
        control.value = 2
    pages = [output["data"]["text/html"] for output in captured._outputs[1:]]
    sentences = [re.search(r"<p>(.*)</p>", page)[1] for page in pages]
    assert sentences == [
        "Trained: 1 of 3 parts, the head alone. These are 40 of 400 weights (10.0%), 2 for each of the 20 training "
        "images.",
        "Trained: 2 of 3 parts, from blocks.0 to the head. These are 340 of 400 weights (85.0%), 17 for each of the 20 "
        "training images.",
    ]
    assert pages[0] != pages[1]
    assert (control.min, control.max) == (1, 3)
