"""The pictures of a sweep show every trial and every key."""

from lightning_ham.pictures.png import drawn_from
from lightning_ham.pictures.sweep import Outcome, draw_history, draw_importance


def test_they_carry_what_they_show():
    outcomes = [Outcome(0, 3.5, is_pruned=True), Outcome(1, 0.25, is_pruned=False), Outcome(4, -0.5, is_pruned=False)]
    history = draw_history(outcomes, 8, "mine")
    assert drawn_from([list(outcome) for outcome in outcomes]).encode() in history
    assert draw_history(outcomes[:1], 2, "mine") != history, "pruned trials alone are shown, too"
    shares = {"data.batch_size": 0.25, "model.schedule.learning_rate": 0.75}
    assert drawn_from(shares).encode() in draw_importance(shares, "mine")
