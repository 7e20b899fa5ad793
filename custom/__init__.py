# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""What runs inside a FLARE process, at a site or at the server. Gives way to the copy that a job brings."""

from custom.origin import give_way

give_way(__file__)
