# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Does the code that runs come from this job's own app/custom? (docs/adr/0001-code-travels-with-the-job.md)

On the path of a FLARE process a job's app/custom comes last: what lies in the folder where a command was typed, or in
site-packages, comes before it. `give_way` puts the job's packages first; `check_origin` compares what was imported.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from custom.errors import BundleError

PACKAGES = ("custom", "controllers")


def give_way(init: str) -> None:
    """Puts the packages in the job's app/custom, if it has them, in the place of those beside `init`.

    FLARE unpacks an app into a folder app_SITE, and puts app_SITE/custom on the path.

    Args:
        init: the file of the package `custom` that is being imported.
    """
    customs = [Path(entry) for entry in sys.path if Path(entry).name == "custom"]
    jobs = [folder for folder in customs if folder.parent.name.startswith("app_") and _init(folder, "custom").is_file()]
    if not jobs or _init(jobs[-1], "custom").samefile(init):
        return
    for package in PACKAGES:
        spec = importlib.util.spec_from_file_location(package, _init(jobs[-1], package))
        if spec is None or spec.loader is None or not _init(jobs[-1], package).is_file():
            continue
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            del sys.modules[name]  # of the package that gives way
        sys.modules[package] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def _init(folder: Path, package: str) -> Path:
    return folder / package / "__init__.py"


@lru_cache(maxsize=8)
def check_origin(app_custom_dir: str) -> None:
    """Looks at each imported module that the job brings, too; once a process.

    Args:
        app_custom_dir: the job's app/custom; need not exist: the code is the site's then.

    Raises:
        BundleError: one was imported from elsewhere, and its content is not that of the job.
    """
    job = Path(app_custom_dir)
    names = {path.stem for path in job.iterdir()} if job.is_dir() else set()
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in names and (file := _differs(module, name, job)):
            raise BundleError(
                "is another than the job's own",
                code="code-not-the-jobs",
                key=name,
                expected=f"the code in {job}",
                got=str(file),
                remedy="start FLARE in an empty folder, and do not install what a job brings (pip uninstall)",
            )


def _differs(module: ModuleType, name: str, job: Path) -> Path | None:
    """The file of a module that is not the job's one of that name, and not a copy of it; else None."""
    if not isinstance(origin := getattr(module, "__file__", None), str):
        return None
    file, place = Path(origin), job.joinpath(*name.split("."))
    package = file.name == "__init__.py"
    own = place / "__init__.py" if package else place.with_suffix(".py")
    if not own.is_file() or own.resolve() == file.resolve():
        return None
    same = dict(_sources(file.parent)) == dict(_sources(place)) if package else file.read_bytes() == own.read_bytes()
    return None if same else file


def _sources(package: Path) -> Iterator[tuple[Path, bytes]]:
    for path in package.rglob("*.py"):
        yield path.relative_to(package), path.read_bytes()
