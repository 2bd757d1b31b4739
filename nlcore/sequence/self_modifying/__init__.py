"""Self-modifying Titans: memories that rewrite, in context, also how they generate keys, values and learning rates."""

from nlcore.sequence.self_modifying.boxes import transition_eigenvalue
from nlcore.sequence.self_modifying.layer import SelfModifyingTitans
from nlcore.sequence.self_modifying.memory import self_modifying_memory
from nlcore.sequence.self_modifying.network_memory import self_modifying_networks
from nlcore.sequence.self_modifying.networks import NetworkBoxes, NetworkState
from nlcore.sequence.self_modifying.rules import Boxes, Rules
from nlcore.sequence.self_modifying.state import SelfModifyingState

__all__ = [
    "Boxes",
    "NetworkBoxes",
    "NetworkState",
    "Rules",
    "SelfModifyingState",
    "SelfModifyingTitans",
    "self_modifying_memory",
    "self_modifying_networks",
    "transition_eigenvalue",
]
