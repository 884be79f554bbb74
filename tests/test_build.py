import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = """# %% [markdown]
# # A title
#
# [![Open In Colab](https://x/y.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/00_a.ipynb)

# %%
import random, time
print("twice")

# %% tags=["nbval-ignore-output"]
print(random.random(), time.time())

# %% [markdown] tags=["instructor"]
# *Say* nothing.

# %%
print("twice")

# %%
print("in", end=" ", flush=True)
time.sleep(0.3)
print("two pieces")
"""


@pytest.fixture
def project(tmp_path):
    """A project with an empty package, a builder and a source."""
    (tmp_path / "notebooks" / "src").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/src/build.py", tmp_path / "notebooks/src")
    (tmp_path / "notebooks/src/00_a.py").write_text(SOURCE)
    (tmp_path / "bpsutils").mkdir()
    (tmp_path / "bpsutils" / "__init__.py").write_text("")
    return tmp_path


@pytest.fixture
def build(project, capsys, monkeypatch):
    """The project's builder: exit code and printed text for its arguments."""
    spec = importlib.util.spec_from_file_location("build", project / "notebooks/src/build.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", sys.path[:])
    spec.loader.exec_module(module)

    def run(*arguments):
        status = module.main(arguments)
        return status, capsys.readouterr().out

    return run


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def ignored_output(project):
    cells = json.loads((project / "notebooks/00_a.ipynb").read_text())["cells"]
    return cells[2]["outputs"][0]["text"]


def test_a_second_build_changes_no_byte_and_a_changed_word_changes_its_cell_only(project, build):
    notebook, source = project / "notebooks/00_a.ipynb", project / "notebooks/src/00_a.py"
    assert build("00_a")[0] == 0
    first = notebook.read_text()
    assert build() == (0, "00_a: unchanged\n")
    assert notebook.read_text() == first
    edit(source, "A title", "Another title")
    assert build()[1].startswith("00_a: written")
    pairs = zip(first.splitlines(), notebook.read_text().splitlines(), strict=True)
    changed = [new.strip() for old, new in pairs if old != new]
    assert len(changed) == 2  # the cell's id and the line with the word
    assert changed[0].startswith('"id"')
    assert "Another title" in changed[1]
    assert "/" + project.name not in notebook.read_text()


def test_an_ignored_output_is_kept_until_its_code_or_the_package_changes(project, build):
    build()
    kept = ignored_output(project)
    edit(project / "notebooks/src/00_a.py", "*Say* nothing.", "*Say* something.")
    build()
    assert ignored_output(project) == kept
    edit(project / "notebooks/src/00_a.py", 'print("twice")', 'print("once")')  # before it
    build()
    after_code = ignored_output(project)
    assert after_code != kept
    edit(project / "bpsutils/__init__.py", "", "changed = True\n")
    build()
    assert ignored_output(project) != after_code


def test_check_names_what_does_not_match(project, build):
    source, notebook = project / "notebooks/src/00_a.py", project / "notebooks/00_a.ipynb"
    assert build("--check") == (1, "00_a: was never built\n")
    build()
    assert build("--check") == (0, "00_a: matches its source\n")
    built = source.read_text(), notebook.read_text()
    edit(source, "A title", "Another title")
    status, printed = build("--check")
    assert status == 1
    assert "differs from its source in cell 0 ('# Another title" in printed
    source.write_text(built[0])
    edit(source, '["instructor"]', '["raises-exception"]')
    assert "differs from its source in cell 3" in build("--check")[1]
    source.write_text(built[0] + "\n# %%\nprint(1)\n")
    assert "has 6 cells, its source has 7" in build("--check")[1]
    source.write_text(built[0])
    edit(notebook, '"name": "python"', '"name": "julia"')
    assert "has other metadata" in build("--check")[1]
    source.unlink()
    assert build("--check") == (1, "00_a: has no source 00_a.py\n")


def test_a_fork_keeps_its_cell_ids(project, build):
    build()
    ids = [cell["id"] for cell in json.loads((project / "notebooks/00_a.ipynb").read_text())["cells"]]
    edit(project / "notebooks/src/00_a.py", "OWNER/REPO/blob/main", "ada/cells/blob/dev")
    build()
    assert ids == [cell["id"] for cell in json.loads((project / "notebooks/00_a.ipynb").read_text())["cells"]]


@pytest.mark.parametrize(
    ("code", "says"),
    [("1 / 0", "ZeroDivisionError"), ("print('x' * 2_000_000)", "would have 2.00 MB, the limit is 1 MB")],
)
def test_a_failing_or_huge_notebook_is_not_written(project, build, code, says):
    edit(project / "notebooks/src/00_a.py", 'print("twice")', code)
    status, printed = build()
    assert status == 1
    assert says in printed
    assert [path.name for path in (project / "notebooks").iterdir()] == ["src"]


def test_an_unknown_name_is_an_error(project, build):
    status, printed = build("07_missing")
    assert status == 1
    assert "07_missing" in printed


def test_no_clock_random_id_or_folder_is_stored(project, build):
    code = """
import sys, warnings, ipywidgets, tqdm, tqdm.auto
from pathlib import Path
warnings.warn("careful")
print(Path.cwd())
for _ in tqdm.tqdm(range(3)): pass
for _ in tqdm.auto.tqdm(range(3)): pass
ipywidgets.IntSlider()"""
    edit(project / "notebooks/src/00_a.py", 'import random, time\nprint("twice")', "import random, time" + code)
    edit(
        project / "notebooks/src/00_a.py",
        '# %%\nprint("twice")',
        '# %% tags=["raises-exception"]\nimport json; json.loads("{")',
    )
    build()
    first = (project / "notebooks/00_a.ipynb").read_text()
    assert build() == (0, "00_a: unchanged\n")
    assert str(project) not in first
    assert "it/s" not in first
    assert "IntSlider" in first
    assert sys.prefix not in first
    assert "JSONDecodeError" in first
    assert '"widgets"' not in first


def test_text_that_comes_in_two_pieces_is_stored_as_one(project, build):
    assert build()[0] == 0
    last = json.loads((project / "notebooks/00_a.ipynb").read_text())["cells"][-1]
    assert [output["text"] for output in last["outputs"]] == [["in two pieces\n"]]
