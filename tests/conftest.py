"""What every test shares."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# a test must not depend on this machine's speed
settings.register_profile("tests", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
