"""Modules become one script that runs from a file on disk."""

import re

import pytest

from lightning_ham.page.bundle import bundled

START = 'import { double } from "./numbers.js";\nconst hidden = 3;\ndocument.title = double(hidden);\n'
NUMBERS = "const hidden = 2;\nexport function double(x) {\n  return hidden * x;\n}\n"


def test_a_bundle_runs_and_names_stay_apart(browser):
    page = browser.new_page()
    page.set_content(f"<script>{bundled({'start.js': START, 'numbers.js': NUMBERS}, 'start.js')}</script>")
    assert page.title() == "6"
    assert page.evaluate("typeof hidden") == "undefined"
    page.close()


def test_a_module_that_two_import_runs_once_and_before_them():
    modules = {
        "start.js": 'import { a } from "./a.js";\nimport { b } from "./b.js";\n',
        "a.js": 'import { b } from "./b.js";\nexport const a = b;\n',
        "b.js": "export const b = 1;\n",
    }
    assert re.findall(r"^// (\w+\.js)$", bundled(modules, "start.js"), re.MULTILINE) == ["b.js", "a.js", "start.js"]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"start.js": 'import x from "./a.js";'}, r"start.js:1: Expected an import or export that can be bundled"),
        ({"start.js": "export default 1;"}, r"start.js:1: Expected an import or export that can be bundled"),
        ({"start.js": 'import { x } from "./a.js";'}, "but start.js imports a.js"),
        (
            {"start.js": 'import { x } from "./a.js";', "a.js": "export const y = 1;"},
            "Expected one of y from a.js, but got x",
        ),
        (
            {"start.js": 'import { x } from "./a.js";', "a.js": 'import { y } from "./start.js";'},
            "start.js imports a.js imports start.js",
        ),
    ],
)
def test_what_cannot_be_bundled_is_refused(modules, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        bundled(modules, "start.js")
