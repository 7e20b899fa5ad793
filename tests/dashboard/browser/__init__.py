# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
