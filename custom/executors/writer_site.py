# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What the executors of a site that hosts writers have in common."""

from __future__ import annotations

import torch

from custom.data.writers import WriterSiteData
from custom.errors import BundleError
from custom.executors.site_task import Site


def data_by_writers(site: Site) -> WriterSiteData:
    """The site's data; raises BundleError if they do not come by writers."""
    if not isinstance(site.data, WriterSiteData):
        raise BundleError(
            code="job-component",
            site=site.name,
            key="data",
            expected="a component whose data come by writers, such as custom.data.writer_data.WriterData",
            got=type(site.data).__name__,
        )
    return site.data


def is_stacked(setting: bool | None, device: torch.device) -> bool:
    """Whether to train the writers of a cohort at once."""
    return device.type == "cuda" if setting is None else setting
