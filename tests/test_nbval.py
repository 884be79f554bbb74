"""Is ``pytest --nbval`` to be trusted? A right notebook passes; each way of being wrong fails, named by its cell."""

import base64
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image, ImageChops, PngImagePlugin

ROOT = Path(__file__).parent.parent
DRAW = "fig, ax = plt.subplots(figsize=(3, 2)); ax.bar(range(3), [1, 2, 3]); plt.show()"
SHOW_HTML = """buffer = io.BytesIO()
fig, ax = plt.subplots(figsize=(3, 2)); ax.bar(range(3), [3, 1, 2]); fig.savefig(buffer, format="png"); plt.close()
display(HTML(f'<img alt="Bars" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'))"""

RIGHT = {
    "imports": """import base64, io, subprocess, sys, time
import ipywidgets, matplotlib.pyplot as plt
from IPython.display import HTML, clear_output, display
from tqdm.auto import tqdm""",
    "prints": "print(6 * 7)",
    "value": "6 * 7",
    "silenced value": "6 * 7;",
    "cleared output": "print('thrown away'); clear_output(wait=True); print('kept')",
    "updated display": "handle = display('thrown away', display_id=True); handle.update('kept')",
    "captured by a widget": "out = ipywidgets.Output()\nwith out:\n    print('seen in the widget only')",
    "a widget": "ipywidgets.IntSlider(value=3)",
    "a progress bar": "for _ in tqdm(range(3)): print('step')",
    # ipykernel reads what a subprocess prints in a thread of its own, which a busy machine may wake late
    "a subprocess": "_ = subprocess.run([sys.executable, '-c', 'print(1 + 1)'])\ntime.sleep(1)",
    "a time": "print(f'took {time.perf_counter():.2f} s')",
    "an address": "print(object())",
    "draws": DRAW,
    "draws, by another matplotlib": DRAW,
    "draws for readers": SHOW_HTML,
    "nothing": "",
    "raises": "1 / 0",
    "ignored": "time.perf_counter()",
}
TAGS = {"raises": ["raises-exception"], "ignored": ["nbval-ignore-output"]}


def edit_png(png, *, software=None, mirror=False, shift=0):
    """A picture redrawn as its mirror image, shifted by some pixels, or signed by another program."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", software or image.info["Software"])
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else ImageChops.offset(image, shift)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return base64.b64encode(buffer.getvalue()).decode()


def picture(cell, **change):
    """Put another picture into a cell's stored output."""
    for output in cell.outputs:
        if "image/png" in output.data:
            output.data["image/png"] = edit_png(output.data["image/png"], **change)
        else:
            html, old = output.data["text/html"], re.search(r"base64,([^\"]+)", output.data["text/html"])[1]
            output.data["text/html"] = html.replace(old, edit_png(old, **change))


def stored_text(cell, old, new):
    """Edit what a cell printed."""
    assert old in cell.outputs[0].text
    cell.outputs[0].text = cell.outputs[0].text.replace(old, new)


def stripped(cell):
    cell.outputs, cell.execution_count = [], None


# Each wrong cell: the right cell it is made from, and what is done to it after it was run.
WRONG = {
    "changed number": ("prints", lambda c: stored_text(c, "42", "43")),
    "changed value": ("value", lambda c: c.outputs[0].data.update({"text/plain": "43"})),
    "never run": ("imports", stripped),
    "stripped": ("prints", stripped),
    "output deleted": ("prints", lambda c: c.outputs.clear()),
    "replaced picture": ("draws", lambda c: picture(c, mirror=True)),
    "shifted picture": ("draws", lambda c: picture(c, shift=1)),
    "redrawn picture": ("draws", lambda c: c.update(source=DRAW.replace("[1, 2, 3]", "[1, 2, 2.8]"))),
    "deleted picture": ("draws", lambda c: c.outputs.clear()),
    "picture without its pixels": ("draws", lambda c: c.outputs[0].data.pop("image/png")),
    "broken picture": ("draws", lambda c: c.outputs[0].data.update({"image/png": "iVBORw0KGgo="})),
    "replaced picture, by another matplotlib": ("draws", lambda c: picture(c, mirror=True, software="other")),
    "replaced picture for readers": ("draws for readers", lambda c: picture(c, mirror=True)),
    "changed alt text": ("draws for readers", lambda c: c.update(source=c.source.replace("Bars", "Boxes"))),
    "does not raise": ("prints", lambda c: c.metadata.update(tags=["raises-exception"])),
    "raises no longer": ("raises", lambda c: c.update(source="1 / 1")),
    "raises something else": ("raises", lambda c: c.update(source="[][0]")),
    "raises untagged": ("raises", lambda c: c.metadata.update(tags=[])),
    "cleared output is back": ("cleared output", lambda c: stored_text(c, "kept", "thrown away")),
    "display not updated": ("updated display", lambda c: c.outputs[0].data.update({"text/plain": "'thrown away'"})),
    "widget deleted": ("a widget", lambda c: c.outputs.clear()),
    "subprocess silent": ("a subprocess", lambda c: c.outputs.clear()),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """How each cell of a right and a wrong notebook fares under the project's own settings."""
    project = tmp_path_factory.mktemp("project")
    (project / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", project)
    for name in ("conftest.py", "sanitize.cfg"):
        shutil.copy(ROOT / "notebooks" / name, project / "notebooks")

    by_name = {name: new_code_cell(source, metadata={"tags": TAGS.get(name, [])}) for name, source in RIGHT.items()}
    # nbclient answers Output widgets on the socket where it waits for replies, and then misses about one in forty. So
    # that cell is not run by it; JupyterLab stores no output there, for the widget is not displayed.
    by_name["captured by a widget"].execution_count = 1
    run = new_notebook(cells=[cell for name, cell in by_name.items() if name != "captured by a widget"])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_CURRENT_TEST")  # ipykernel takes it for a reason not to capture subprocesses
        NotebookClient(run, record_timing=False, timeout=120).execute(stderr=subprocess.DEVNULL)
    right = new_notebook(cells=list(by_name.values()))
    wrong = new_notebook(cells=[by_name["imports"]])
    for number, (source, spoil) in enumerate(WRONG.values()):
        wrong.cells.append(nbformat.from_dict({**by_name[source], "id": f"wrong-{number}"}))
        spoil(wrong.cells[-1])
    # what another version of a library would have stored
    picture(by_name["draws, by another matplotlib"], software="Matplotlib version3.0.0, elsewhere", shift=1)
    del by_name["a progress bar"].outputs[0]  # the builder stores no bars
    by_name["a widget"].outputs[0].data["text/plain"] = "IntSlider(value=3, as=printed, by=another, version=7)"
    nbformat.write(right, project / "notebooks" / "right.ipynb")
    nbformat.write(wrong, project / "notebooks" / "wrong.ipynb")

    command = [sys.executable, "-m", "pytest", "--nbval", "-rA", "--tb=short", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=project / "notebooks", capture_output=True, text=True)
    fates = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) \S*(right|wrong)\.ipynb::Cell (\d+)", done.stdout, re.MULTILINE)
    return {(notebook, int(number)): fate for fate, notebook, number in fates}, done.stdout


@pytest.mark.parametrize(("number", "name"), list(enumerate(RIGHT)), ids=list(RIGHT))
def test_what_jupyterlab_shows_passes(report, number, name):
    fates, output = report
    assert fates["right", number] == "PASSED", output


@pytest.mark.parametrize(("number", "name"), list(enumerate(WRONG, 1)), ids=list(WRONG))
def test_what_is_wrong_fails(report, number, name):
    fates, output = report
    assert fates["wrong", number] == "FAILED", output


def test_a_failure_says_what_to_do(report):
    assert "python notebooks/src/build.py" in report[1]
    assert re.search(r"picture 0 differs \(RMS \d+\.\d of 255, limit 2\.0\)", report[1])
