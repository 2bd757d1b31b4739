"""Five stretches of English from four centuries, 95,000 characters each: what changes when a reader moves on in time.

shakespeare   1609   Sonnets                       roosevelt   1934   addresses to the Congress, from 1934 on
austen        1818   Persuasion                    obama       2010s  addresses to the Congress
lincoln       1861   messages to the Congress
"""

from __future__ import annotations

from nlcore.tasks.texts import TEST_PART, Text, packaged_text, split_text

ERAS = {
    "shakespeare": ("Shakespeare, Sonnets, 1609", "shakespeare_1609.txt"),
    "austen": ("Jane Austen, Persuasion, 1818", "austen_1818.txt"),
    "lincoln": ("Abraham Lincoln, messages to the Congress, from 1861", "sotu_1861_lincoln.txt"),
    "roosevelt": ("Franklin D. Roosevelt, addresses to the Congress, from 1934", "sotu_1934_fdr.txt"),
    "obama": ("Barack Obama, addresses to the Congress, from 2010", "sotu_2010s_obama.txt"),
}


def era(name: str, test_part: float = TEST_PART) -> Text:
    """Return the text of an era.

    Args     name: a key of `ERAS`, oldest first. test_part: how much of its end is for testing.
    Returns  the Text, plain ASCII; both parts together are 95,000 characters.
    Raises   ValueError that names the eras there are.
    Source   See nlcore/data/PROVENANCE.md; all five are in the public domain.
    """
    if name not in ERAS:
        raise ValueError(f"expected an era, one of {', '.join(ERAS)}; got {name!r}")
    title, file = ERAS[name]
    return split_text(name, title, packaged_text("eras", file), test_part)
