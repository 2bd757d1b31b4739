"""The bands of the paper, as printed, and the disagreement between its text and its figure."""

import math

import pytest

from nlcore.brainwaves import FIGURE, SOURCES, TEXT, Band, comparison, find


def limits(bands: tuple[Band, ...]) -> dict[str, tuple[float, float]]:
    return {band.name: (band.low, band.high) for band in bands}


def test_both_lists_are_as_printed() -> None:
    assert limits(TEXT) == {"gamma": (30, 150), "beta": (13, 30), "delta+theta": (0.5, 8)}
    assert limits(FIGURE) == {
        "delta": (0.5, 4),
        "theta": (4, 8),
        "alpha": (8, 12),
        "beta": (12, 30),
        "gamma": (30, 100),
    }


@pytest.mark.parametrize("bands", SOURCES.values(), ids=SOURCES)
def test_bands_go_from_fast_to_slow_and_do_not_overlap(bands: tuple[Band, ...]) -> None:
    assert all(slow.high <= fast.low for fast, slow in zip(bands, bands[1:], strict=False))
    assert all(
        band.low < band.centre < band.high and band.centre**2 == pytest.approx(band.low * band.high) for band in bands
    )


def test_the_figure_has_no_gap_and_the_text_has_one_where_alpha_is_missing() -> None:
    assert all(slow.high == fast.low for fast, slow in zip(FIGURE, FIGURE[1:], strict=False))
    assert [(slow.high, fast.low) for fast, slow in zip(TEXT, TEXT[1:], strict=False) if slow.high < fast.low] == [
        (8, 13)
    ]


def test_the_comparison_names_each_disagreement() -> None:
    assert [(name, words) for name, _, _, words in comparison()] == [
        ("gamma", "ends at 150 Hz in the text, 100 Hz in the figure"),
        ("beta", "begins at 13 Hz in the text, 12 Hz in the figure"),
        ("alpha", "only in the figure"),
        ("delta+theta", ""),
    ]
    assert [str(band) for _, band, _, _ in comparison()] == [
        "gamma 30-150 Hz", "beta 13-30 Hz", "None", "delta+theta 0.5-8 Hz",
    ]  # fmt: skip


def test_find_joins_bands_and_says_what_it_does_not_know() -> None:
    assert find("figure", "delta+theta") == Band("delta+theta", 0.5, 8)
    assert find("text", "alpha") is None and find("text", "delta") is None and find("figure", "delta+mu") is None
    with pytest.raises(ValueError, match=r"\['figure', 'text'\], got 'blog'"):
        find("blog", "beta")
    for low, high in ((0, 1), (2, 1), (1, math.inf), (math.nan, 1)):
        with pytest.raises(ValueError, match="0 < low < high"):
            Band("x", low, high)
