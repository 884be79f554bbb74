"""Point every Colab badge and setup cell at this git remote: ``python -m bpsutils badges``.

Colab opens a notebook straight from GitHub, so badges and the clone in each setup cell name a repository and a branch.
In a fork they must name the fork.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from bpsutils.config import REPOSITORY

BADGE = re.compile(r"(https://colab\.research\.google\.com/github)/[^/\s]+/[^/\s]+/blob/\S+?/(notebooks/)")
CLONE = re.compile(r"(git clone .*--branch) \S+ https://github\.com/[^/\s]+/[\w.-]+")
REMOTE = re.compile(
    r"(?:(?:https?|git)://(?:[^/@]+@)?|ssh://(?:[^/@]+@)?|[^/@:]+@)"  # https, git, ssh, or scp's git@host:
    r"github\.com(?::\d+/|[:/])(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)


def point_at(text: str, owner: str, name: str, branch: str) -> str:
    """``text`` with its Colab badges and ``git clone`` lines pointing at another repository.

    Example:
        >>> point_at("git clone --branch main https://github.com/OWNER/REPO course", "ada", "cells", "dev")
        'git clone --branch dev https://github.com/ada/cells course'
    """
    text = BADGE.sub(rf"\1/{owner}/{name}/blob/{branch}/\2", text)
    return CLONE.sub(rf"\1 {branch} https://github.com/{owner}/{name}", text)


def parse_remote(url: str) -> tuple[str, str]:
    """Owner and name in the address of a GitHub repository, in any form that git takes.

    Raises:
        ValueError: If the address is not on GitHub.

    Example:
        >>> parse_remote("git@github.com:ada/cells.git")
        ('ada', 'cells')
        >>> parse_remote("https://github.com/ada/cells")
        ('ada', 'cells')
    """
    match = REMOTE.fullmatch(url)
    if match is None:
        raise ValueError(f"the git remote {url} is not on GitHub, and Colab's badges open GitHub only")
    return match["owner"], match["name"]


def rewrite(root: str | os.PathLike[str], owner: str, name: str, branch: str) -> dict[str, int]:
    """Point the badges and setup cells of the README, the notebooks and their sources at a repository.

    Only those addresses change: outputs, cell ids and metadata stay as they are, byte for byte.

    Args:
        root: The project's folder.
        owner: User or organisation on GitHub.
        name: The repository.
        branch: Its branch.

    Returns:
        For each file that changed, relative to ``root``, how many of its lines changed.

    Raises:
        ValueError: If a name holds a character that a link cannot.
    """
    for part in (owner, name, *branch.split("/")):
        if not re.fullmatch(r"[\w.+-]+", part):
            raise ValueError(f"{owner}/{name}, branch {branch}: {part!r} cannot stand in a link; rename it")
    root = Path(root)
    paths = [root / "README.md", *sorted(root.glob("notebooks/src/*.py")), *sorted(root.glob("notebooks/*.ipynb"))]
    changed = {}
    for path in paths:
        old = path.read_bytes().decode()  # bytes: no line ending may change on the way
        new = point_at(old, owner, name, branch)
        if new != old:
            temporary = path.with_suffix(".part")
            temporary.write_bytes(new.encode())
            temporary.replace(path)
            lines = zip(old.splitlines(), new.splitlines(), strict=True)
            changed[path.relative_to(root).as_posix()] = sum(before != after for before, after in lines)
    return changed


def main(root: Path = REPOSITORY) -> int:
    """Rewrite for the current branch of the remote ``origin``, or of the only remote; print what changed.

    Raises:
        RuntimeError: If git, a repository, a branch or a remote is missing; the message says which.
        ValueError: If the remote is not on GitHub.
    """
    top = Path(_git(root, "rev-parse", "--show-toplevel"))
    if top.resolve() != root.resolve():
        raise RuntimeError(f"{root} is a folder inside the repository {top}; clone the project itself with git")
    remotes = _git(root, "remote").split()
    if "origin" not in remotes and len(remotes) != 1:
        raise RuntimeError(f"no git remote origin (found: {', '.join(remotes) or 'none'}); git remote add origin URL")
    owner, name = parse_remote(_git(root, "remote", "get-url", "origin" if "origin" in remotes else remotes[0]))
    branch = _git(root, "branch", "--show-current")
    if not branch:
        raise RuntimeError("no branch is checked out (detached HEAD); git switch BRANCH, then run this again")
    changed = rewrite(root, owner, name, branch)
    for path, lines in changed.items():
        print(f"{path}: {lines} line{'s' if lines > 1 else ''}")
    print(f"{len(changed)} files changed; badges and setup cells name {owner}/{name}, branch {branch}")
    return 0


def _git(root: Path, *command: str) -> str:
    """What a git command prints."""
    try:
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise RuntimeError("git was not found; install it from https://git-scm.com") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"git {' '.join(command)} in {root}: {error.stderr.strip()}") from error
    return done.stdout.strip()
