"""The controller: what uses the memory, and its options in a recipe."""

from torch import nn

from lightning_ham.controllers import LSTMHAM


class NeedleController(LSTMHAM):
    """LSTM+HAM with a hidden layer before the output bits.

    Args:
        input_size: Numbers in a cell; lightning_ham gives it.
        output_size: Bits in an output; lightning_ham gives it.
        controller_size: Cells of the LSTM.
        leaf_size: Numbers in a node of the tree.
        join: Name of the JOIN.
    """

    def __init__(
        self, input_size, output_size, controller_size: int = 32, leaf_size: int = 32, join: str = "needle_join"
    ):
        super().__init__(input_size, output_size, controller_size, leaf_size, join=join)
        size = controller_size + leaf_size
        self.head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, output_size))
