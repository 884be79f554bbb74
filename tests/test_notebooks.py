"""What nbval cannot see: is every stored notebook whole, clean, of one shape, and made from its source?"""

import base64
import importlib
import importlib.util
import itertools
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from bpsutils.exercises import Exercise

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(FOLDER.glob("*.ipynb"))}
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)

TAGS = {"instructor", "nbval-ignore-output", "raises-exception"}
IGNORED = "nbval-ignore-output"
SKIPS = ("NBVAL_SKIP", "NBVAL_IGNORE_OUTPUT", "NBVAL_RAISES_EXCEPTION", "PYTEST_VALIDATE_IGNORE_OUTPUT")
PERSONAL = re.compile(r"/(home|root|Users|content|work|tmp|var)/|[A-Z]:\\\\|file://")
IMG = re.compile(r'<img\b[^>]*\balt="([^"]*)"[^>]*base64,([A-Za-z0-9+/=]+)')


def code(name):
    return [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]


def text(name):
    return [cell.source for cell in NOTEBOOKS[name].cells if cell.cell_type == "markdown"]


def tags(cell):
    return set(cell.metadata.get("tags", []))


def lines(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


def words(markdown):
    """Words that a reader sees: no addresses, no markup."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"\[!\[.*?\)\]\(.*?\)", "", markdown))
    return re.findall(r"[\w'-]+", re.sub(r"<[^>]+>", " ", shown))


def pictures(cell):
    """Alternative text and PNG of each picture that a cell shows."""
    html = [output.data.get("text/html", "") for output in cell.outputs if "data" in output]
    return [picture for part in html for picture in IMG.findall(part)]


def module(name):
    """The exercises that belong to a notebook."""
    return importlib.import_module(f"bpsutils.exercises.{name[3:]}")


def test_there_are_notebooks_and_each_has_a_row_in_the_readme():
    assert "00_start_here" in NOTEBOOKS
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if "colab-badge.svg" in line]
    badges = [re.findall(r"\(([^()\s]+\.ipynb)\)", row) for row in rows]
    assert [Path(own).stem for own, _ in badges] == list(NOTEBOOKS)
    for own, colab in badges:
        assert re.fullmatch(rf"https://colab\.research\.google\.com/github/[^/]+/[^/]+/blob/\S+?/{own}", colab)


# ------------------------------------------------------------------------------------------------------- the file


@every_notebook
def test_it_matches_its_source(name):
    spec = importlib.util.spec_from_file_location("build", FOLDER / "src" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.check(FOLDER / "src" / f"{name}.py") is None


@every_notebook
def test_it_was_run_once_from_top_to_bottom(name):
    assert [cell.execution_count for cell in code(name)] == list(range(1, len(code(name)) + 1))
    assert all(cell.source.strip() for cell in code(name))


@every_notebook
def test_it_is_small_and_its_cells_have_ids_of_their_own(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_000_000
    ids = [cell.id for cell in NOTEBOOKS[name].cells]
    assert len(ids) == len(set(ids))
    assert "widgets" not in NOTEBOOKS[name].metadata


@every_notebook
def test_only_known_tags_and_no_cell_is_skipped_by_a_comment(name):
    for cell in NOTEBOOKS[name].cells:
        assert tags(cell) <= TAGS, cell.source
        assert not any(skip in cell.source for skip in SKIPS), cell.source


@every_notebook
def test_an_error_is_stored_where_one_is_announced_and_nowhere_else(name):
    for cell in code(name):
        stored = any(output.output_type == "error" for output in cell.outputs)
        assert stored == ("raises-exception" in tags(cell)), cell.source


@every_notebook
def test_no_output_holds_a_folder_of_some_machine(name):
    for cell in code(name):
        for output in cell.outputs:
            shown = re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", str(output))
            shown = re.sub(r"'image/png': '[^']*'", "", shown)
            assert not PERSONAL.search(shown), shown[:500]


@every_notebook
def test_few_outputs_are_ignored_and_a_compared_statement_follows(name):
    cells = NOTEBOOKS[name].cells
    ignored = [number for number, cell in enumerate(cells) if IGNORED in tags(cell)]
    assert len(ignored) <= 2
    for number in ignored:
        near = " ".join(cell.source for cell in cells[number - 1 : number + 2] if cell.cell_type == "markdown")
        assert "not compared" in " ".join(near.split()), "the text says why the output is not compared"
        following = next(cell for cell in cells[number + 1 :] if cell.cell_type == "code")
        assert IGNORED not in tags(following)
        assert following.outputs


@every_notebook
def test_links_lead_somewhere(name):
    glossary = (FOLDER / "GLOSSARY.md").read_text(encoding="utf-8")
    anchors = {
        heading.strip().lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", glossary, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", "\n".join(text(name))):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        assert not path or (FOLDER / path).exists(), target
        assert not anchor or anchor in anchors, target


# --------------------------------------------------------------------------------------------------- the glossary

TERMS = re.findall(
    r"^### (.+)\n\n(.+?) \((\d\d)\)$", (FOLDER / "GLOSSARY.md").read_text(encoding="utf-8"), re.MULTILINE
)


def anchor(term):
    return term.lower().replace(" ", "-")


def linked(name):
    """Anchors of the glossary in the order in which a notebook links to them."""
    return re.findall(r"\]\(GLOSSARY\.md#([^)]+)\)", "\n".join(text(name)))


def test_the_glossary_is_sorted_and_says_one_or_two_sentences_of_each_term():
    headings = re.findall(r"^### (.+)$", (FOLDER / "GLOSSARY.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [term for term, _, _ in TERMS], "a heading, a line, the number of a notebook"
    assert headings == sorted(headings, key=str.lower)
    assert len({anchor(term) for term in headings}) == len(headings)
    for term, meaning, _ in TERMS:
        assert 1 <= len(re.findall(r"[.?](?= |$)", meaning)) <= 3, term


@pytest.mark.parametrize(("term", "number"), [(term, number) for term, _, number in TERMS])
def test_a_term_is_linked_by_the_notebook_that_introduces_it_and_by_none_before(term, number):
    first = next((name for name in NOTEBOOKS if anchor(term) in linked(name)), None)
    assert first is not None, f"no notebook links to {term!r}"
    assert first[:2] == number


@every_notebook
def test_the_first_use_of_a_term_is_its_link(name):
    prose = "\n".join(cell for cell in text(name) if not cell.startswith("> *Show:*"))
    prose = re.sub(r"^#.*$|^\[!\[.*$|https?://\S+|`[^`\n]+`(?!\])", "", prose, flags=re.MULTILINE)
    for term, _, number in TERMS:
        if number == name[:2]:
            use = re.search(rf"(?<![\w`#/]){re.escape(term)}(?:s|es)?(?![\w`])", prose, re.IGNORECASE)
            link = prose.index(f"](GLOSSARY.md#{anchor(term)})")
            assert use is None or use.start() >= prose.rindex("[", 0, link), f"{term!r} is used before its link"


@every_notebook
def test_no_sentence_turns_into_a_list_where_its_line_is_broken(name):
    item = re.compile(r"\s*(\d+[.)]|[-+*]) ")
    for cell in text(name):
        rows = cell.splitlines()
        for before, row in itertools.pairwise(rows):
            broken = item.match(row) and before.strip() and not item.match(before) and not before.startswith("  ")
            assert not broken, f"{before}\n{row}"


# ------------------------------------------------------------------------------------------------------ the shape


@every_notebook
def test_it_opens_briefly_with_its_own_badge(name):
    before = []
    for cell in NOTEBOOKS[name].cells:
        if cell.cell_type == "code":
            break
        before.append(cell.source)
    opening = "\n".join(before)
    assert len(words(opening)) <= 120
    assert opening.startswith(f"# {name[:2]} · ")
    badge = rf"\(https://colab\.research\.google\.com/github/[^/]+/[^/]+/blob/\S+?/notebooks/{name}\.ipynb\)"
    assert len(re.findall(badge, opening)) == 1
    assert opening.count("colab.research.google.com/github/") == 1
    assert re.search(r"\*\*You need\*\*", opening)
    assert re.search(r"\*\*Time:?\*\*", opening)


@every_notebook
def test_it_has_the_length_and_the_rhythm_of_a_lesson(name):
    cells = NOTEBOOKS[name].cells
    assert 25 <= len(cells) <= 45
    sizes = [len(lines(cell)) for cell in code(name)[1:]]  # without the setup
    assert statistics.median(sizes) <= 5
    assert max(sizes) <= 15
    kinds = "".join("c" if cell.cell_type == "code" else "t" for cell in cells)
    assert "ccc" not in kinds, "three code cells in a row without a sentence"


@every_notebook
def test_code_is_not_cut_off_at_the_right(name):
    for cell in code(name):
        for line in lines(cell):
            assert len(line) <= 104, line


@every_notebook
def test_its_exercises_are_those_of_its_module(name):
    exercises = {key: value for key, value in vars(module(name)).items() if isinstance(value, Exercise)}
    source = "\n".join(cell.source for cell in code(name))
    checks = re.findall(r"^(q\d)\.check\((.*)\)$", source, re.MULTILINE)
    assert [key for key, _ in checks] == list(exercises)
    assert 3 <= len(checks) <= 5
    assert all(answer == exercises[key].answer for key, answer in checks)
    for cell in code(name):
        if ".check(" in cell.source:
            assert cell.outputs[-1].text.startswith("○ not attempted yet"), cell.source


@every_notebook
def test_it_shows_a_picture_with_alternative_text_and_a_figure_to_move(name):
    shown = [picture for cell in code(name) for picture in pictures(cell)]
    assert shown
    assert all(len(alt.split()) >= 4 for alt, _ in shown)
    assert all(base64.b64decode(png).startswith(b"\x89PNG") for _, png in shown)
    bare = [output for cell in code(name) for output in cell.outputs if "image/png" in output.get("data", {})]
    assert not bare, "show pictures by plots.show: image/png loses its alternative text"
    moving = [
        cell for cell in code(name) if any("widget-view" in str(output.get("data", {})) for output in cell.outputs)
    ]
    assert moving
    assert any(pictures(cell) for cell in moving), "a figure to move has a twin that stands still"


@every_notebook
def test_it_asks_for_a_prediction(name):
    assert "**Predict" in "\n".join(text(name))


@every_notebook
def test_instructors_are_told_what_to_show_what_to_say_and_how_long(name):
    cells = [cell for cell in NOTEBOOKS[name].cells if "instructor" in tags(cell)]
    assert cells
    for cell in cells:
        assert cell.cell_type == "markdown"
        assert all(part in cell.source for part in ("*Show:*", "*Say:*", "*Minutes:*")), cell.source
    assert sum(int(re.search(r"\*Minutes:\* (\d+)", cell.source)[1]) for cell in cells) <= 45


@every_notebook
def test_the_instructors_page_adds_up_its_minutes(name):
    page = (FOLDER / "INSTRUCTORS.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if f"({name}.ipynb)" in line)
    minutes = re.findall(r"\*Minutes:\* (\d+)", "\n".join(text(name)))
    exercises = [value for value in vars(module(name)).values() if isinstance(value, Exercise)]
    assert f"| {sum(map(int, minutes))} minutes | {len(exercises)} exercises" in row


@every_notebook
def test_it_closes_with_what_you_can_recall_and_next(name):
    closing = "\n".join(text(name)).partition("## You can now")[2]
    can, _, rest = closing.partition("## Recall")
    recall, _, following = rest.partition("## Next")
    assert can.count("\n- ") >= 3
    assert 3 <= recall.count("<details><summary>") <= 5
    assert recall.count("<details>") == recall.count("</details>")
    assert following.strip()
    names = list(NOTEBOOKS)
    later = names[names.index(name) + 1 :]
    assert not later or f"]({later[0]}.ipynb)" in following


# ------------------------------------------------------------------------------------------------- the setup cell


def test_the_setup_cell_is_the_same_everywhere():
    assert len({code(name)[0].source for name in NOTEBOOKS}) == 1


SETUP = code("00_start_here")[0].source
COLAB = """
import importlib.util, sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tomli_w" else find(name, *rest)
"""
REPORT = """
import os, bpsutils
print(os.path.relpath(os.getcwd(), start), os.path.relpath(bpsutils.__file__, start), len(sys.path) > 1)
"""


@pytest.fixture
def colab(tmp_path):
    """Runs code as in a fresh Colab machine: an empty folder, a remote to clone, a pip that only takes notes."""
    remote = tmp_path / "remote"
    for folder in ("bpsutils", "notebooks"):
        (remote / folder).mkdir(parents=True)
        (remote / folder / "__init__.py").write_text("cloned = True")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(remote)]
    branch = re.search(r"--branch (\S+) (https://\S+)", SETUP)
    for command in (["init", "-q", "-b", branch[1]], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").write_text("")
    (tmp_path / "pip" / "__main__.py").write_text(
        "import sys; open('pip.log', 'a').write(' '.join(sys.argv[1:]) + '\\n')"
    )
    machine = tmp_path / "content"
    machine.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{remote}.insteadOf",
        "GIT_CONFIG_VALUE_0": branch[2],
    }

    def run(*sources):
        source = "\n".join([f"start = {str(machine)!r}", *sources])
        command = [sys.executable, "-c", source]
        done = subprocess.run(command, cwd=machine, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    run.machine = machine
    return run


def test_in_colab_the_setup_cell_clones_and_adds_only_what_is_missing(colab):
    assert colab(COLAB, SETUP, REPORT) == ["Setup complete", "course/notebooks course/bpsutils/__init__.py True"]
    log = (colab.machine / "pip.log").read_text().splitlines()
    assert log == ["install --quiet --no-deps tomli_w"]


def test_in_colab_the_setup_cell_may_be_run_again_and_after_a_restart(colab):
    told = ["Setup complete", "Setup complete", "course/notebooks course/bpsutils/__init__.py True"]
    assert colab(COLAB, SETUP, SETUP, REPORT) == told
    (colab.machine / "course" / "mine.txt").write_text("kept")
    assert colab(COLAB, SETUP, REPORT) == told[1:]
    assert (colab.machine / "course" / "mine.txt").exists()


def test_elsewhere_the_setup_cell_fetches_nothing(colab):
    assert colab(SETUP) == ["Setup complete"]
    assert not list(colab.machine.iterdir())
