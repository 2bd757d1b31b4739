"""Ways to learn one task after the other and keep the old ones. Each works in any PyTorch loop.

Read them in this order: `lessons` (learn a task, be tested on all), `replay` (show some old examples again), `ewc`
(hold on to the weights that mattered), `class_means` (a classifier that cannot forget), `averages` (slow copies of the
weights, each with its own horizon), `two_rates` (a fast level that fades on a slow level), `lifetimes` (many seeds and
learning rates at once).
"""

from nlcore.continual.averages import WeightAverages
from nlcore.continual.class_means import NearestClassMean
from nlcore.continual.ewc import EWC, fisher
from nlcore.continual.lessons import accuracies, study
from nlcore.continual.lifetimes import all_at_once, lifetimes
from nlcore.continual.replay import Reservoir
from nlcore.continual.two_rates import TwoRates

__all__ = [
    "EWC",
    "NearestClassMean",
    "Reservoir",
    "TwoRates",
    "WeightAverages",
    "accuracies",
    "all_at_once",
    "fisher",
    "lifetimes",
    "study",
]
