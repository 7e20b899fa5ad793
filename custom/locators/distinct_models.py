# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""Which of the server's models CrossSiteModelEval scores: the final one, and the best one if that is another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nvflare.apis.fl_context import FLContext
from nvflare.app_opt.pt.file_model_locator import PTFileModelLocator


class DistinctModels(PTFileModelLocator):
    """FLARE's PTFileModelLocator, but for a best model with the weights of the final one.

    The last model is often the best, and to score it twice would double the slowest phase of a job.

    Args:
        pt_persistor_id: the persistor of the training workflow.
    """

    def get_model_names(self, fl_ctx: FLContext) -> list[str]:
        """The files that the persistor has written, without the one that says nothing new."""
        names: list[str] = super().get_model_names(fl_ctx)
        persistor = self.model_persistor
        final, best = (Path(n).name for n in (persistor.global_model_file_name, persistor.best_global_model_file_name))
        if {final, best} <= set(names) and self._alike(final, best, fl_ctx):
            self.log_info(fl_ctx, f"{best} has the weights of {final}: scored once")
            names.remove(best)
        return names

    def _alike(self, one: str, other: str, fl_ctx: FLContext) -> bool:
        first, second = (self.locate_model(name, fl_ctx).data for name in (one, other))
        return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)
