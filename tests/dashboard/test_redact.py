# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest

from dashboard.redact import HIDDEN, redact


@pytest.mark.parametrize(
    "line",
    [
        "Got the token: 7a2c1e55-0b7e-4a8f-9d57-1f0d7f3c9a11 from the server",
        "{'token': '7a2c1e55-0b7e-4a8f-9d57-1f0d7f3c9a11', 'site': 'site-1'}",
        "password=hunter2",
        'api_key = "abc def"',
        "Authorization: Bearer abc.def.ghi",
        "ssid=7a2c1e55-0b7e-4a8f-9d57-1f0d7f3c9a11",
        "https://ann:hunter2@mirror.example/simple",
        "git+ssh://ann:hunter2@mirror.example/simple",
        "a.b.c://ann:hunter2@mirror.example",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nhunter2\n-----END PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBg (cut off)",
    ],
)
def test_secrets_are_hidden(line: str) -> None:
    shown = redact(line)
    assert HIDDEN in shown
    assert not any(secret in shown for secret in ("7a2c1e55", "hunter2", "abc", "def", "MIIE"))


@pytest.mark.parametrize(
    "line",
    [
        "max tokens: 128, vocabulary 30522",
        "round 3/10  val_accuracy 0.712 (+0.018)  2/2 sites  up 1.3 MB  14.2 s",
        "expected key conv1.weight: (6, 3, 5, 5), got (6, 1, 5, 5)",
        "task_id: 7a2c1e55-0b7e-4a8f-9d57-1f0d7f3c9a11",
    ],
)
def test_the_rest_stays(line: str) -> None:
    assert redact(line) == line
