# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Holds class_allow_list against the arguments of components too, for kits that take no code from jobs.

nvflare 2.9.0 does not look into dictionaries with `"config_type": "dict"`; its PTFileModelPersistor, which is on the
list, makes an object of whatever class its argument `model` names. A component of local/resources.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError


class NamedClasses(FLComponent):
    """Refuses a component of a job if an argument of it names a class that is not on the list."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Before FLARE makes a component. Raises UnsafeComponentError, which ends the job."""
        if event_type != EventType.BEFORE_BUILD_COMPONENT:
            return
        try:
            self._check(fl_ctx)
        except UnsafeComponentError:
            raise
        except Exception as error:  # FLARE takes any other one for consent
            raise UnsafeComponentError(f"cannot be held against allow_list: {error!r}") from error

    def _check(self, fl_ctx: FLContext) -> None:
        resources = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_resources_file_path())
        allowed = json.loads(resources.read_text(encoding="utf-8"))["class_allow_list"]
        config = fl_ctx.get_prop(FLContextKey.COMPONENT_CONFIG)
        for path in named(config.get("args")):
            if not any(path == entry or path.startswith(f"{entry.rstrip('.')}.") for entry in allowed):
                raise UnsafeComponentError(f"{path!r} in the arguments of {config.get('path')!r} is not in allow_list")


def named(value: object) -> Iterator[str]:
    """Every class that a dictionary within names, at any depth; FLARE may have put one part into several places."""
    seen: set[int] = set()
    left = [value]
    while left:
        one = left.pop()
        if not isinstance(one, dict | list) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            yield from (str(one[key]) for key in ("path", "class_path") if key in one)
        left += one.values() if isinstance(one, dict) else one
