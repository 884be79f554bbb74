import pytest
from looking import parts, shown

from bpsutils import widgets

pytestmark = pytest.mark.usefixtures("shell")


def test_faster_loading_is_said_in_milliseconds_and_times():
    with shown(widgets.amdahl) as (control, outputs):
        control.value = 3
        control.value = 100
    assert [parts(output)[1] for output in outputs[1:]] == [
        "A batch loads in 30.0 ms and trains in 10 ms: the epoch is 1.00 times faster than at first, and at most 4 "
        "times if loading took no time. Loading is now 75% of a step.",
        "A batch loads in 10.0 ms and trains in 10 ms: the epoch is 2.00 times faster than at first, and at most 4 "
        "times if loading took no time. Loading is now 50% of a step.",
        "A batch loads in 0.3 ms and trains in 10 ms: the epoch is 3.88 times faster than at first, and at most 4 "
        "times if loading took no time. Loading is now 3% of a step.",
    ]
    assert len({parts(output)[0] for output in outputs[1:]}) == 3
