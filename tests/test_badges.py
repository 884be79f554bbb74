import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from bpsutils import badges

ROOT = Path(__file__).parent.parent
TEXT = """[![Colab](https://x/badge.svg)](https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/00_a.ipynb)
clone = "git clone --quiet --depth 1 --branch main https://github.com/OWNER/REPO course"
see https://github.com/pytorch/pytorch/blob/main/README.md
"""


def git(folder, *command):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *command], check=True, capture_output=True)


@pytest.fixture
def fork(tmp_path):
    """A repository with a README and a notebook that keep the placeholder."""
    root = tmp_path / "fork"
    (root / "notebooks" / "src").mkdir(parents=True)
    (root / "README.md").write_text(TEXT)
    shutil.copy(ROOT / "notebooks/src/00_start_here.py", root / "notebooks/src")
    shutil.copy(ROOT / "notebooks/00_start_here.ipynb", root / "notebooks")
    git(root, "init", "-b", "lessons/autumn")
    return root


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/ada-l/cells.2",
        "https://github.com/ada-l/cells.2.git",
        "https://github.com/ada-l/cells.2/",
        "https://user:token@github.com/ada-l/cells.2.git",
        "git@github.com:ada-l/cells.2.git",
        "ssh://git@github.com/ada-l/cells.2.git",
        "ssh://git@github.com:22/ada-l/cells.2",
        "git://github.com/ada-l/cells.2.git",
    ],
)
def test_every_form_of_a_github_address_is_read(url):
    assert badges.parse_remote(url) == ("ada-l", "cells.2")


@pytest.mark.parametrize("url", ["https://gitlab.com/ada/cells", "https://notgithub.com/ada/cells", "../cells.git", ""])
def test_an_address_elsewhere_is_refused(url):
    with pytest.raises(ValueError, match="not on GitHub"):
        badges.parse_remote(url)


def test_only_badges_and_clones_are_pointed_elsewhere():
    new = badges.point_at(TEXT, "ada", "cells", "lessons/autumn")
    assert "github/ada/cells/blob/lessons/autumn/notebooks/00_a.ipynb)" in new
    assert "--branch lessons/autumn https://github.com/ada/cells course" in new
    assert "https://github.com/pytorch/pytorch/blob/main/README.md" in new
    assert badges.point_at(new, "OWNER", "REPO", "main") == TEXT


def test_a_fork_points_at_itself_and_nothing_else_changes(fork, capsys):
    git(fork, "remote", "add", "origin", "git@github.com:ada/cells.git")
    before = nbformat.read(fork / "notebooks/00_start_here.ipynb", 4)
    assert badges.main(fork) == 0
    printed = capsys.readouterr().out
    assert "README.md: 2 lines\n" in printed
    assert "3 files changed; badges and setup cells name ada/cells, branch lessons/autumn" in printed
    for path in ("README.md", "notebooks/src/00_start_here.py", "notebooks/00_start_here.ipynb"):
        text = (fork / path).read_text(encoding="utf-8")
        assert "OWNER" not in text
        assert "github/ada/cells/blob/lessons/autumn/notebooks/00" in text
        assert "--branch lessons/autumn https://github.com/ada/cells course" in text
    after = nbformat.read(fork / "notebooks/00_start_here.ipynb", 4)
    for old, new in zip(before.cells, after.cells, strict=True):
        assert new.source == badges.point_at(old.source, "ada", "cells", "lessons/autumn")
        assert {**new, "source": ""} == {**old, "source": ""}
    assert after.metadata == before.metadata
    assert badges.main(fork) == 0
    assert "0 files changed" in capsys.readouterr().out


def test_a_fork_still_matches_its_sources(fork):
    shutil.copy(ROOT / "notebooks/src/build.py", fork / "notebooks/src")
    badges.rewrite(fork, "ada", "cells", "dev")
    command = [sys.executable, "notebooks/src/build.py", "--check"]
    done = subprocess.run(
        command, cwd=fork, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "00_start_here: matches its source\n", done.stdout + done.stderr


def test_the_only_remote_is_taken_whatever_its_name(fork, capsys):
    git(fork, "remote", "add", "mine", "https://github.com/ada/cells")
    badges.main(fork)
    assert "name ada/cells" in capsys.readouterr().out


def test_without_a_remote_the_error_says_so(fork):
    with pytest.raises(RuntimeError, match="no git remote origin .found: none."):
        badges.main(fork)


def test_outside_a_repository_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(RuntimeError, match="not a git repository"):
        badges.main(tmp_path)


def test_inside_another_repository_nothing_is_touched(fork):
    git(fork, "remote", "add", "origin", "https://github.com/ada/other")
    with pytest.raises(RuntimeError, match="inside the repository"):
        badges.main(fork / "notebooks")


def test_a_detached_head_is_refused(fork):
    git(fork, "remote", "add", "origin", "https://github.com/ada/cells")
    git(fork, "add", ".")
    git(fork, "commit", "-m", "all")
    git(fork, "checkout", "--detach")
    with pytest.raises(RuntimeError, match="git switch"):
        badges.main(fork)


def test_without_git_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="git was not found"):
        badges.main(tmp_path)


def test_a_name_that_no_link_can_hold_is_refused_before_anything_is_written(fork):
    with pytest.raises(ValueError, match="cannot stand in a link"):
        badges.rewrite(fork, "ada", "cells", 'a"b')
    assert (fork / "README.md").read_text() == TEXT
