"""All probes on all memories; and each probe on memories broken on purpose, which it must catch."""

from __future__ import annotations

import pytest

from tests.probe_subjects import SUBJECTS
from tests.probes import PROBES

BY_NAME = {subject.name: subject for subject in SUBJECTS}


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("probe", PROBES)
def test_probe(probe: str, name: str) -> None:
    subject = BY_NAME[name]
    if probe in subject.limits:  # what is known not to work fails, and says why
        with pytest.raises(Exception, match=subject.limits[probe]):
            PROBES[probe](subject)
        return
    PROBES[probe](subject)
