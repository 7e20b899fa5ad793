# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Finds the files of chest_xray/{train,test}/{NORMAL,PNEUMONIA}, at any depth, and counts what lies elsewhere.

Case does not matter in the names of these folders. Every file below a class folder is tried, whatever its suffix, but
for those that operating systems leave behind (names that begin with a dot, Thumbs.db, desktop.ini, __MACOSX).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from custom.data.folders import contents
from custom.data.xrays import CLASSES, patient_of
from custom.errors import BundleError

FOLDER = "chest_xray"
SPLITS = ("train", "test")
_IN_FOLDER = "folder "
JUNK = ("thumbs.db", "desktop.ini", "__macosx")
MOST_NAMED = 5  # folders that a count or an error names


class XrayFile(NamedTuple):
    """One file; in this order the patients of a split stand together, the training patients first."""

    is_test: bool
    patient: str
    label: int
    path: Path
    named: bool  # does the name of the file or of its folder tell the patient?

    @property
    def in_folder(self) -> bool:
        """Is the patient that of a folder?"""
        return self.patient.startswith(_IN_FOLDER)

    @property
    def place(self) -> str:
        """`train/NORMAL`."""
        return f"{SPLITS[self.is_test]}/{CLASSES[self.label]}"


def find_folder(root: Path) -> Path | None:
    """The folder `chest_xray` below `root`, or the one inside it that Kaggle's archive has, or `root` itself."""
    outer = subfolder(root, FOLDER) or root / FOLDER
    places = (outer, subfolder(outer, FOLDER) or outer / FOLDER, root)
    return next((place for place in places if any(subfolder(place, split) for split in SPLITS)), None)


def subfolder(folder: Path, name: str) -> Path | None:
    """The folder `name` in `folder`; where there is none, the one of that name in other case.

    Raises:
        BundleError: there are several in other case.
    """
    if (folder / name).is_dir():
        return folder / name
    found = [path for path in _entries(folder) if path.name.lower() == name.lower() and path.is_dir()]
    if len(found) > 1:
        raise BundleError(
            "several folders whose names differ in case only",
            code="data-malformed",
            key=str(folder),
            expected=f"one folder {name}",
            got=", ".join(path.name for path in found),
            remedy=f"put all into {name}",
        )
    return found[0] if found else None


_Found = dict[tuple[str, int], list[tuple[Path, tuple[str, ...]]]]  # by split and label: files, and folders they are in


def list_files(folder: Path) -> tuple[list[XrayFile], dict[str, int]]:
    """All files below the class folders, sorted, and how many others were seen, by reason.

    Raises:
        BundleError: a folder is missing.
    """
    found: _Found = {}
    left_out: Counter[str] = Counter()
    splits = {split: _needed(folder, split, "both are needed") for split in SPLITS}
    for split, path in splits.items():
        classes = [_needed(path, name, "a site without such patients needs an empty folder") for name in CLASSES]
        for label, place in enumerate(classes):
            found[split, label] = [(file, file.relative_to(place).parts[:-1]) for file in _walk(place)]
        left_out += _others(path, split, classes)
    for path in _entries(folder):
        if path.is_dir() and path not in splits.values() and any(subfolder(path, name) for name in (*CLASSES, *SPLITS)):
            left_out[f"files in {path.name}, which is neither train nor test"] += sum(1 for _ in _walk(path))
    return _by_patient(folder, found), {reason: count for reason, count in left_out.items() if count}


def _needed(folder: Path, name: str, remedy: str) -> Path:
    found = subfolder(folder, name)
    if found is None:
        raise BundleError(
            f"there is no folder {name}",
            code="data-missing",
            key=str(folder),
            expected=f"{FOLDER}/{{{','.join(SPLITS)}}}/{{{','.join(CLASSES)}}} with images",
            got=contents(folder),
            remedy=f"rename or add the folder; {remedy}",
        )
    return found


def _others(folder: Path, split: str, classes: list[Path]) -> Counter[str]:
    """Files of a split that are in neither class folder."""
    counts: Counter[str] = Counter()
    entries = [path for path in _entries(folder) if path not in classes]
    folders = {path: sum(1 for _ in _walk(path)) for path in entries if path.is_dir()}
    few = len(folders) <= MOST_NAMED  # many are the folders of patients, which are not named
    for path, number in folders.items():
        where = f"{split}/{path.name}, which is" if few else f"folders of {split} that are"
        counts[f"files in {where} neither {' nor '.join(CLASSES)}"] += number
    counts[f"files in {split} beside the folders of the classes"] = len(entries) - len(folders)
    return counts


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, but for what operating systems leave behind, by name."""
    return [Path(entry.path) for entry in _scan(folder)] if folder.is_dir() else []


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """The same with what the system knows of each entry, so that a folder of many files is listed at once."""
    with os.scandir(folder) as entries:
        seen = [entry for entry in entries if not (entry.name.startswith(".") or entry.name.lower() in JUNK)]
    return sorted(seen, key=lambda entry: entry.name)


def _walk(folder: Path, seen: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files below a folder; a link to a folder is followed, unless it leads back."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    for entry in _scan(folder):
        if entry.is_dir():
            yield from _walk(Path(entry.path), seen | {real})
        else:
            yield Path(entry.path)


def _by_patient(folder: Path, found: _Found) -> list[XrayFile]:
    """The files with their patients, sorted."""
    parents = [inside for files in found.values() for _, inside in files]
    depths = takewhile(lambda names: len(set(names)) == 1, zip(*parents, strict=False))
    layers = sum(1 for _ in depths)  # folders that all are in alike, such as `images`, tell no patient
    anew = _numbered_anew(found, layers)
    listed = []
    for (split, label), files in found.items():
        where = f"{split}/{CLASSES[label]}/" if anew else ""
        for path, inside in files:
            patient, named, unique = patient_of(path.stem)
            if inside[layers:] and not unique:  # `unique`: else every patient's images may have the same names
                patient, named = f"{_IN_FOLDER}{where}{inside[layers].lower()}", not anew
            elif not named:
                patient = "/".join(path.relative_to(folder).parts)
            listed.append(XrayFile(split == "test", patient, label, path, named))
    return sorted(listed, key=lambda file: file[:4])


def _numbered_anew(found: _Found, layers: int) -> bool:
    """Do folders of one name stand for other patients in each class, as where they are numbered?

    Taken for granted where half of the names in one class are also in the other.
    """
    names: list[set[str]] = [set() for _ in CLASSES]
    for (_, label), files in found.items():
        names[label] |= {inside[layers].lower() for _, inside in files if inside[layers:]}
    fewest = min(map(len, names))
    return fewest > 0 and 2 * len(set.intersection(*names)) >= fewest
