"""What decides a mitigation written by a user: its methods, and what they name at module level.

A helper function or a constant beside the class is part of the method as much as a line of its own.
So names are followed: from methods to the functions, classes and constants that they load, in the
user's own files and cells, and from those on. Libraries are not followed; their versions are noted
with each run.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice, PurePath, Enum)
BY_NAME = {"torch.dtype", "torch.device", "re.Pattern", "datetime.date", "datetime.datetime"}
QUIET = {"logging.Logger"}  # cannot change an answer


def is_own(name: str, file: str | None = None) -> bool:
    """Whether a module is the user's: no part of Python, of an installed library, or of ours."""
    root = name.partition(".")[0]
    if root == "__main__":
        return True
    if root == __name__.partition(".")[0] or root in sys.stdlib_module_names:
        return False
    module = sys.modules.get(name)
    file = file or getattr(module, "__file__", None)
    if file is None:
        return module is None  # part of an interpreter has no file
    return not {"site-packages", "dist-packages"} & set(PurePath(file).parts)


class Names:
    """What is reached from some functions by the names that they load.

    texts: what is named -> its source or value; unknown: names of what cannot be put in words.
    """

    def __init__(self, known: Iterable[object] = ()):
        self.texts: dict[str, str] = {}
        self.unknown: list[str] = []
        self._values: dict[str, object] = {}
        self._known = {id(thing) for thing in known}
        self._open: set[int] = set()

    def follow(self, function: object) -> None:
        """Take in everything that a function names at module level or in a scope around it."""
        while isinstance(function, FunctionType):
            if is_own(function.__module__ or "__main__", _file(function)):
                for name, value in _named(function):
                    self._add(name, value)
                self.unknown += _imported(function.__code__)
            function = getattr(function, "__wrapped__", None)

    def _add(self, name: str, value: object) -> None:
        """Take in one thing that is named; another one of its name gets a name of its own."""
        if id(value) in self._known:
            return
        while name in self._values and self._values[name] is not value:
            name += "'"
        if name not in self._values:
            self._values[name] = value  # before its own names: they may lead back to it
            self.texts[name] = self.describe(name, value)

    def describe(self, name: str, value: object) -> str:
        """A thing in words: the source of code, the value of a constant; "" for a library's."""
        if isinstance(value, PLAIN):
            return repr(value)
        if id(value) in self._open:  # a list that holds itself
            return name
        self._open.add(id(value))
        try:
            return self._parts(name, value)
        finally:
            self._open.remove(id(value))

    def _parts(self, name: str, value: object) -> str:
        if isinstance(value, (tuple, list)):
            parts = [self.describe(f"{name}[{i}]", part) for i, part in enumerate(value)]
            return f"{type(value).__name__}({', '.join(parts)})"
        if isinstance(value, (set, frozenset)):
            return f"set({sorted(self.describe(name, part) for part in value)})"
        if isinstance(value, dict):
            parts = [
                f"{self.describe(name, key)}: {self.describe(f'{name}[{key!r}]', part)}"
                for key, part in value.items()
            ]
            return f"{{{', '.join(parts)}}}"
        return self._code(name, value) if _is_code(value) else self._object(name, value)

    def _code(self, name: str, value: Any) -> str:
        """The source of a function, class or module of the user's."""
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return self.describe(name, parts)
        if isinstance(value, MethodType):
            return self.describe(name, (value.__func__, value.__self__))
        value = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, ModuleType):
            own = is_own(value.__name__)
        elif isinstance(value, FunctionType):
            own = is_own(value.__module__ or "__main__", _file(value))
        else:
            own = isinstance(value, type) and is_own(value.__module__)
        if not own:
            return ""
        if isinstance(value, type):
            return self._class(value)
        try:
            text = inspect.getsource(value)
        except (OSError, TypeError):
            self.unknown.append(name)
            return ""
        if isinstance(value, FunctionType):
            self.follow(value)
        return text

    def _class(self, kind: type) -> str:
        """The methods and constants of a class and of its parents that are the user's."""
        parts = []
        for parent in kind.__mro__:
            if not is_own(parent.__module__):
                continue
            for name, member in sorted(vars(parent).items()):
                member = plain_function(member)
                if not name.startswith("__") or is_written(member):
                    parts.append(f"{name} = {self.describe(f'{kind.__name__}.{name}', member)}")
        return "\n".join(parts)

    def _object(self, name: str, value: object) -> str:
        """A constant of another type: arrays by their content, others by their fields."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if kind in QUIET or inspect.isdatadescriptor(value):  # the slot of a field
            return ""
        if kind in BY_NAME:
            return repr(value)
        if hasattr(value, "detach"):  # a tensor, without importing torch
            value = value.detach().cpu().numpy()
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
            array = np.ascontiguousarray(value)
            content = hashlib.sha256(array.tobytes()).hexdigest()
            return f"{array.dtype} {array.shape} {content}"
        own = is_own(type(value).__module__)
        if is_dataclass(value):
            state = {field.name: getattr(value, field.name) for field in fields(value)}
        elif own and hasattr(value, "__dict__"):
            state = vars(value)
        else:
            self.unknown.append(name)
            return ""
        if own:
            self._add(kind, type(value))
        return f"{kind} {self.describe(name, state)}"


def plain_function(member: object) -> object:
    """The function inside of a method, class method, property or cached property."""
    for name in ("__func__", "fget", "func"):
        if isinstance(function := getattr(member, name, None), FunctionType):
            return function
    return member


def _is_code(value: object) -> bool:
    code = (FunctionType, MethodType, ModuleType, type, functools.partial, np.ufunc)
    return isinstance(value, code) or inspect.isroutine(value) or hasattr(value, "__wrapped__")


def is_written(member: object) -> bool:
    """Whether a member is a function that stands in a file of the user's, not one that a dataclass
    made or took from a library."""
    member = plain_function(member)
    inner = inspect.unwrap(member) if isinstance(member, FunctionType) else member
    if not isinstance(inner, FunctionType) or _file(inner) == "<string>":
        return False
    return is_own(inner.__module__ or "__main__", _file(inner))


def _file(function: FunctionType) -> str:
    return function.__code__.co_filename


def _named(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Names, with their values, that a function loads from its module and from scopes around it."""
    around = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for name, cell in around.items():
        if name != "__class__" and cell is not None:
            try:
                yield name, cell.cell_contents
            except ValueError:  # not set yet
                continue
    chains = [*_loaded(function.__code__), *_in_signature(function)]
    for name, *attributes in chains:
        if name not in function.__globals__:
            continue  # of Python itself, or not there yet
        value = function.__globals__[name]
        while isinstance(value, ModuleType) and is_own(value.__name__) and attributes:
            attribute, *attributes = attributes
            name = f"{name}.{attribute}"
            value = getattr(value, attribute, None)
        yield name, value


def _loaded(code: CodeType) -> Iterator[list[str]]:
    """Global names that code loads, each with the attributes that are read of it."""
    chain: list[str] = []
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            if chain:
                yield chain
            chain = [step.argval]
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and chain:
            chain = [*chain, step.argval]
        elif chain:
            yield chain
            chain = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loaded(constant)


def _imported(code: CodeType) -> Iterator[str]:
    """Modules of the user's that code itself imports, as it runs."""
    steps = list(dis.get_instructions(code))
    for place, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level = steps[place - 2].argval  # dots before the name
            origin = None if level else _origin(step.argval)
            if level or (origin and is_own(step.argval, origin)):
                yield step.argval or "a module beside it"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imported(constant)


def _origin(module: str) -> str | None:
    """Where the package of a module lies, without importing it; None where it is not to be had."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if found is None:
        return None
    folders = found.submodule_search_locations
    return found.origin or next(iter(folders or ()), None)


def _in_signature(function: FunctionType) -> Iterator[list[str]]:
    """Names in the decorators and defaults of a function, as its source has them."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no source; a lambda in the middle of a line
        return
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        defaults = [default for default in node.args.kw_defaults if default is not None]
        for outer in (*node.decorator_list, *node.args.defaults, *defaults):
            for part in ast.walk(outer):
                if chain := _chain(part):
                    yield chain


def _chain(node: ast.AST) -> list[str]:
    """`helpers.weight` as ["helpers", "weight"]; [] for what is no name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if not isinstance(node, ast.Attribute):
        return []
    inner = _chain(node.value)
    return [*inner, node.attr] if inner else []
