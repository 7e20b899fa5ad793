# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Are the classes that a job's JSON names there, and do they accept what it gives them?"""

from __future__ import annotations

import filecmp
import importlib.util
import inspect
import os
import re
import symtable
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from bundle import ROOT
from bundle.arguments import OWN, Component, components
from bundle.jobs import Job
from custom.errors import BundleError

STAR_IMPORT = re.compile(rb"^\s*from .* import \*", re.MULTILINE)
OWN_CLASS_REMEDY = "a class of your own goes into app/custom of an exported job: app/custom/mine.py has mine.Mine"


def check_classes(job: Job, copy: Path) -> None:
    """Is every class there, and does it take its arguments? FLARE would say so only when the job has started.

    Of what is not this bundle's own nothing is imported: its name is looked for, no more.

    Args:
        job: with the settings as they will be.
        copy: the job's folder as it will be, without them.

    Raises:
        BundleError: names the file, the component and the class.
    """
    for config_path, custom_dir, component in _components(job, copy):
        key = f"{config_path.name} {component.scopes[0]} {component.path}"
        module, _, name = component.path.rpartition(".")
        if not module or not all(part.isidentifier() for part in component.path.split(".")):
            raise BundleError("is not a path of a class", code="job-class", key=key, remedy="write it as module.Class")
        file = _file(component, custom_dir)
        if file is None:
            _check_installed(module, key)
            continue
        _check_defined(name, file, str(file.relative_to(custom_dir)), key)
        kind = _class_here(component, custom_dir)
        if kind is not None:
            _check_arguments(kind, component, key)


def _components(job: Job, copy: Path) -> Iterator[tuple[Path, Path, Component]]:
    """Every component with the path of its configuration and the app/custom that its app will see."""
    for path, config in job.configs.items():
        for component in components({path: config}):
            yield path, copy / path.parent.parent / "custom", component


def _file(component: Component, custom_dir: Path) -> Path | None:
    """The file of its module in app/custom, or None."""
    folder = custom_dir.joinpath(*component.path.split(".")[:-1])
    files = (folder / "__init__.py", folder.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def _class_here(component: Component, custom_dir: Path) -> Any:
    """The class, or None if the job's file is not this bundle's, or cannot be imported here."""
    file = _file(component, custom_dir)
    if file is None or not component.path.startswith(OWN):
        return None
    ours = ROOT / file.relative_to(custom_dir)
    return component.load() if ours.is_file() and filecmp.cmp(file, ours, shallow=False) else None


def _check_installed(module: str, key: str) -> None:
    name = f"{module.replace('.', '/')}.py"
    if f"{module}.".startswith(OWN):
        remedy = "is the path right? If it is: python -m bundle link"
        raise BundleError(f"there is no {name} in the job's app/custom", code="job-class", key=key, remedy=remedy)
    if module.partition(".")[0] != "nvflare" and not _is_installed(module):
        problem = f"there is no {name} in the job's app/custom, and no {module} is installed"
        raise BundleError(problem, code="job-class", key=key, remedy=OWN_CLASS_REMEDY)


def _is_installed(module: str) -> bool:
    """Would FLARE find it? Looks for the files only: an import could do anything, and takes long."""
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # __main__
        return False
    if spec is None or _is_hidden(spec):
        return False
    for part in below:
        places = spec.submodule_search_locations
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(places)) if places else None
        if spec is None:
            return False
    return True


def _is_hidden(spec: ModuleSpec) -> bool:
    """Does it lie where FLARE's processes do not look: in the current folder, or in this repository?"""
    seen = {Path(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(path)}
    hidden = {ROOT} | ({Path.cwd()} - seen)
    places = spec.submodule_search_locations or ([spec.origin] if spec.has_location and spec.origin else [])
    return bool(places) and all(Path(place).parent in hidden for place in places)


def _check_defined(name: str, file: Path, shown: str, key: str) -> None:
    """Does the module bind the name? It is read, not run."""
    source = file.read_bytes()
    try:
        table = symtable.symtable(source, shown, "exec")  # type: ignore[arg-type]  # it takes bytes
    except (SyntaxError, ValueError) as error:
        line = f"line {error.lineno} " if isinstance(error, SyntaxError) else ""
        raise BundleError(
            f"{line}is not valid Python ({error})", code="job-class", key=f"app/custom/{shown}"
        ) from error
    bound = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    if name not in bound and "__getattr__" not in bound and not STAR_IMPORT.search(source):
        classes = [child.get_name() for child in table.get_children() if child.get_type() == "class"]
        public = ", ".join(sorted(name for name in classes if not name.startswith("_"))) or "no class"
        raise BundleError(
            f"there is no {name} in app/custom/{shown}", code="job-class", key=key, remedy=f"it has {public}"
        )


def _check_arguments(kind: Any, component: Component, key: str) -> None:
    try:
        inspect.signature(kind).bind(**component.arguments)
    except TypeError as error:
        takes = ", ".join(component.parameters()) or "no arguments"
        raise BundleError(str(error), code="job-class", key=key, remedy=f"it takes {takes}") from error


def check_settings(job: Job, copy: Path) -> None:
    """Our classes, and FLARE's workflows, look at their settings before the job is sent to every site."""
    for _, custom_dir, component in _components(job, copy):
        flares = component.path.startswith("nvflare.app_common.workflows.")
        kind = component.load() if flares else _class_here(component, custom_dir)
        if kind is not None and (flares or hasattr(kind, "check")):
            try:
                built = kind(**component.arguments)
            except (TypeError, ValueError) as error:
                raise BundleError(
                    f"{component.path}: {error}", code="setting-value", key=component.scopes[0]
                ) from error
            if hasattr(built, "check"):
                built.check()
