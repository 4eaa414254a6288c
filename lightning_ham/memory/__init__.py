"""The memory, in torch only: transformations, tree, attention, and one access."""

from lightning_ham.memory.attention import AttentionMode
from lightning_ham.memory.engine import Engine
from lightning_ham.memory.ham import Access, HierarchicalAttentiveMemory
from lightning_ham.memory.transforms import JoinKind
from lightning_ham.memory.tree import Tree

__all__ = ["Access", "AttentionMode", "Engine", "HierarchicalAttentiveMemory", "JoinKind", "Tree"]
