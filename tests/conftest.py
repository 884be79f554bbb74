"""Settings that every test shares."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads add up in another order than one

import matplotlib
import pytest

matplotlib.use("Agg")


@pytest.fixture
def shell():
    """A notebook's shell without a notebook, so that `display` works and what it shows can be caught."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    InteractiveShell.clear_instance()
    yield InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    InteractiveShell.clear_instance()
