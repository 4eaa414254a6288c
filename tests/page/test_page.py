"""The page as a document: screens, colours, motion, the network, and links to itself."""

import re

import pytest

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


def test_nothing_is_wider_than_a_phone(visit):
    reader = visit(**PHONE)
    for name in ("ham-sort", "ham-merge", "ham-add", "ham-priority-queue"):
        reader.open(f"#{name}")
        for length in ("0", "8"):
            reader.page.fill("#length", length)
            reader.settle()
            reader.page.click("#last")
            reader.page.click("#map", position={"x": 5, "y": 100})  # in the middle, where most is inside a structure
            wide, screen = reader.page.evaluate(WIDTHS)
            assert wide == screen == 390, (name, length)
    small = reader.page.evaluate(
        "[...document.querySelectorAll('main button:not(thead button), header button, .models label')]"
        ".filter((one) => one.offsetParent && one.getBoundingClientRect().height < 44).length"
    )
    assert small == 0  # fingers need 44 pixels


def test_no_request_leaves_and_nothing_complains(visit, site):
    reader = visit()
    for name in ("ham-sort", "ham-queue", "ham-search"):
        reader.open(f"#{name}")
        reader.page.click("#shuffle")
        reader.page.click("#last")
    asked = {address for address in reader.requests if not address.startswith(("data:", "about:"))}
    assert {address.partition("#")[0] for address in asked} == {
        site.with_name(name).as_uri() for name in ("index.html", "page.css", "page.js", "models.js")
    }
    assert reader.complaints == []


def colours(reader) -> tuple[str, str]:
    return tuple(
        reader.page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    )


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    light, dark = sorted(map(luminance, (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_switch(visit, scheme):
    reader = visit(color_scheme=scheme)
    ground, ink = colours(reader)
    assert (luminance(ground) > 0.5) == (scheme == "light")
    assert contrast(ground, ink) > 7
    reader.page.click("#theme")
    assert (luminance(colours(reader)[0]) > 0.5) == (scheme == "dark")
    reader.open()  # the choice is kept
    assert (luminance(colours(reader)[0]) > 0.5) == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(visit, scheme):
    reader = visit("#ham-sort", color_scheme=scheme)
    reader.page.click("#last")
    pairs = reader.page.evaluate(
        """() => {
          const names = [".fine", ".lead", "td.wrong", "#run", ".verdict .bad", "dt", "#words", ":checked + span"];
          return names.map((name) => {
          const element = document.querySelector(name);
          let ground = element;
          while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
          return [name, getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
          });
        }"""
    )
    assert {name: contrast(ink, ground) for name, ink, ground in pairs if contrast(ink, ground) < 4.5} == {}


def test_motion_is_reduced_where_it_is_asked_for(visit):
    running = "document.getAnimations().filter((one) => one.effect.getComputedTiming().duration > 0).length"
    moving = visit("#ham-sort", reduced_motion="no-preference")
    still = visit("#ham-sort", reduced_motion="reduce")
    assert moving.page.evaluate(f"(document.querySelector('#next').click(), {running})") > 0
    assert still.page.evaluate(f"(document.querySelector('#next').click(), {running})") == 0
    assert still.text("#place") == "2 of 8"


def test_an_address_brings_back_model_and_instance(visit):
    reader = visit("#ham-reverse")
    reader.enter("[1, 2, 3]")
    address = reader.page.url
    assert address.startswith(reader.address)
    again = visit(address.removeprefix(reader.address))
    assert again.page.input_value("#instance") == "[1, 2, 3]"
    assert again.row(1) == ["3", "2", "1", "end"]


@pytest.mark.parametrize("place", ["#no-such-model", "#ham-sort/%", "#ham-sort/[[99]]", "#"])
def test_a_wrong_address_does_not_break_the_page(visit, place):
    reader = visit(place)
    assert reader.complaints == []
    reader.page.click("#shuffle")
    reader.settle()
    assert "right" in reader.text("#verdict")


def test_pictures_and_fields_have_names(visit):
    reader = visit("#ham-stack")
    unnamed = reader.page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, svg[role=img], canvas[role=img]")]
          .filter((one) => one.offsetParent !== null)
          .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.getAttribute("aria-labelledby")
            || (one.labels && [...one.labels].some((label) => label.textContent.trim()))))
          .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
