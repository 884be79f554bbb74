"""The figures that move, in JupyterLab and Chromium: does a student's keyboard and mouse change text and picture?

One notebook holds a cell for each figure, as the course calls them. Without Chromium these tests are skipped, except
where BROWSER_TESTS says that they must run, as it does in CI.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import ipywidgets
import nbformat
import pytest

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None and "BROWSER_TESTS" not in os.environ:
    pytest.skip("no Chromium on this machine: install it to run the browser tests", allow_module_level=True)
if int(ipywidgets.__version__.partition(".")[0]) < 8:
    pytest.skip(
        "JupyterLab 4 shows no widgets of ipywidgets 7, which Colab shows in its own way", allow_module_level=True
    )

from playwright.sync_api import expect, sync_playwright  # noqa: E402 - after the reason to skip

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
FAILED = "[data-mime-type='application/vnd.jupyter.stderr']"
IDLE = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
SETUP = """
import pandas as pd
from torch.utils.data import RandomSampler, SequentialSampler
from bpsutils import *
from bpsutils import plots, widgets
from bpsutils.leakage import NUMBERS_CSV, compare_splits
from bpsutils.predictions import load_predictions

table = load_table(Config())
dataset = ImageDataset(table)
sizes = dataset.sizes
image = dataset[0]["image"]
predictions = load_predictions().query("experiment == 'mouse' and seed == 0 and dose_Gy > 0")
batches = list(BucketSampler(sizes, 24, jitter=0))
samplers = {"sequential": SequentialSampler(range(24)), "random": RandomSampler(range(24))}
numbers = dict(list(pd.read_csv(NUMBERS_CSV).groupby("mouse_effect")))
scores = {effect: compare_splits(rows, splits=2, trees=2) for effect, rows in numbers.items()}
changes = {"mirror": HorizontalFlip(1), "noise": AddNoise(200)}
"""
# Each figure by the name of its function: how a cell of the course calls it.
FIGURES = {
    "threshold": "widgets.threshold(predictions[['label', 'score_X-ray', 'score_Fe']])",
    "windowing": "widgets.windowing(image[0].numpy())",
    "sample_viewer": "widgets.sample_viewer(dataset)",
    "worker_timeline": "widgets.worker_timeline()",
    "sampler_stream": "widgets.sampler_stream(samplers, [0, 0, 1] * 8)",
    "imbalance": "widgets.imbalance()",
    "leakage": "widgets.leakage(pd.concat(numbers.values()), scores)",
    "augmentation_playground": "widgets.augmentation_playground(image, changes)",
    "batch_viewer": "widgets.batch_viewer(dataset, batches)",
    "bucket_boundaries": "widgets.bucket_boundaries(sizes, 24)",
    "pooling": "widgets.pooling()",
    "learning_rate": "widgets.learning_rate()",
    "operating_point": "widgets.operating_point(predictions)",
    "amdahl": "widgets.amdahl()",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def gallery():
    """A notebook with one cell a figure."""
    cells = [nbformat.v4.new_code_cell(SETUP)]
    cells += [nbformat.v4.new_code_cell(f"control_{name} = {call}") for name, call in FIGURES.items()]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}  # else JupyterLab asks for one
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A running JupyterLab with the gallery in its folder: the address to open a notebook at."""
    work = tmp_path_factory.mktemp("lab")
    nbformat.write(gallery(), work / "gallery.ipynb")
    settings = work / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}  # no pop-up that asks for news hides a cell
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    port, token = free_port(), secrets.token_hex(16)
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = {**os.environ, **{name: str(work / folder) for name, folder in folders.items()}}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={work}", "--ServerApp.port_retries=0"]
    with (work / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", work / "server.log")
            yield f"http://127.0.0.1:{port}/lab/tree/gallery.ipynb?token={token}&reset"
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address, log, seconds=90):
    """Return as soon as the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5)
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def page(lab):
    """The gallery, opened and run from top to bottom."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        # tall enough for all cells: JupyterLab keeps only those in sight in the page
        page = browser.new_page(viewport={"width": 1200, "height": 700 * (len(FIGURES) + 1)})
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        page.wait_for_selector("text=/ipykernel.*Idle/", timeout=90_000)  # before that, what is run is lost
        page.click("div.lm-MenuBar-itemLabel:text-is('Run')")
        page.click("li[data-command='runmenu:run-all']")
        # done, or stopped at an error, which test_no_cell_fails then shows
        last = page.locator(".jp-Notebook .jp-CodeCell").last.locator(
            ".jp-InputPrompt", has_text=re.compile(r"\[\d+\]")
        )
        last.or_(page.locator(FAILED)).first.wait_for(timeout=120_000)
        page.wait_for_selector(IDLE, state="attached", timeout=120_000)
        yield page
        browser.close()


def cell(page, name):
    return page.locator(".jp-Notebook .jp-CodeCell").nth(1 + list(FIGURES).index(name))


def shown(figure):
    return figure.locator("img").get_attribute("src"), figure.locator(".jp-RenderedHTMLCommon p").inner_text()


def test_no_cell_fails(page):
    failed = page.locator(FAILED)
    assert failed.count() == 0, failed.first.inner_text()


@pytest.mark.parametrize("name", FIGURES)
def test_arrow_keys_change_text_and_picture(page, name):
    figure = cell(page, name)
    figure.scroll_into_view_if_needed()
    picture, text = shown(figure)
    handle = figure.locator(".noUi-handle")
    handle.focus()
    key = "ArrowLeft" if at_the_end(handle) else "ArrowRight"
    handle.press(key)
    expect(figure.locator("img")).not_to_have_attribute("src", picture, timeout=20_000)
    expect(figure.locator(".jp-RenderedHTMLCommon p")).not_to_have_text(text, timeout=20_000)
    assert figure.locator("img").count() == 1, "the picture is replaced, not added to"


def at_the_end(handle):
    return handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")


@pytest.mark.parametrize("name", FIGURES)
def test_dragging_with_the_mouse_changes_text_and_picture(page, name):
    figure = cell(page, name)
    figure.scroll_into_view_if_needed()
    picture, text = shown(figure)
    handle = figure.locator(".noUi-handle")
    grip, track = handle.bounding_box(), figure.locator(".noUi-target").bounding_box()
    start, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    middle = track["x"] + track["width"] / 2
    end = track["x"] + (0 if start > middle else track["width"])
    page.mouse.move(start, y)
    page.mouse.down()
    page.mouse.move(end, y, steps=8)
    page.mouse.up()
    expect(figure.locator("img")).not_to_have_attribute("src", picture, timeout=20_000)
    expect(figure.locator(".jp-RenderedHTMLCommon p")).not_to_have_text(text, timeout=20_000)


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_says_what_it_is(page, name):
    assert len(cell(page, name).locator("img").get_attribute("alt").split()) >= 4
