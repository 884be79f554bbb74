import ast
import copy
import importlib
import inspect
import pkgutil

import numpy as np
import pandas as pd
import pytest
import torch

from bpsutils import exercises
from bpsutils.exercises import Exercise

MODULES = [importlib.import_module(f"bpsutils.exercises.{m.name}") for m in pkgutil.iter_modules(exercises.__path__)]
EXERCISES = [
    pytest.param(value, id=f"{module.__name__.rpartition('.')[2]}.{name}")
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, Exercise)
]
every_exercise = pytest.mark.parametrize("exercise", EXERCISES)
OPPOSITE = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def run(exercise, code):
    """The answer that ``code`` defines, in a notebook that has imported the usual names."""
    names = {"np": np, "pd": pd, "torch": torch}
    exec(code, names)  # noqa: S102 - our own code
    return names[exercise.answer]


def changes(node):
    """What one slip could make of a part of the code: off by one, a wrong operator, order or axis, a missing step."""
    match node:
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp() if type(node.op) in OPPOSITE:
            changed = copy.deepcopy(node)
            changed.op = OPPOSITE[type(node.op)]()
            yield changed
            if isinstance(node, ast.BinOp):
                yield from (node.left, node.right)
        case ast.Compare() if type(node.ops[0]) in OPPOSITE:
            changed = copy.deepcopy(node)
            changed.ops[0] = OPPOSITE[type(node.ops[0])]()
            yield changed
        case ast.Call(func=ast.Attribute(value=value)) if getattr(value, "id", None) not in ("np", "pd", "torch"):
            yield value  # image.float() -> image
        case ast.Call(args=[first, *_]):
            yield first  # np.sqrt(image) -> image
        case ast.UnaryOp():
            yield node.operand
        case ast.Tuple() | ast.List() if len(node.elts) > 1 and not isinstance(getattr(node, "ctx", None), ast.Store):
            changed = copy.deepcopy(node)
            changed.elts.reverse()
            yield changed


class Replace(ast.NodeTransformer):
    """Put ``new`` in the place of the node numbered ``number`` in the order of a walk."""

    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else super().generic_visit(node)


def mutants(code):
    """Every text that one slip makes of ``code``."""
    for number, node in enumerate(ast.walk(ast.parse(code))):
        for nth in range(len(list(changes(node)))):
            tree = ast.parse(code)
            old = list(ast.walk(tree))[number]
            new = list(changes(old))[nth]
            yield ast.unparse(ast.fix_missing_locations(Replace(old, new).visit(tree)))


def verdict(exercise, code):
    """What ``code`` is told; code that does not even run is told so by Python itself."""
    try:
        answer = run(exercise, code)
    except Exception as error:  # noqa: BLE001 - whatever a mutant does, it does not pass
        return f"✗ {error}"
    return exercise.verdict(answer)


def test_the_mutants_of_a_line():
    assert set(mutants("x = -a.sum(0) / f(2)")) == {
        "x = a.sum(0) / f(2)", "x = -a / f(2)", "x = -a.sum(1) / f(2)", "x = -a.sum(-1) / f(2)",
        "x = -a.sum(0) * f(2)", "x = -a.sum(0)", "x = f(2)", "x = -a.sum(0) / f(3)", "x = -a.sum(0) / f(1)",
        "x = -a.sum(0) / 2",
    }  # fmt: skip


def test_there_are_exercises_and_each_module_numbers_its_own():
    for module in MODULES:
        found = {name: value for name, value in vars(module).items() if isinstance(value, Exercise)}
        assert list(found) == [f"q{n}" for n in range(1, len(found) + 1)], module.__name__
        assert 3 <= len(found) <= 5, module.__name__
        assert all(name == exercise.name for name, exercise in found.items()), module.__name__


def raises_placeholder(*_):
    raise NotImplementedError


def dots(*_): ...


def only_documented(*_):
    """Say what the function does."""


BLANKS = {"None": None, "dots": ..., "dots in a tuple": (1, ...), "a function of dots": dots}
BLANKS |= {"a docstring": only_documented, "a placeholder": raises_placeholder, "a lambda": lambda *_: ...}
BLANK_ANSWERS = [
    pytest.param(*exercise.values, blank, id=f"{exercise.id}-{name}")
    for exercise in EXERCISES
    for name, blank in BLANKS.items()
    # an exercise that asks for a value has no function to leave blank
    if not inspect.isfunction(blank) or callable(run(*exercise.values, exercise.values[0].solution_code))
]


@pytest.mark.parametrize(("exercise", "blank"), BLANK_ANSWERS)
def test_a_blank_is_not_attempted(exercise, blank, capsys):
    exercise.check(blank)
    assert capsys.readouterr().out.startswith("○ not attempted yet")


@every_exercise
def test_the_solution_is_right(exercise):
    assert exercise.verdict(run(exercise, exercise.solution_code)) == f"✓ correct: {exercise.right}"


@every_exercise
def test_each_misconception_has_its_own_message(exercise):
    assert len(exercise.misconceptions) >= 2
    told = {name: exercise.verdict(run(exercise, m.code)) for name, m in exercise.misconceptions.items()}
    for name, misconception in exercise.misconceptions.items():
        assert told[name].startswith("✗ not yet: "), (name, told[name])
        assert misconception.says in told[name], (name, told[name])
        assert [other for other in told if misconception.says in told[other]] == [name]


@every_exercise
def test_no_slip_passes(exercise):
    tried = {m for m in mutants(exercise.solution_code) if m != ast.unparse(ast.parse(exercise.solution_code))}
    passed = {mutant for mutant in tried if verdict(exercise, mutant).startswith("✓")}
    assert len(tried) >= 2, "too few slips to try: the check is not proven"
    assert passed == {ast.unparse(ast.parse(same)) for same in exercise.equivalent}


@every_exercise
@pytest.mark.parametrize(
    "odd",
    ["text", b"", object(), {}, [], 1j, float("nan"), type, lambda: 1, torch.ones(2, 3)],
    ids=["text", "bytes", "object", "dict", "list", "complex", "nan", "class", "function", "tensor"],
)
def test_an_odd_answer_gets_one_line(exercise, odd, capsys):
    exercise.check(odd)
    printed = capsys.readouterr().out
    assert printed.startswith("✗ not yet: ")
    assert printed.count("\n") == 1


@every_exercise
def test_an_exception_in_a_students_function_becomes_one_line(exercise):
    def broken(*_args, **_kwargs):
        raise KeyError("no such column\nsecond line")

    said = exercise.verdict(broken)
    assert said.startswith("✗ not yet: ")
    assert "\n" not in said


@every_exercise
def test_hints_come_one_by_one_and_the_last_one_stays(exercise, capsys):
    exercise = copy.copy(exercise)
    exercise._hints_given = 0
    for _ in range(4):
        exercise.hint()
    printed = " ".join(capsys.readouterr().out.split())
    expected = [
        f"Hint {n} of 3: {hint}" for n, hint in zip([1, 2, 3, 3], [*exercise.hints, exercise.hints[2]], strict=True)
    ]
    assert printed == " ".join(" ".join(expected).split())
    assert len(set(exercise.hints)) == 3
    assert all(exercise.hints)


@every_exercise
def test_the_solution_is_shown_with_its_reason(exercise, capsys):
    exercise.solution()
    printed = capsys.readouterr().out
    assert exercise.solution_code.strip() in printed
    assert " ".join(f"Why: {exercise.why}".split()) in " ".join(printed.split())
    assert exercise.answer in exercise.solution_code


def exercise_about(test):
    return Exercise(
        name="q1", answer="f", test=test, right="", hints=("a", "b", "c"), solution_code="", why="", misconceptions={}
    )


def test_a_class_is_watched_method_by_method():
    class Blank:
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            return ...

    class Broken(Blank):
        def __iter__(self):
            raise KeyError("lost")

    class Right(Blank):
        def __init__(self, n):
            super().__init__(n + 1)

        def __iter__(self):
            yield from range(self.n)

    exercise = exercise_about(lambda cls: None if list(cls(2)) == [0, 1, 2] else "three numbers")
    assert exercise.verdict(Blank).startswith("○ not attempted yet")
    assert exercise.verdict(Broken) == "✗ not yet: your function stopped with KeyError: 'lost'"
    assert exercise.verdict(Right).startswith("✓")


def test_pytorchs_own_not_implemented_is_an_attempt():
    def add_one(image):
        return image + 1

    said = exercise_about(lambda f: f(torch.tensor([1], dtype=torch.uint16))).verdict(add_one)
    assert said.startswith("✗ not yet: your function stopped with ")


def test_a_forgotten_return_is_named():
    def forgotten(x):
        x = x + 1

    assert "end with `return`" in exercise_about(lambda f: f(1)).verdict(forgotten)


def test_the_students_exception_is_named_with_its_message():
    said = exercise_about(lambda f: f({})).verdict(lambda table: table["dose"])
    assert said == "✗ not yet: your function stopped with KeyError: 'dose'"
