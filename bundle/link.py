# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The links of jobs/<job>/app/custom/ to custom/ and controllers/, one a file and the same in every job.

FLARE's simulator does not follow links to folders, and only what lies in app/custom reaches the other machines.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle import ROOT
from bundle.jobs import JOBS, find_job
from custom.errors import BundleError

PACKAGES = ("custom", "controllers")
TEXT_LINK_REMEDY = (
    "symbolic links arrived as text files (a checkout on Windows, or a zip download): run `python -m bundle link`, or "
    "clone again with `git -c core.symlinks=true clone` (on Windows in Developer Mode)"
)


@dataclass
class Difference:
    """What separates an app/custom folder from what it should be; all lists empty if nothing does."""

    missing: list[Path] = field(default_factory=list)
    stale: list[Path] = field(default_factory=list)
    text: list[Path] = field(default_factory=list)
    real: list[Path] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line a file, for people."""
        kinds = {
            "missing": self.missing,
            "stale": self.stale,
            "a text file instead of a link": self.text,
            "a real file where a link belongs": self.real,
        }
        return [f"{kind}: {path}" for kind, paths in kinds.items() for path in paths]


def is_text_link(path: Path) -> bool:
    """Is this what git writes for a link where links cannot be made: a file holding nothing but a relative path?"""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1024:
        return False
    text = path.read_bytes().strip()
    return text.startswith(b"../") and text.endswith(b".py") and b"\n" not in text


def wanted_links(custom_dir: Path) -> dict[Path, str]:
    """Where each link lies and the relative path it holds."""
    sources = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    links = {custom_dir / source.relative_to(ROOT): source for source in sources if "__pycache__" not in source.parts}
    return {link: os.path.relpath(source, link.parent) for link, source in links.items()}


def compare(custom_dir: Path) -> Difference:
    """How `custom_dir` (an app/custom folder) differs from what it should be. Files that are not ours are left out."""
    found, wanted = Difference(), wanted_links(custom_dir)
    for link, target in wanted.items():
        if link.is_symlink():
            if os.readlink(link) != target:
                found.stale.append(link)
        elif is_text_link(link):
            found.text.append(link)
        elif link.exists():
            found.real.append(link)
        else:
            found.missing.append(link)
    for package in PACKAGES:
        present = (Path(folder, name) for folder, _, names in os.walk(custom_dir / package) for name in names)
        found.stale += sorted(path for path in present if path.is_symlink() and path not in wanted)
    return found


def repair(custom_dir: Path) -> Difference:
    """Makes `custom_dir` what it should be and returns what was wrong.

    Raises:
        BundleError: a real file lies where a link belongs (nothing is changed then), or links cannot be made here.
    """
    found, wanted = compare(custom_dir), wanted_links(custom_dir)
    if found.real:
        raise BundleError(
            "is a real file where a link belongs, and is not overwritten",
            code="job-links",
            key=str(found.real[0]),
            remedy=f"compare it with {(found.real[0].parent / wanted[found.real[0]]).resolve()} and delete it",
        )
    try:
        for link in [link for link in wanted if link in {*found.missing, *found.stale, *found.text}]:
            link.parent.mkdir(parents=True, exist_ok=True)
            new = link.with_name(f".{link.name}.new")
            new.unlink(missing_ok=True)
            new.symlink_to(wanted[link])
            new.replace(link)  # what was there is gone only when the link is made
        for path in found.stale:
            if path not in wanted:
                path.unlink()
    except OSError as error:
        raise BundleError(
            f"no link can be made here ({error.strerror})", code="job-links", key=str(error.filename)
        ) from error
    _remove_empty_folders(custom_dir)
    return found


def _remove_empty_folders(custom_dir: Path) -> None:
    for package in PACKAGES:
        for folder, _, _ in os.walk(custom_dir / package, topdown=False):
            if not os.listdir(folder):
                os.rmdir(folder)


def job_custom_dirs(jobs: Sequence[str]) -> list[Path]:
    """The app/custom folders of the given jobs, or of all jobs of the bundle if none is given."""
    folders = [find_job(job) for job in jobs] or sorted(path for path in JOBS.glob("*") if path.is_dir())
    return [config.parent / "custom" for folder in folders for config in sorted(folder.glob("*/config"))]


def link_command(jobs: Sequence[str], check: bool) -> int:
    """Repairs or only checks; prints what was found. Returns 1 if a check found something."""
    count = 0
    custom_dirs = job_custom_dirs(jobs)
    for custom_dir in custom_dirs:
        found = compare(custom_dir) if check else repair(custom_dir)
        count += len(found.lines())
        for line in found.lines():
            print(line)
        if found.text and check:
            print(f"  {TEXT_LINK_REMEDY}")
    if not count:
        print(f"the links of {len(custom_dirs)} jobs are complete")
    elif check:
        print(f"{count} links are wrong; repair them with: python -m bundle link")
    else:
        print(f"repaired {count} links")
    return 1 if check and count else 0
