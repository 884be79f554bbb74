"""Exercises that check themselves: ``q1.check(answer)``, ``q1.hint()``, ``q1.solution()``.

One module a notebook holds its exercises as ``q1``, ``q2``, and so on. A check never raises: it prints one plain line
that starts with ``○ not attempted``, ``✓ correct`` or ``✗ not yet``.
"""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

# An untouched function, as the interpreter sees it: whatever its arguments and comments, it only returns None.
_UNTOUCHED = len((lambda: None).__code__.co_code)


class _NotAttemptedError(Exception):
    """The student's function, or a method of the student's class, is still a placeholder."""


class _NotYetError(Exception):
    """The student's function cannot be judged; the message says why."""


@dataclass(frozen=True)
class Misconception:
    """A typical wrong answer and what it is told.

    Attributes:
        code: Code that gives the wrong answer, as a student would write it.
        says: A part of the message that this mistake gets, and no other.
    """

    code: str
    says: str


@dataclass(kw_only=True, repr=False)
class Exercise:
    r"""One exercise.

    Attributes:
        name: How the notebook calls it, such as ``"q1"``.
        answer: The name that the notebook's cell gives to the answer.
        test: Gets the answer; returns None if it is right, otherwise a sentence about what is wrong with it.
        right: What a right answer shows, said when it is right.
        hints: Three, from a nudge to nearly the answer.
        solution_code: Code that defines ``answer``; it is what `solution` prints and what the tests run.
        why: Why the solution is one.
        misconceptions: Named typical wrong answers. The tests run each one.
        equivalent: Small changes of ``solution_code`` that are right too; the tests try all small changes.

    Example:
        >>> half = Exercise(
        ...     name="q1", answer="half", test=lambda half: None if half(3) == 1.5 else "half of 3 is 1.5",
        ...     right="a fraction stays", hints=("Divide.", "By 2.", "x / 2"),
        ...     solution_code="def half(x):\n    return x / 2", why="// would drop the fraction.", misconceptions={},
        ... )
        >>> half.check(...)
        ○ not attempted yet: put your answer in place of the dots and run this cell again (q1.hint() helps)
        >>> half.check(lambda x: x // 2)
        ✗ not yet: half of 3 is 1.5
        >>> half.check(lambda x: x / 2)
        ✓ correct: a fraction stays
        >>> half.hint()
        Hint 1 of 3: Divide.
    """

    name: str
    answer: str
    test: Callable[[Any], str | None]
    right: str
    hints: tuple[str, str, str]
    solution_code: str
    why: str
    misconceptions: Mapping[str, Misconception]
    equivalent: tuple[str, ...] = ()
    _hints_given: int = field(default=0, init=False)

    def check(self, answer: Any = None) -> None:
        """Print one line about ``answer``, a value or a function. Never raises."""
        print(self.verdict(answer))

    def hint(self) -> None:
        """Print the next hint; after the last one, the last one again."""
        self._hints_given = min(self._hints_given + 1, len(self.hints))
        print(_wrapped(f"Hint {self._hints_given} of {len(self.hints)}: {self.hints[self._hints_given - 1]}"))

    def solution(self) -> None:
        """Print a solution and why it is one."""
        print(f"{self.solution_code.strip()}\n\n{_wrapped(f'Why: {self.why}')}")

    def verdict(self, answer: Any = None) -> str:
        """The line that `check` prints."""
        try:
            if _is_blank(answer):
                raise _NotAttemptedError
            problem = self.test(_watched(answer))
        except _NotAttemptedError:
            return (
                "○ not attempted yet: put your answer in place of the dots and run this cell again "
                f"({self.name}.hint() helps)"
            )
        except _NotYetError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - an answer of any kind gets a line, never a traceback
            problem = f"your answer cannot be checked, {_one_line(error)}"
        return f"✓ correct: {self.right}" if problem is None else f"✗ not yet: {problem}"


def _is_blank(answer: Any) -> bool:
    """Whether ``answer`` is what the notebook put there: None, dots, or dots among other things."""
    items = answer if isinstance(answer, tuple | list) else [answer]
    return answer is None or any(item is ... for item in items)


def _watched(answer: Any) -> Any:
    """A student's function or class, made to say clearly what happened inside it; anything else unchanged."""
    if inspect.isclass(answer):
        methods = {name: _watched_function(value) for name, value in vars(answer).items() if inspect.isfunction(value)}
        return type(answer.__name__, (answer,), methods) if methods else answer
    return _watched_function(answer) if inspect.isfunction(answer) else answer


def _watched_function(function: FunctionType) -> Callable[..., Any]:
    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - reported in one line by verdict
            if isinstance(error, _NotAttemptedError | _NotYetError):
                raise
            if _is_placeholder(function, error):
                raise _NotAttemptedError from error
            raise _NotYetError(f"your function stopped with {_one_line(error)}") from error
        if result is None and function.__name__ in ("__init__", "set_epoch"):
            return None
        if result is None and len(function.__code__.co_code) > _UNTOUCHED:
            raise _NotYetError("your function returned None; does every way through it end with `return`?")
        if _is_blank(result):
            raise _NotAttemptedError
        return result

    return watched


def _is_placeholder(function: FunctionType, error: Exception) -> bool:
    """Whether the function itself says ``raise NotImplementedError``: PyTorch raises it too, for uint16 arithmetic."""
    return isinstance(error, NotImplementedError) and "NotImplementedError" in function.__code__.co_names


def _wrapped(text: str) -> str:
    """Lines that fit a notebook: it would break longer ones anywhere."""
    return textwrap.fill(text, 88)


def _one_line(error: Exception) -> str:
    """An exception as ``Name: message``, its first line only."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(": ")
