"""Is every point of the notes taught? ``syllabus.csv`` says in which cell, by words that stand in that cell alone.

The notes are numbered 000 to 004; "syllabus" marks what the course adds to them.
"""

from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
POINTS = pd.read_csv(Path(__file__).with_name("syllabus.csv"), dtype=str, keep_default_na=False)
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4).cells for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize(("notebook", "point", "phrase"), POINTS[["notebook", "point", "phrase"]].to_numpy())
def test_one_cell_teaches_it(notebook, point, phrase):
    assert len(phrase.split()) >= 2, "words that can stand in one cell only"
    cells = [" ".join(cell.source.split()) for cell in NOTEBOOKS[notebook]]
    found = [number for number, source in enumerate(cells) if phrase in source]
    assert len(found) == 1, f"{point}: {phrase!r} stands in cells {found} of {notebook}"


def test_every_note_is_taught_and_no_point_is_named_twice():
    assert set(POINTS["note"]) == {"000", "001", "002", "003", "004", "syllabus"}
    assert not POINTS.duplicated(["note", "point", "notebook"]).any()
    assert (POINTS["point"].str.len() > 3).all()


def test_every_notebook_teaches_some_of_them():
    assert set(NOTEBOOKS) == set(POINTS["notebook"])
