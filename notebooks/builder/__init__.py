"""The parts of notebooks/build.py: read a source, expand it, run it, check it.

Read them in this order: `project` (where things are), `sources` (what people edit), `card` and `readme` (the header
card and the table made from it), `execute` (sources become notebooks), then what is checked without running anything:
`pairs`, `outputs`, `structure`, `maths`, `names`, and `check`, which calls them all.
"""

import sys

# The library that nbformat loads to validate notebooks builds grammars of international web addresses as soon as it is
# imported. That takes longer than a whole check, no notebook needs it, and the library does without it.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
