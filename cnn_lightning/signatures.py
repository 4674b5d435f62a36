"""What classes take as arguments, read from their source: importing them would take seconds."""

import ast
import importlib.util
import typing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

Parameters = dict[str, Any]
"""Names and types of arguments; `Any` for a type that is more than plain values."""

_MAX_IMPORTS = 10  # from one module to the next; a module may import itself from its package
_PLAIN = {
    **{kind.__name__: kind for kind in (int, float, bool, str, list, tuple, dict)},
    **{name: getattr(typing, name) for name in ("Optional", "Union", "Literal")},
}


class Definition(NamedTuple):
    """Where a name is given its meaning.

    Attributes:
        module: The module's name.
        node: A class, or the expression that a type is short for.
    """

    module: str
    node: ast.AST


class _NotPlainError(Exception):
    """A type that is more than plain values."""


def class_names(module: str, base: str) -> list[str]:
    """Names of the classes that a module defines or imports, those derived from `base`, sorted.

    Example:
        >>> class_names("cnn_lightning.networks", "Network")[:2]
        ['AirbenchNetwork', 'GoogLeNet']
    """
    return sorted(name for name in _names(module) if base in _ancestors(_find(module, name)))


def _ancestors(definition: Definition | None) -> set[str]:
    if definition is None or not isinstance(definition.node, ast.ClassDef):
        return set()
    bases = [base.id for base in definition.node.bases if isinstance(base, ast.Name)]
    further = [_ancestors(_find(definition.module, base)) for base in bases]
    return {definition.node.name, *bases}.union(*further)


def find_class(module: str, name: str) -> Definition | None:
    """The source of a class, followed through imports; `None` if it is not found."""
    found = _find(module, name)
    return found if found is not None and isinstance(found.node, ast.ClassDef) else None


def class_parameters(definition: Definition) -> Parameters | None:
    """What `__init__` takes by name, `**kwargs` followed into the base classes.

    Returns:
        `None` if the source alone does not tell.

    Example:
        >>> found = find_class("cnn_lightning.classifiers", "LeNet")
        >>> class_parameters(found)["dropout"]
        <class 'float'>
    """
    module, node = definition
    assert isinstance(node, ast.ClassDef)  # noqa: S101  # of `find_class`
    init = _method(node, "__init__")
    if init is None:
        return None if node.decorator_list or _method(node, "__new__") else _of_bases(definition)
    own = _of_arguments(module, init)
    if init.args.kwarg is None:
        return own
    inherited = _of_bases(definition)
    return None if inherited is None else {**inherited, **own}


def method_parameters(definition: Definition, name: str) -> Parameters | None:
    """What a method takes by name; `None` if the class itself does not define it."""
    method = _method(definition.node, name)
    return None if method is None else _of_arguments(definition.module, method)


def _of_bases(definition: Definition) -> Parameters | None:
    assert isinstance(definition.node, ast.ClassDef)  # noqa: S101  # as above
    for base in definition.node.bases:
        found = _find(definition.module, base.id) if isinstance(base, ast.Name) else None
        if found is not None and isinstance(found.node, ast.ClassDef):
            return class_parameters(found)
    return None


def _of_arguments(module: str, function: ast.FunctionDef) -> Parameters:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return {
        argument.arg: _plain_type(module, argument.annotation)
        for argument in arguments
        if argument.arg != "self"
    }


def _method(node: ast.AST, name: str) -> ast.FunctionDef | None:
    body = getattr(node, "body", [])
    found = [part for part in body if isinstance(part, ast.FunctionDef) and part.name == name]
    return found[-1] if found else None  # after overloads


def _plain_type(module: str, annotation: ast.expr | None) -> Any:
    try:
        return _evaluate(module, annotation)
    except _NotPlainError:
        return Any


def _evaluate(module: str, node: ast.AST | None) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _evaluate(module, ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Name):
        if node.id in _PLAIN:
            return _PLAIN[node.id]
        found = _find(module, node.id)
        if found is not None and not isinstance(found.node, ast.ClassDef):
            return _evaluate(found.module, found.node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _evaluate(module, node.left) | _evaluate(module, node.right)
    if isinstance(node, ast.Subscript):
        whole = _evaluate(module, node.value)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if whole is typing.Literal:
            return whole[tuple(ast.literal_eval(part) for part in parts)]
        is_ellipsis = [isinstance(p, ast.Constant) and p.value is ... for p in parts]
        kinds = [
            ... if dots else _evaluate(module, part)
            for part, dots in zip(parts, is_ellipsis, strict=True)
        ]
        return whole[tuple(kinds) if len(kinds) > 1 else kinds[0]]
    raise _NotPlainError


def _find(module: str, name: str, depth: int = 0) -> Definition | None:
    node = _names(module).get(name) if depth < _MAX_IMPORTS else None
    if isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            package = module if _is_package(module) else module.rpartition(".")[0]
            source = ".".join([*package.split(".")[: package.count(".") + 2 - node.level], source])
        original = next(a.name for a in node.names if name in (a.asname, a.name))
        return _find(source.strip("."), original, depth + 1)
    if isinstance(node, ast.Assign):
        return Definition(module, node.value)
    return None if node is None else Definition(module, node)


@cache
def _names(module: str) -> dict[str, ast.stmt]:
    """What a module's top level gives a name to: classes, imports from modules, assignments."""
    path = _path(module)
    if path is None:
        return {}
    names: dict[str, ast.stmt] = {}
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            names.update({alias.asname or alias.name: node for alias in node.names})
        elif isinstance(node, ast.Assign):
            names.update({t.id: node for t in node.targets if isinstance(t, ast.Name)})
    return names


def _is_package(module: str) -> bool:
    path = _path(module)
    return path is not None and path.name == "__init__.py"


def _path(module: str) -> Path | None:
    # of the top package alone: to find a module within one, Python would import it
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top) if top else None
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder, *rest)
        for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if candidate.is_file():
                return candidate
    return None
