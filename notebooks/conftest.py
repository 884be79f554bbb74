"""Make ``pytest --nbval`` strict and right: see a cell as JupyterLab and Colab show it, and let no wrong notebook pass.

nbval 0.11, as it comes, fails correct notebooks: it ignores a trailing ``;`` (1), counts what an Output widget captured
as output of the cell (2), ignores ``clear_output`` (3) and display updates (4), loses what subprocesses print (5) and
compares how a widget prints itself, which ipywidgets 7 and 8 do differently (6). And it passes wrong ones: pictures are
not compared (7), nor cells that were never run (8), and ``raises-exception`` does not demand an exception (9). The
numbers stand where each is mended. This reaches into nbval, so requirements.txt pins its version exactly.
"""

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile
from PIL import Image

# As in src/build.py: one thread and no GPU give the same digits, and a progress bar is a clock.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
HINT = "If the new output is the right one: python notebooks/src/build.py, and look at the difference."
WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d+%\|.*\|")
IMG = re.compile(r'<img\b[^>]*?src="data:image/png;base64,([A-Za-z0-9+/=\s]+)"')
SAME_MATPLOTLIB, OTHER_MATPLOTLIB = 2.0, 15.0  # allowed difference (RMS of 255): exact, or of 48 x 48 thumbnails

collect_ignore_glob = ["src", "src/*"]  # the sources are notebooks, not modules to import

nbval = {name: getattr(IPyNbFile, name) for name in ("setup", "get_kernel_message")} | {
    name: getattr(IPyNbCell, name) for name in ("runtest", "compare_outputs")
}


def pytest_configure(config):
    """``pytest --nbval`` needs no further options, from any folder."""
    option = config.option
    if getattr(option, "nbval", False) or getattr(option, "nbval_lax", False):  # not there with -p no:nbval
        option.nbval_sanitize_with = option.nbval_sanitize_with or str(Path(__file__).with_name("sanitize.cfg"))
        option.nbval_current_env = not option.nbval_kernel_name  # this Python, whatever kernel is called "python3"
        option.nbval_cell_timeout = min(option.nbval_cell_timeout, 120.0)  # a dead kernel is noticed only after it
        if getattr(option, "dist", "no") == "load":
            option.dist = "loadfile"  # pytest-xdist: all cells of a notebook need one kernel


def setup(file):
    """Start the kernel of a notebook."""
    file.output_widgets, file.capturing, file.displays = set(), [], {}
    file.clear_pending, file.item = False, None
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)  # (5) ipykernel takes it for a reason not to capture
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        nbval["setup"](file)


def execute_cell_input(kernel, cell_input, allow_stdin=None):
    """(1) A trailing ``;`` is honoured only in cells that enter the history."""
    return kernel.kc.execute(cell_input, store_history=True, allow_stdin=False, stop_on_error=False)


def get_kernel_message(file, timeout=None, stream="iopub"):
    """The next message that adds something to the cell's output, or is no output."""
    while True:
        message = nbval["get_kernel_message"](file, timeout=timeout, stream=stream)
        kind, content = message["msg_type"], message["content"]
        if kind in ("comm_open", "comm_msg"):
            follow_output_widgets(file, kind, content)
        elif kind not in ("stream", "display_data", "execute_result", "clear_output", "update_display_data"):
            pass
        elif file.capturing or not adds_output(file, kind, content):
            continue  # errors come by another kind: a widget does not swallow them
        return message


def follow_output_widgets(file, kind, content):
    """(2) Between two messages that set and unset its ``msg_id``, an Output widget takes what is printed."""
    state = content["data"].get("state", {})
    if kind == "comm_open" and state.get("_model_name") == "OutputModel":
        file.output_widgets.add(content["comm_id"])
    elif kind == "comm_msg" and content["comm_id"] in file.output_widgets and "msg_id" in state:
        if state["msg_id"]:
            file.capturing.append(content["comm_id"])
        elif content["comm_id"] in file.capturing:
            file.capturing.remove(content["comm_id"])


def adds_output(file, kind, content):
    """Apply what changes earlier output; whether the message is new output."""
    outputs = file.item.test_outputs
    display_id = content.get("transient", {}).get("display_id")
    if kind == "update_display_data":  # (4) of displays in the same cell
        for index in file.displays.get(display_id, []):
            outputs[index]["data"] = nbformat.from_dict(content["data"])
        return False
    if kind == "clear_output" and content.get("wait"):  # (3)
        file.clear_pending = True
        return False
    if kind == "clear_output" or file.clear_pending:
        outputs.clear()
        file.displays.clear()
        file.clear_pending = False
    if display_id is not None:
        file.displays.setdefault(display_id, []).append(len(outputs))
    return kind != "clear_output"


def runtest(cell):
    """Run a cell that was run before it was saved."""
    if not cell.options["skip"] and cell.cell.source.strip():
        if cell.cell.execution_count is None:  # (8)
            cell.raise_cell_error(f"This cell was never run before the notebook was saved. {HINT}")
        if cell.options["check_exception"] and not any(o.output_type == "error" for o in cell.cell.outputs):  # (9)
            cell.raise_cell_error(f"Tagged raises-exception, but no exception is stored. {HINT}")
    file = cell.parent
    file.item, file.clear_pending = cell, False
    file.capturing.clear()
    file.displays.clear()
    nbval["runtest"](cell)


def compare_outputs(cell, new, stored, skip_compare=None):
    """nbval's comparison, then that of pictures."""
    new, stored = without_widget_text(new), without_widget_text(stored)
    if not nbval["compare_outputs"](cell, new, stored, skip_compare):
        return False
    pairs = pngs(stored), pngs(new)
    if len(pairs[0]) != len(pairs[1]):
        cell.comparison_traceback.append(f"{len(pairs[0])} pictures stored, {len(pairs[1])} drawn now. {HINT}")
        return False
    problems = [picture_problem(cell, number, *pair) for number, pair in enumerate(zip(*pairs, strict=True))]
    cell.comparison_traceback += filter(None, problems)
    return not any(problems)


def without_widget_text(outputs):
    """(6) Copies in which each widget prints itself as "a widget", and progress bars are gone."""
    kept = []
    for output in outputs:
        data = output.get("data", {})
        if WIDGET not in data:
            kept.append(output)
        elif not BAR.search(data.get("text/plain", "")):
            data = {WIDGET: data[WIDGET], "text/plain": "a widget"}
            kept.append(nbformat.from_dict({"output_type": output["output_type"], "data": data}))
    return kept


def pngs(outputs):
    """(7) Pictures of a cell in base64, as ``image/png`` or in an ``<img>``, the one form whose alt text is kept."""
    found = []
    for data in (output.get("data", {}) for output in outputs):
        found += [data["image/png"]] if "image/png" in data else IMG.findall(data.get("text/html", ""))
    return found


def picture_problem(cell, number, stored, new):
    """What is wrong with the new picture, which is then left in ``.nbval-pictures``; None if nothing."""
    try:
        difference, limit = picture_difference(stored, new)
    except (OSError, ValueError) as error:
        return f"picture {number} cannot be read: {error}"
    if difference <= limit:
        return None
    folder = Path(cell.config.rootpath) / ".nbval-pictures"
    folder.mkdir(exist_ok=True)
    stem = f"{cell.path.stem}-cell{cell.cell_num}-{number}"
    for kind, png in (("stored", stored), ("new", new)):
        (folder / f"{stem}-{kind}.png").write_bytes(base64.b64decode(png))
    return (
        f"picture {number} differs (RMS {difference:.1f} of 255, limit {limit}), see {folder.name}/{stem}-*.png. {HINT}"
    )


def picture_difference(stored, new):
    """Root mean square difference (0 to 255) and its limit. Another matplotlib draws letters differently."""
    (a, version_a), (b, version_b) = open_png(stored), open_png(new)
    limit = SAME_MATPLOTLIB
    if version_a != version_b:
        a, b, limit = (
            a.resize((48, 48), Image.Resampling.BOX),
            b.resize((48, 48), Image.Resampling.BOX),
            OTHER_MATPLOTLIB,
        )
    if a.size != b.size:
        return float("inf"), limit
    return float(np.sqrt(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))), limit


def open_png(png):
    """A picture on white, and the version of matplotlib that drew it."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB"), image.info.get("Software", "").partition(",")[0]


IPyNbFile.setup = setup
IPyNbFile.get_kernel_message = get_kernel_message
IPyNbCell.runtest = runtest
IPyNbCell.compare_outputs = compare_outputs
RunningKernel.execute_cell_input = execute_cell_input
