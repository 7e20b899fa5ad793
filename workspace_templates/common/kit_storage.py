# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The server's storage in its own kit: FLARE's default is /tmp, which a restart of the machine empties.

FLARE wants an absolute folder, and where the kit will lie is not known when it is made.
"""

from __future__ import annotations

import os

from nvflare.app_common.storages.filesystem_storage import FilesystemStorage


class KitStorage(FilesystemStorage):
    """Storage in files.

    Args:
        folder: relative to the kit, in which a server runs, or absolute; it is made if it is not there.
    """

    def __init__(self, folder: str = ".") -> None:
        super().__init__(root_dir=os.path.abspath(folder))
