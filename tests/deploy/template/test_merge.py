"""A template written anew keeps what people wrote into it. Whatever somebody writes says "mine" here."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import ConfigurationError
from pipeline.aws.cloudformation.values import Noted, Ref, Sub
from pipeline.deploy.template import blocks, document, merge
from pipeline.deploy.template.assembly import Template
from tests.deploy.template.reading import read

Edit = Callable[[str], str]
#: What the code declares, before and after: names with a value.
BEFORE = {"Alpha": 1, "Beta": 2, "Gamma": 3}
AFTER = {"Alpha": 1, "Beta": 20, "Delta": 4, "Gamma": 3}


def generated(entries: Mapping[str, int]) -> str:
    return _generated(tuple(entries.items()))


@functools.cache
def _generated(pairs: tuple[tuple[str, int], ...]) -> str:
    entries = dict(pairs)
    sections: dict[str, Any] = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Description": "A shop",
        "Parameters": {"Stage": {"Type": "String", "Default": "dev"}},
        "Globals": {"Function": {"Runtime": "python3.14", "Tags": {"a": Ref("Stage"), "b": 1, "c": 2}}},
        "Resources": {name: resource(value) for name, value in entries.items()},
        "Outputs": {f"{name}Url": {"Description": "An address", "Value": Ref(name)} for name in entries},
    }
    whys = {name: f"Why {name} is here." for name in entries}
    headings = {name: f"handler {name}" for name in entries}
    return merge.sealed(document.text_of(Template(sections, headings, whys, []), "Written by a tool."))


def resource(value: int) -> dict[str, Any]:
    lines = Sub(f'{{"one": {value},\n# no comment\n"two": 2}}')
    return {"Type": "AWS::A::B", "Properties": {"Value": Noted(value, f"Why {value}."), "List": [1, 2], "Text": lines}}


def above(line: str, text: str) -> Edit:
    """Put text above a line."""
    return lambda old: once(old, f"\n{line}", f"\n{text}{line}")


def instead(one: str, other: str) -> Edit:
    return lambda old: once(old, one, other)


def once(old: str, one: str, other: str) -> str:
    assert one in old, f"{one!r} is not in the template"
    return old.replace(one, other, 1)


def without(section: str, entry: str) -> Edit:
    """Take an entry out."""

    def edit(old: str) -> str:
        taken = blocks.parse(old, "a test's").blocks[section, entry]
        return once(old, taken, "")

    return edit


def to_the_end(section: str, entry: str) -> Edit:
    """Put an entry behind all others of its section."""

    def edit(old: str) -> str:
        parts = blocks.parse(old, "a test's")
        parts.blocks[section, entry] = parts.blocks.pop((section, entry))
        last = [key for key in parts.blocks if key[0] == section]
        order = [key for key in parts.blocks if key not in last]
        place = max(position for position, key in enumerate(order) if key[0] == "Globals") + 1
        parts.blocks = {key: parts.blocks[key] for key in [*order[:place], *last, *order[place:]]}
        return parts.text

    return edit


MINE = "  Mine:\n    Type: AWS::Mine::Mine # mine\n    Properties: {A: mine}\n"
ALPHA = "  # --- handler Alpha ---"
#: Each with what is said of it, when the code has not changed: edited, foreign, missing.
EDITS: dict[str, tuple[Edit, tuple[list[str], list[str], list[str]]]] = {
    "a resource at the end": (instead("\nOutputs:", f"\n{MINE}\nOutputs:"), ([], ["Resources.Mine"], [])),
    "a resource at the beginning": (instead("Resources:\n", f"Resources:\n{MINE}"), ([], ["Resources.Mine"], [])),
    "a resource in the middle": (above("  # --- handler Beta ---", f"{MINE}"), ([], ["Resources.Mine"], [])),
    "a parameter": (above("Globals:", "  Mine:\n    Type: String\n    Default: mine\n"), ([], ["Parameters.Mine"], [])),
    "an output": (instead("Outputs:\n", "Outputs:\n  Mine:\n    Value: mine\n"), ([], ["Outputs.Mine"], [])),
    "a section at the end": (lambda old: old + "Mappings:\n  Mine:\n    mine: {a: b}\n", ([], ["Mappings.Mine"], [])),
    "a section at the top": (lambda old: "Mappings:\n  Mine:\n    mine: {a: b}\n" + old, ([], ["Mappings.Mine"], [])),
    "a section in the middle": (above("Resources:", "Hooks:\n  Mine: {a: mine}\n"), ([], ["Hooks"], [])),
    "a section in braces": (above("Resources:", "Hooks: {a: mine}\n"), ([], ["Hooks"], [])),
    "a property": (instead("      Value: 2\n", "      Value: mine\n"), (["Resources.Beta"], [], [])),
    "one more property": (instead("      Value: 2\n", "      Value: 2\n      Mine: mine\n"), (["Resources.Beta"], [], [])),
    "a parameter's default": (instead("Default: dev", "Default: mine"), (["Parameters.Stage"], [], [])),
    "globals": (instead("python3.14", "mine3.15"), (["Globals"], [], [])),
    "the description": (
        instead("Description: A shop", "Description: mine"), (["Description"], [], [])),
    "a comment's text": (instead("# Why Beta is here.", "# mine: why Beta is here."), (["Resources.Beta"], [], [])),
    "a comment's text inside": (instead("# Why 2.", "# mine"), (["Resources.Beta"], [], [])),
    "a comment above": (above("  Beta:\n", "  # mine\n"), (["Resources.Beta"], [], [])),
    "a comment between entries": (above(ALPHA.replace("Alpha", "Beta"), "\n  # mine\n\n"), (["Resources.Beta"], [], [])),
    "a comment in the first column": (above("  Beta:\n", "# mine\n"), (["Resources.Beta"], [], [])),
    "a comment behind a value": (instead("      Value: 2\n", "      Value: 2  # mine\n"), (["Resources.Beta"], [], [])),
    "a comment with a tab": (instead("      Value: 2\n", "      Value: 2  # mine\tmine\n"), (["Resources.Beta"], [], [])),
    "a comment inside, deeper": (instead("      List:", "          # mine\n      List:"), (["Resources.Alpha"], [], [])),
    "a comment at the end of a section": (above("Outputs:", "  # mine\n"), (["Resources.Gamma"], [], [])),
    "a comment above a section": (above("Outputs:", "# mine\n"), ([], [], [])),
    "a comment at the top": (lambda old: "# mine\n" + old, (["AWSTemplateFormatVersion"], [], [])),
    "a document's start": (lambda old: "# mine\n---\n" + old, ([], [], [])),
    "a comment at the end": (lambda old: old + "\n# mine\n", ([], [], [])),
    "a comment at the end, indented": (lambda old: old + "      # mine\n", ([], [], [])),
    "a comment behind a digest": (instead("\n    Generated:\n", "\n    Generated: # mine\n"), ([], [], [])),
    "a comment among the digests": (instead("\n      Resources.Beta", "\n      # mine\n      Resources.Beta"), ([], [], [])),
    "metadata at the end": (lambda old: old + "  Mine:\n    a: mine\n", ([], ["Metadata.Mine"], [])),
    "metadata before": (instead("\n  Pipeline:\n", "\n  Mine:\n    a: mine\n  Pipeline:\n"), ([], ["Metadata.Mine"], [])),
    "metadata below ours": (lambda old: old + "    Mine:\n      a: mine\n", ([], [], [])),
    "a removed resource": (without("Resources", "Beta"), ([], [], ["Resources.Beta"])),
    "a removed output": (without("Outputs", "AlphaUrl"), ([], [], ["Outputs.AlphaUrl"])),
    "a removed parameter, the only one": (without("Parameters", "Stage"), ([], [], ["Parameters.Stage"])),
    "another order": (to_the_end("Resources", "Alpha"), ([], [], [])),
    "no digests": (lambda old: old[: old.index("\n# What was generated")], ([], [], [])),
}  # fmt: skip
every_edit = pytest.mark.parametrize("name", EDITS)


def reports(found: merge.Merged) -> tuple[list[str], list[str], list[str]]:
    return found.edited, found.foreign, found.missing


def places(text: str) -> list[tuple[str, str]]:
    """Each line that somebody wrote, with the section in which it stands."""
    section, found = "", []
    lines = text.replace("\r\n", "\n").split("\n")
    for position, line in enumerate(lines):
        if re.match(r"\w+:", line):
            section = line.partition(":")[0]
        if "mine" in line.lower():
            # A comment in the first column is about what follows.
            ahead = next((one.partition(":")[0] for one in lines[position:] if re.match(r"\w+:", one)), "end")
            # Behind a digest, it gets a line of its own.
            said = re.sub(r"^ *(Generated: )?", "", line) if section == "Metadata" else line
            found.append((ahead if line.startswith("#") else section, said))
    return sorted(found)


def check(old: str, new: str) -> merge.Merged:
    """What holds for every merge; `old`: the file as somebody left it."""
    found = merge.merged(new, old, "template.yaml")
    again = merge.merged(new, found.text, "template.yaml")

    assert places(found.text) == places(old)
    assert again.text == found.text
    read(found.text)
    return found


@pytest.mark.parametrize("entries", [BEFORE, AFTER, {}], ids=["some", "more", "none"])
def test_without_edits_every_byte_is_as_generated(entries: dict[str, int]) -> None:
    text = generated(entries or {"One": 1})
    found = merge.merged(text, text, "template.yaml")

    assert (found.text, found.is_ours) == (text, True)


def test_without_edits_the_next_version_is_as_generated_but_for_order_and_empty_lines() -> None:
    found = check(generated(BEFORE), generated(AFTER))

    assert found.is_ours
    assert read(found.text) == read(generated(AFTER))
    assert list(read(found.text)["Resources"]) == list(AFTER)


@every_edit
def test_an_edit_stays_and_is_reported(name: str) -> None:
    edit, said = EDITS[name]
    old = edit(generated(BEFORE))
    found = check(old, generated(BEFORE))

    assert reports(found) == said
    if name not in ("no digests", "a removed parameter, the only one"):
        assert found.text == old, "there was nothing to write"


@every_edit
def test_an_edit_stays_when_the_code_has_changed_too(name: str) -> None:
    old = EDITS[name][0](generated(BEFORE))
    found = check(old, generated(AFTER))
    values, wanted = read(found.text), read(generated(AFTER))
    written = {f"{section}.{entry}" for section in ("Resources", "Outputs") for entry in wanted[section]}

    for place in written - set(found.edited) - set(found.missing):
        section, entry = place.split(".")
        assert values[section][entry] == wanted[section][entry], place
    for place in found.foreign:
        section, _, entry = place.partition(".")
        assert "mine" in str(values[section][entry] if entry else values[section])


@every_edit
def test_an_edit_stays_when_all_of_the_code_is_another(name: str) -> None:
    check(EDITS[name][0](generated(BEFORE)), generated({"Omega": 9}))


@given(
    st.lists(st.sampled_from(sorted(EDITS)), min_size=1, max_size=4, unique=True),
    st.booleans(),
    st.integers(0, 4),
    st.booleans(),
)
@settings(max_examples=40)
@example(["a resource at the end"], True, 4, True)
@example(["no digests", "a comment at the end"], False, 0, True)
@example(["a document's start", "a section at the top"], False, 0, False)
def test_edits_stay_together_with_other_line_ends_and_indentation(
    names: list[str], has_crlf: bool, wider: int, has_end: bool
) -> None:
    old = generated(BEFORE)
    for name in sorted(names, key=lambda name: name == "a document's start"):  # nothing stands above that
        try:
            old = EDITS[name][0](old)
        except (
            AssertionError,
            ConfigurationError,
            KeyError,
            ValueError,
        ):  # the edits before took away what this one is about
            continue
    old = re.sub(r"(?m)^(?= )", " " * wider, old)
    old = old if has_end else old.removesuffix("\n")
    old = old.replace("\n", "\r\n") if has_crlf else old
    try:
        found = check(old, generated(AFTER))
    except ConfigurationError as error:
        assert "two '" in str(error)  # noqa: PT017 - two of the edits put in one name
        return
    assert ("\r\n" in found.text) is has_crlf
    assert not re.search(r"[^\r]\n", found.text) or not has_crlf, "all lines end alike"


def test_entries_of_the_next_version_stand_in_their_section_before_what_follows_it() -> None:
    old = EDITS["a resource at the end"][0](generated(BEFORE))
    found = check(old, generated({**AFTER, "Zeta": 5}))

    assert list(read(found.text)["Resources"]) == ["Alpha", "Beta", "Delta", "Gamma", "Zeta", "Mine"]
    assert list(read(found.text)["Outputs"]) == [f"{name}Url" for name in (*AFTER, "Zeta")]


def test_what_the_code_no_longer_declares_goes_unless_somebody_changed_it() -> None:
    old = EDITS["a property"][0](generated(BEFORE))
    found = check(old, generated({"Alpha": 1}))

    assert list(read(found.text)["Resources"]) == ["Alpha", "Beta"]
    assert (found.edited, found.foreign, found.missing) == (["Resources.Beta"], [], [])


def test_what_somebody_took_out_is_not_put_back_as_long_as_the_code_has_it() -> None:
    text = EDITS["a removed resource"][0](generated(BEFORE))
    for version in (BEFORE, AFTER, BEFORE):
        text = merge.merged(generated(version), text, "template.yaml").text
        assert "Beta" not in read(text)["Resources"]
    gone = merge.merged(generated({"Alpha": 1}), text, "template.yaml").text

    assert "Beta" in read(merge.merged(generated(BEFORE), gone, "template.yaml").text)["Resources"]


def test_a_template_from_before_the_digests_keeps_what_differs_and_gets_what_is_new() -> None:
    old = generated({**BEFORE, "Old": 7})
    old = old[: old.index("\n# What was generated")]
    found = check(old, generated(AFTER))

    assert (found.edited, found.foreign) == (["Resources.Beta"], ["Resources.Old", "Outputs.OldUrl"])
    assert list(read(found.text)["Resources"]) == ["Alpha", "Beta", "Delta", "Gamma", "Old"]


def test_indentation_and_quotes_alone_are_no_edit() -> None:
    old = generated(BEFORE).replace("Description: A shop", 'Description:   "A shop"')

    assert merge.merged(generated(BEFORE), old, "template.yaml").is_ours
    assert "two: 2" not in generated(BEFORE)


@pytest.mark.parametrize("empty", ["", " # mine"])
def test_a_section_that_is_empty_takes_entries(empty: str) -> None:
    old = f"Resources:\n  Mine:\n    Type: AWS::Mine::Mine\nOutputs:{empty}\nMappings:\n  Mine: {{a: {{b: c}}}}\n"
    found = check(old, generated(BEFORE)) if "mine" in empty else merge.merged(generated(BEFORE), old, "t")

    assert list(read(found.text)["Outputs"]) == [f"{name}Url" for name in BEFORE]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("\tResources:\n  A: 1\n", "is not YAML"),
        ("Resources:\n  A: 1\n B: 2\n", "is not YAML"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("a: \x00\n", "is not YAML"),
        ("", "block style"),
        ("# nothing\n", "block style"),
        ("- a\n- b\n", "block style"),
        ("text\n", "block style"),
        ('{"Resources": {"A": {"Type": "B"}}}', "block style"),
        ("Resources: {A: {Type: B}}\n", "'Resources' is written in braces"),
        ("Outputs: ~\n", "'Outputs' is no list of entries"),
        ("a: 1\t# tab\n", "is not YAML"),
        ("Outputs: {}\n", "'Outputs' is no list of entries"),
        ("Resources: text\n", "'Resources' is no list of entries"),
        ("Resources:\n  - A\n", "'Resources' is no list of entries"),
        ("Resources:\n  A: &a [*a, *a]\n", "loops back into itself"),
        ("Mappings: &a\n  A: 1\nResources: *a\n", "alias"),
        ("Resources:\n  A: 1\nResources:\n  B: 2\n", "there are two 'Resources'"),
        ("Resources:\n  A: 1\n  A: 2\n", "there are two 'A'"),
        ("? Resources\n: {}\n", "does not begin a line"),
        ("a: " + "[" * 400, "is not YAML"),
        ("a: " + "[" * 150 + "]" * 150 + "\n", "nested"),
        ("Resources:\n      Mine:\n        a: 1\n        b: |\n    x\n", "is not YAML"),
    ],
)  # fmt: skip
def test_what_is_no_template_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(?s)^template\.yaml.*{re.escape(said)}|{said}"):
        merge.merged(generated(BEFORE), text, "template.yaml")


@given(st.text(st.sampled_from("ab:#- \n\r\t'\"{}[]&*|>?!\u2028\x85\ufeffResources"), max_size=60))
@example("Resources:\r\n  a: 1\r  b: 2\n")
@example("\ufeffResources:\n  a: 1\n")
@example("a: 'b\u2028c'\nd: 1")
def test_any_text_is_refused_or_taken_apart_without_loss(text: str) -> None:
    try:
        parts = blocks.parse(text, "template.yaml")
    except ConfigurationError:
        return
    assert parts.text == text


@pytest.mark.parametrize(
    "edit",
    [
        lambda old: old + "...\nMine: 1\n",
        lambda old: old[: old.index("\n# What was generated")] + "...\n",
        lambda old: once(once(old, "  Beta:\n", "  Beta: &mine\n"), "Outputs:\n", "Outputs:\n  Mine: *mine\n"),
        lambda old: old[: old.index("\n# What was generated")] + "Metadata:\n  Pipeline: mine\n",
        lambda old: old + "     Mine: 1\n",
    ],
    ids=[
        "two documents",
        "an end and something new",
        "an alias of what is written anew",
        "another value",
        "a wrong column",
    ],
)
def test_what_cannot_be_put_together_is_refused(edit: Edit) -> None:
    old = edit(generated(BEFORE))
    with pytest.raises(ConfigurationError, match=r"template\.yaml.*(do not go together|is not YAML)"):
        merge.merged(generated({**AFTER, "Zeta": 1}), old, "template.yaml")


def test_what_refers_to_what_the_code_no_longer_declares_is_named() -> None:
    role = 'Resources:\n  Mine:\n    Type: AWS::SQS::Queue\n    Properties:\n      Tags:\n        - Key: !Sub "${Beta} ${AWS::Region} ${!x}"\n          Value: !GetAtt Alpha.Arn\n'
    old = generated(BEFORE).replace("Resources:\n", role, 1)

    assert merge.merged(generated(BEFORE), old, "t").dangling == []
    without = {name: value for name, value in BEFORE.items() if name not in ("Alpha", "Beta")}
    found = merge.merged(generated(without), old, "t").dangling
    assert found == [
        f"Resources.Mine refers to '{name}', which is not in the template"
        for name in ("Alpha", "Beta")
        if name in BEFORE
    ]
    assert found
