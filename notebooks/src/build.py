"""Make the notebooks from their sources: ``python notebooks/src/build.py [NAMES] [--check]``.

``notebooks/src/NN_topic.py`` (py:percent) becomes ``notebooks/NN_topic.ipynb``, run from top to bottom, outputs stored.
The same source gives the same bytes: cell ids come from the text, what a clock or a random id wrote is evened out, and
a cell tagged ``nbval-ignore-output`` keeps its stored output while the code up to it and the package are as they were.
``--check`` runs nothing and says which notebooks do not match their source.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

SOURCES = Path(__file__).resolve().parent
NOTEBOOKS = SOURCES.parent
ROOT = NOTEBOOKS.parent
sys.path.insert(0, str(ROOT))

from bpsutils.badges import point_at  # noqa: E402 - works without the package being installed, too

LIMIT = 1_000_000  # bytes; beyond it GitHub stops rendering notebooks well
# As in notebooks/conftest.py: one thread and no GPU give the same digits, and a progress bar is a clock.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
    "colab": {"provenance": []},
}
IGNORED = "nbval-ignore-output"
WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d+%\|.*\|")  # a progress bar: in a stored notebook it would stand at 0 % for ever


def read_source(path: Path) -> Any:
    """The notebook that ``path`` describes, not yet run."""
    notebook = jupytext.read(path, fmt="py:percent")
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        # A fork's badges and setup cells name another repository; that is no reason for other ids.
        text = cell.cell_type + point_at(cell.source, "OWNER", "REPO", "main")
        seen[text] = seen.get(text, 0) + 1
        cell["id"] = _digest(f"{text}{seen[text]}")[:8]
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def build(source: Path) -> str:
    """Run one source and write its notebook; returns what was done.

    Raises:
        CellExecutionError: If a cell fails. The stored notebook stays as it was.
        ValueError: If the notebook would be too large.
    """
    target = NOTEBOOKS / f"{source.stem}.ipynb"
    notebook = read_source(source)
    client = NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": NOTEBOOKS}})
    # the kernel's stderr is its own log; what cells write to stderr is stored
    client.execute(env={**os.environ, **ENVIRONMENT}, stderr=subprocess.DEVNULL)
    notebook.metadata = nbformat.from_dict(METADATA)  # without saved widget state, which nothing can show
    _tidy(notebook)
    _keep_ignored_outputs(notebook, target)
    text = nbformat.writes(notebook) + "\n"
    if len(text) > LIMIT:
        raise ValueError(f"{target.name} would have {len(text) / 1e6:.2f} MB, the limit is {LIMIT / 1e6:.0f} MB")
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return "unchanged"
    part = target.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(target)
    return f"written, {len(text) / 1000:.0f} kB"


def check(source: Path) -> str | None:
    """How the stored notebook differs from its source; None if it does not."""
    target = NOTEBOOKS / f"{source.stem}.ipynb"
    if not source.exists():
        return f"has no source {source.name}"
    if not target.exists():
        return "was never built"
    stored, fresh = nbformat.read(target, as_version=4), read_source(source)
    if len(stored.cells) != len(fresh.cells):
        return f"has {len(stored.cells)} cells, its source has {len(fresh.cells)}"
    for number, (old, new) in enumerate(zip(stored.cells, fresh.cells, strict=True)):
        if _without_outputs(old) != _without_outputs(new):
            return f"differs from its source in cell {number} ({new.source[:40]!r})"
    return None if stored.metadata == fresh.metadata else "has other metadata than its source"


def _without_outputs(cell: Any) -> tuple[Any, ...]:
    """What a source says about a cell."""
    return cell.cell_type, cell.id, cell.source, cell.metadata.get("tags", [])


def _tidy(notebook: Any) -> None:
    """Even out what differs from run to run and says nothing."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = _joined([output for output in cell.outputs if not _is_bar(output)])
        for number, output in enumerate(cell.outputs):
            if WIDGET in output.get("data", {}):
                output.data[WIDGET]["model_id"] = _digest(f"{cell.id}{number}")[:32]
            if output.output_type == "error":
                output.traceback = [_without_folders(line) for line in output.traceback]
            if output.output_type == "stream":
                output.text = _without_folders(output.text)


def _joined(outputs: list[Any]) -> list[Any]:
    """Printed text in one piece: a kernel sends it in as many as its clock makes of it."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _is_bar(output: Any) -> bool:
    data = output.get("data", {})
    return WIDGET in data and BAR.search(data.get("text/plain", "")) is not None


def _without_folders(text: str) -> str:
    """Text without the folders of the machine that made it."""
    text = text.replace(f"{ROOT}/", "").replace(str(ROOT), ".")
    text = re.sub(r"(?<!\S)\S*/ipykernel_\d+/\d+\.py", "cell.py", text)
    return re.sub(r"(?<![^\s\"'])[^\s\"']*/(?:site-packages|lib/python3\.\d+)/", "", text)


def _keep_ignored_outputs(notebook: Any, target: Path) -> None:
    """Put back stored outputs that nobody compares, if what made them has not changed."""
    old = nbformat.read(target, as_version=4).cells if target.exists() else []
    stored = {cell.id: cell for cell in old}
    made_from = _package_digest()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        made_from = _digest(made_from + cell.source)
        if IGNORED in cell.metadata.get("tags", []):
            cell.metadata["made_from"] = made_from[:16]
            if cell.id in stored and stored[cell.id].metadata.get("made_from") == made_from[:16]:
                cell.outputs = stored[cell.id].outputs


def _package_digest() -> str:
    """Digest of every module of the package."""
    paths = sorted((ROOT / "bpsutils").rglob("*.py"))
    return _digest("".join(path.relative_to(ROOT).as_posix() + path.read_text(encoding="utf-8") for path in paths))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main(argv: Sequence[str]) -> int:
    """Build or check the named notebooks (default: all); 1 if one is not as it should be."""
    parser = argparse.ArgumentParser(description="Make the notebooks from their sources.")
    parser.add_argument("names", nargs="*", help="such as 00_start_here; default: all")
    parser.add_argument("--check", action="store_true", help="only compare, run nothing")
    args = parser.parse_args(argv)
    known = {path.stem for path in [*SOURCES.glob("[0-9]*.py"), *NOTEBOOKS.glob("*.ipynb")]}
    names = sorted({Path(name).stem for name in args.names} or known)
    bad = 0
    for name in names:
        try:
            said = check(SOURCES / f"{name}.py") if args.check else build(SOURCES / f"{name}.py")
            bad += args.check and said is not None
        except (CellExecutionError, ValueError, OSError) as error:
            said, bad = f"not built. {error}", bad + 1
        print(f"{name}: {said or 'matches its source'}", flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
