"""Fault lists name what is wrong up to a limit, and count the rest."""

from embedsmith.support.errors import MissingExtraError, list_faults


def test_faults_are_listed_up_to_the_limit() -> None:
    message = list_faults("Faults:", [f"line {n}" for n in range(5)], advice="Fix.", limit=2)
    assert message == "Faults:\n  line 0\n  line 1\n  ... and 3 more\nFix."


def test_a_missing_extra_gives_the_command() -> None:
    message = str(MissingExtraError("mteb", extra="mteb", needed_for="This"))
    assert "pip install 'embedsmith[mteb]'" in message
