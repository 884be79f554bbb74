import re

from IPython.utils.capture import capture_output

from bpsutils import widgets


def test_the_timeline_says_how_long_the_gpu_waits(shell):
    with capture_output() as captured:
        control = widgets.worker_timeline()
        for workers in (1, 3, 8):
            control.value = workers
    said = [re.search(r"<p>(.*)</p>", output["data"]["text/html"])[1] for output in captured._outputs[1:]]
    assert said == [
        "With no worker, the first batch is there after 30 ms and 12 batches take 480 ms: "
        "the GPU works for 120 ms and waits for 360 ms.",
        "With 1 worker, the first batch is there after 30 ms and 12 batches take 370 ms: "
        "the GPU works for 120 ms and waits for 250 ms.",
        "With 3 workers, the first batch is there after 30 ms and 12 batches take 150 ms: "
        "the GPU works for 120 ms and waits for 30 ms.",
        "With 8 workers, the first batch is there after 60 ms and 12 batches take 180 ms: "
        "the GPU works for 120 ms and waits for 60 ms.",
    ]
