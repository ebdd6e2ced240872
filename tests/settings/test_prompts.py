"""Templates: names, instructions, and what a template may hold."""

import pytest

from embedsmith.settings.prompts import PROMPTS, Prompt, read_prompt, resolve_template
from embedsmith.support.errors import ConfigError


@pytest.mark.parametrize("name", PROMPTS)
def test_a_name_stands_for_its_template(name: str) -> None:
    template = resolve_template(name)
    prompt = read_prompt(template, instruction="find it")
    assert prompt.template == template.replace("{instruction}", "find it")
    assert prompt.around("X").count("X") == len(prompt.parts) - 1


def test_prompteol_is_the_published_template() -> None:
    assert read_prompt(PROMPTS["prompteol"].template).around("A b.") == 'This sentence : "A b." means in one word:"'


def test_no_template_is_the_bare_text() -> None:
    assert read_prompt(None) == Prompt(("", ""))
    assert read_prompt(None).is_empty


def test_braces_in_a_text_stay_as_they_are() -> None:
    assert read_prompt("say {text}!").around("{text} {x}") == "say {text} {x}!"


def test_an_instruction_must_be_there_and_hold_no_field() -> None:
    with pytest.raises(ConfigError, match="needs an instruction"):
        read_prompt("{instruction}: {text}")
    with pytest.raises(ConfigError, match=r"instruction holds \{text\}"):
        read_prompt("{instruction}: {text}", instruction="see {text}")


def test_a_misspelt_name_gets_the_closest() -> None:
    with pytest.raises(ValueError, match="did you mean prompteol"):
        resolve_template("prompt-eol")
