"""The memory, in torch only: transformations, tree, attention, and one access."""

from lightning_ham.memory.attention import Access, AttentionMode, Estimator
from lightning_ham.memory.engine import Engine
from lightning_ham.memory.ham import HierarchicalAttentiveMemory
from lightning_ham.memory.transforms import Join, JoinKind, join_kinds
from lightning_ham.memory.tree import Tree

__all__ = [
    "Access",
    "AttentionMode",
    "Engine",
    "Estimator",
    "HierarchicalAttentiveMemory",
    "Join",
    "JoinKind",
    "Tree",
    "join_kinds",
]
