# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""The pages; each module adds its own. Foreign text goes into text nodes and values of props, never into HTML."""
