"""The memory, in torch only: transformations, tree, attention, and one access."""

from lightning_ham.memory.attention import Access, AttentionMode, Estimator
from lightning_ham.memory.engine import Engine
from lightning_ham.memory.ham import HierarchicalAttentiveMemory
from lightning_ham.memory.transforms import JoinKind
from lightning_ham.memory.tree import Tree

__all__ = ["Access", "AttentionMode", "Engine", "Estimator", "HierarchicalAttentiveMemory", "JoinKind", "Tree"]
