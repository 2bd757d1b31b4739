"""Widgets: a figure with sliders that is live with a kernel and still moves without one.

Read `explorer` first; it uses `controls` (what a slider may be), `draw` (a figure to pixels), `live` (with a kernel),
`frames` and `page` (without one).
"""
