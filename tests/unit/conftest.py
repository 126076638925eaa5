"""How hypothesis searches: differently each time on a developer's machine, the same way in CI."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline for one example: a shared core stops for longer than any of them takes.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True, max_examples=200)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")
