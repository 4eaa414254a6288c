"""What a reader of the page does, in a real browser: typing, stepping, playing, pushing and popping."""

import re

import pytest

SORTED = [[3, 1], [0, 5], [3, 0], [31, 31], [0, 2]]
EXPECTED = ["0, 5", "0, 2", "3, 1", "3, 0", "31, 31", "end"]


def test_a_typed_list_is_sorted(visit):
    reader = visit("#ham-sort")
    reader.enter(str(SORTED))
    assert reader.row(1) == reader.row(2) == EXPECTED
    assert "all 6 outputs right" in reader.text("#verdict")


def test_the_forms_of_python_and_a_sum_are_read(visit):
    reader = visit("#ham-sort")
    reader.enter("[(9, 4), (2, 7),]")
    assert reader.row(1) == ["2, 7", "9, 4", "end"]
    reader.open("#ham-stack")
    reader.enter("[('push', 7), ('push', 30), ('pop',)]")
    assert reader.row(2) == ["·", "·", "30"]
    reader.open("#ham-add")
    reader.enter("123456789012345678 + 987654321098765432")
    assert reader.text("#problem") == ""
    digits = reader.page.evaluate("lightningHam.solve('ham-add', '123456789012345678 + 987654321098765432').answer")
    assert int(digits) == 123456789012345678 + 987654321098765432
    total = format(int(digits), "b")[::-1]
    assert reader.row(1) == list(total[:32])  # the lowest digit first, as many as the table shows at once


@pytest.mark.parametrize(
    ("place", "typed", "said"),
    [
        ("#ham-sort", "", "Expected an instance, but got nothing."),
        ("#ham-sort", "[[9, 4], [2,", "Expected lists and numbers with commas between them, but"),
        ("#ham-sort", "hello", "Expected lists and numbers with commas between them, but"),
        ("#ham-sort", "[]", "Expected a list of pairs, but got an empty one."),
        ("#ham-sort", "7", "Expected a list of pairs, but got 7."),
        ("#ham-sort", "[[9, 4], [2, 40]]", "Expected values from 0 to 31, but got 40 (pair 2)."),
        ("#ham-sort", "[[9, 4], [2.5, 4]]", "Expected keys that are integers, but got 2.5 (pair 2)."),
        ("#ham-sort", "[[9, 4, 1]]", "Expected a (key, value) pair, but got 3 elements (pair 1)."),
        ("#ham-sort", '[["9", 4]]', 'Expected keys that are integers, but got "9" (pair 1).'),
        ("#ham-sort", str([[1, 1]] * 1025), "Expected at most 1,024 cells on this page, but got 1,025;"),
        ("#ham-reverse", "[7, 1024]", "Expected numbers from 0 to 1023, but got 1024 (number 2)."),
        ("#ham-search", "[[[9, 1], [2, 7]], 2]", "Expected pairs sorted by key, but got key 2 after 9 (pair 2)."),
        ("#ham-search", "[[[2, 7]], 3]", "Expected a query that is one of the keys, but got 3."),
        ("#ham-merge", "[[[0.5, 1], [0.2, 7]], []]", "(pair 2 of the first sequence)"),
        (
            "#ham-merge",
            "[[[0.5, 1]], [[0.5, 7]]]",
            "Expected priorities that differ as 32-bit numbers, but got 0.5 twice",
        ),
        ("#ham-merge", "[[], []]", "Expected at least one pair, but got two empty sequences."),
        ("#ham-merge", "[[[1.5, 1]], []]", "Expected priorities above 0 and up to 1, but got 1.5"),
        ("#ham-add", "[-1, 4]", "Expected numbers of at least 0, but got -1 (first number)."),
        (
            "#ham-queue",
            '[["push", 1], ["pop"], ["pop"]]',
            "Expected something to pop, but got an empty queue (operation 3).",
        ),
        ("#ham-stack", '[["peek"]]', 'Expected ["pop"] or ["push", value], but got ["peek"] (operation 1).'),
        (
            "#ham-priority-queue",
            '[["push", 1]]',
            'Expected ["pop"] or ["push", priority, value], but got ["push",1] (operation 1).',
        ),
    ],
)
def test_bad_input_is_refused_with_a_reason_and_the_last_run_stays(once, place, typed, said):
    reader = once
    if place not in reader.page.url:
        reader.open(place)
    before = reader.row(1)
    reader.enter(typed)
    assert said in reader.text("#problem")
    assert reader.page.get_attribute("#instance", "aria-invalid") == "true"
    assert reader.row(1) == before
    assert reader.complaints == []


def test_a_right_instance_takes_the_complaint_away(visit):
    reader = visit()
    reader.enter("[[9, 4")
    assert reader.text("#problem")
    reader.page.click("#shuffle")
    assert reader.text("#problem") == ""
    assert reader.page.get_attribute("#instance", "aria-invalid") == "false"


def test_steps_follow_buttons_keys_scrubber_and_columns(visit):
    reader = visit("#ham-sort")
    reader.enter(str(SORTED))
    place = lambda: reader.text("#place")  # noqa: E731
    assert place() == "1 of 6"
    assert "leaf 2 (0, 5)" in reader.text("#words")
    reader.page.click("#next")
    assert place() == "2 of 6"
    assert "leaf 5 (0, 2)" in reader.text("#words")
    assert reader.page.locator("#tree .leaf.attended").text_content() == "02"
    assert reader.page.locator("#tree .path").count() == 3
    reader.page.click("#last")
    assert place() == "6 of 6"
    assert "It puts out end, and is done." in reader.text("#words")
    assert reader.page.is_disabled("#next")
    reader.page.fill("#step", "2")
    assert place() == "3 of 6"
    reader.page.click("#outputs thead button >> nth=3")
    assert place() == "4 of 6"
    reader.page.focus("#stage")
    for key, expected in {"ArrowRight": 5, "ArrowLeft": 4, "Home": 1, "End": 6}.items():
        reader.page.keyboard.press(key)
        assert place() == f"{expected} of 6", key


def test_space_plays_to_the_end_and_pauses(visit):
    reader = visit("#ham-sort")
    reader.enter("[[9, 4], [2, 7]]")
    reader.page.focus("#stage")
    reader.page.keyboard.press("Space")
    assert reader.page.get_attribute("#play", "aria-label") == "Pause"
    reader.page.wait_for_function("document.querySelector('#place').textContent === '3 of 3'")
    reader.page.wait_for_function("document.querySelector('#play').getAttribute('aria-label') === 'Play'")
    reader.page.keyboard.press("Space")  # from the start again
    reader.page.wait_for_function("document.querySelector('#place').textContent === '2 of 3'")
    reader.page.keyboard.press("Space")
    assert reader.page.get_attribute("#play", "aria-label") == "Play"
    assert reader.text("#place") == "2 of 3"


def test_keys_typed_into_fields_stay_there(visit):
    reader = visit()
    reader.page.focus("#instance")
    before = reader.text("#place")
    for key in ("End", "Space", "ArrowLeft", "Home"):
        reader.page.keyboard.press(key)
    assert reader.text("#place") == before
    assert reader.page.get_attribute("#play", "aria-label") == "Play"


def test_every_control_can_be_reached_by_keyboard_and_shows_it(visit):
    reader = visit("#ham-stack")
    reached = {}
    for _ in range(60):
        reader.page.keyboard.press("Tab")
        name, outline = reader.page.evaluate(
            """() => {
              const at = document.activeElement;
              const shown = at.name === "model" ? at.nextElementSibling : at;
              return [at.id || at.name || at.className, getComputedStyle(shown).outlineStyle];
            }"""
        )
        reached[name] = outline
    wanted = {
        "theme",
        "model",
        "instance",
        "run",
        "shuffle",
        "length",
        "operand-value",
        "push",
        "clear",
        "stage",
        "play",
        "next",
        "step",
    }
    assert wanted <= reached.keys()
    assert {name for name in wanted if reached[name] == "none"} == set()


def test_arrow_keys_choose_a_model(visit):
    reader = visit("#ham-sort")
    reader.page.focus("input[value=ham-sort]")
    reader.page.keyboard.press("ArrowRight")
    assert "Add two numbers" in reader.text("#purpose")


@pytest.mark.parametrize(("name", "popped"), [("ham-stack", "43"), ("ham-queue", "12"), ("ham-priority-queue", "32")])
def test_pushes_and_pops_live(visit, name, popped):
    """Push 1 to 4, in a priority queue with priorities 9, 5, 1, 20, then pop two, and push until the tree grows."""
    reader = visit(f"#{name}")
    reader.page.click("#clear")
    assert reader.text("#inside") == "nothing"
    assert reader.page.is_disabled("#pop")
    for value, priority in zip((1, 2, 3, 4), (9, 5, 1, 20), strict=True):
        if name == "ham-priority-queue":
            reader.page.fill("#operand-priority", str(priority))
        reader.page.fill("#operand-value", str(value))
        reader.page.click("#push")
    for value in popped:
        reader.page.click("#pop")
        assert f"It puts out {value}, which is right." in reader.text("#words")
    assert reader.page.locator("#tree .leaf").count() == 8
    for _ in range(3):
        reader.page.click("#push")
    reader.settle()
    assert reader.page.locator("#tree .leaf").count() == 16
    assert reader.text("#place") == "9 of 9"
    assert "all 2 outputs right" in reader.text("#verdict")


def test_a_value_out_of_range_is_not_pushed(visit):
    reader = visit("#ham-stack")
    before = reader.page.input_value("#instance")
    for wrong in ("32", "-1", ""):
        reader.page.fill("#operand-value", wrong)
        reader.page.click("#push")
        assert "Expected values" in reader.text("#problem")
    assert reader.page.input_value("#instance") == before


def test_the_leaves_of_a_stack_show_what_the_network_wrote(visit):
    reader = visit("#ham-stack")
    reader.enter('[["push", 7], ["push", 30], ["pop"], ["push", 2]]')
    reader.page.click("#last")
    leaves = reader.page.locator("#tree .leaf").all_text_contents()
    assert sorted(leaf for leaf in leaves if leaf) == ["2", "7"]


def test_the_slider_goes_to_1024(visit):
    reader = visit("#ham-reverse")
    reader.page.focus("#length")
    reader.page.keyboard.press("End")
    reader.settle()
    assert reader.text("#length-words") == "1024 numbers"
    assert "all 1,025 outputs right" in reader.text("#verdict")
    reader.page.click("#map", position={"x": 5, "y": 200})
    step = int(reader.text("#place").split()[0].replace(",", ""))
    assert 400 < step < 600
    assert f"leaf {1025 - step} (" in reader.text("#words")
    drawn = reader.page.evaluate(
        """() => {
          const map = document.querySelector("#map");
          const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
          const at = (x, y) => data[4 * (Math.floor(y) * map.width + Math.floor(x)) + 3] > 40;
          const share = [0.1, 0.3, 0.7, 0.9];
          const row = (y) => [at(map.width - (y * map.width) / map.height, y), at((y * map.width) / map.height, y)];
          return share.map((part) => row(part * map.height));
        }"""
    )
    assert drawn == [[True, False]] * 4  # the last leaf first: marks on the falling diagonal only


def test_errors_are_marked_and_found(visit):
    """The LSTM without a memory, beside the network, is wrong at 12 pairs."""
    reader = visit(
        "#ham-sort/" + "".join(f"[[{31 - i}, {i}]" if not i else f",[{31 - i}, {i}]" for i in range(12)) + "]"
    )
    found = re.search(r"LSTM, no memory: (\d+) of 13 outputs wrong, first at (\d+)", reader.text("#verdict"))
    assert found
    wrong = reader.page.locator("#outputs tbody tr:nth-child(3) td.wrong")
    assert wrong.count() == int(found[1]) > 0
    assert "wrong" in wrong.first.text_content()
    reader.page.click("#last")
    reader.page.click("#verdict button")
    assert reader.text("#place") == f"{found[2]} of 13"
