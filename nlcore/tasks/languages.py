"""One text in twelve languages, the Universal Declaration of Human Rights: what is kept when a new language is learned.

All say the same, so a difference between two of them is a difference of language. One paragraph a line; about 11,000
characters each, in Latin, Greek and Cyrillic letters.
"""

from __future__ import annotations

from nlcore.tasks.texts import TEST_PART, Text, packaged_text, split_text

LANGUAGES = {
    "en": "English",
    "de": "German",
    "nl": "Dutch",
    "sv": "Swedish",
    "fr": "French",
    "it": "Italian",
    "es": "Spanish",
    "pt": "Portuguese",
    "fi": "Finnish",
    "tr": "Turkish",
    "el": "Greek",
    "ru": "Russian",
}


def language(code: str, test_part: float = TEST_PART) -> Text:
    """Return the declaration in a language.

    Args     code: a key of `LANGUAGES`; neighbours there are related. test_part: how much of its end is for testing.
    Returns  the Text.
    Raises   ValueError that names the languages there are.
    Source   OHCHR, UDHR in Unicode; see nlcore/data/PROVENANCE.md.
    """
    if code not in LANGUAGES:
        there_are = ", ".join(f"{code} ({name})" for code, name in LANGUAGES.items())
        raise ValueError(f"expected the code of a language, one of {there_are}; got {code!r}")
    return split_text(code, f"{LANGUAGES[code]}, human rights", packaged_text("languages", f"{code}.txt"), test_part)
