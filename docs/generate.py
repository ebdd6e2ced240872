"""Writes into the pages what the program knows of itself: `make docs`.

Between `<!-- generated: NAME -->` and `<!-- end -->` stands what `BLOCKS[NAME]` returns; `published.md` is written
whole. Nothing here depends on a terminal. `tests/docs/test_generate.py` fails where a page is stale.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import typer

from benchmarks.paper_tables import arms_table, runs_table, scores_table, steps_table
from embedsmith.cli import app
from embedsmith.model.layers.fused.families import FUSED_FAMILIES
from embedsmith.reporting.published import published_markdown
from embedsmith.settings import choices, config
from embedsmith.settings.contrast import Direction
from embedsmith.settings.families import FAMILIES
from embedsmith.settings.prompts import PROMPTS
from embedsmith.settings.recipe import describe_settings
from embedsmith.support import files
from tests.faults.table import FAULTS, GROUPS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
PAPER_PICTURE = ROOT / "docs" / "images" / "paper-steps.svg"
_BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def main() -> None:
    """Write every page whose generated blocks are stale, and the picture of one."""
    if (svg := paper_picture()) is not None:
        files.write_text(PAPER_PICTURE, svg)
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        fresh = render(path, text)
        if fresh != text:
            files.write_text(path, fresh)
            print(f"{path.relative_to(ROOT)} written")


def render(path: Path, text: str) -> str:
    """The page as it should be.

    Raises:
        KeyError: a block's name is not known.
    """
    if path.name == "published.md":
        return published_markdown()
    return _BLOCK.sub(lambda match: f"{match[1]}\n{BLOCKS[match[2]]()}\n\n{match[3]}", text)


def block_names(text: str) -> list[str]:
    """Names of the generated blocks of a page."""
    return [match[2] for match in _BLOCK.finditer(text)]


# ---- the command line ---------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Every command and group of the command line by its full name, in the order of `embedsmith --help`."""
    return dict(_walk("embedsmith", typer.main.get_command(app)))


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for inner_name, inner in _inner(command).items():
        yield from _walk(f"{name} {inner_name}", inner)


def _inner(command: Any) -> dict[str, Any]:
    """A group's commands in the order of its help; none of a single command."""
    if not hasattr(command, "commands"):
        return {}
    return {name: command.commands[name] for name in command.list_commands(typer.Context(command))}


def takes_settings(command: Any) -> bool:
    """Whether any setting of a recipe is an option of a command."""
    return bool(command.context_settings.get("allow_extra_args"))


def _help(name: str, command: Any) -> str:
    return _group_help(name, command) if hasattr(command, "commands") else _command_help(name, command)


def _group_help(name: str, group: Any) -> str:
    rows = [
        (f"[`{name} {inner}`](#{name.replace(' ', '-')}-{inner})", _purpose(command).rstrip("."))
        for inner, command in _inner(group).items()
    ]
    parts = [_purpose(group), _table(("command", "what it does"), rows)]
    if options := [_describe_parameter(parameter) for parameter in group.params]:
        shown = [(_code(option), default, meaning) for option, default, meaning in options]
        parts.append(_table(("option", "default", "meaning"), shown))
    return "\n\n".join(parts)


def _command_help(name: str, command: Any) -> str:
    """Usage, purpose, arguments and options."""
    parameters = [
        _describe_parameter(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)
    ]
    arguments = [shown for shown, _, _ in parameters if not shown.startswith("--")]
    usage = " ".join([name, *arguments, "[OPTIONS]", *(["[SETTINGS]"] if takes_settings(command) else [])])
    rows = [(_code(shown), default, meaning) for shown, default, meaning in parameters]
    parts = [_code(usage), _purpose(command), _table(("argument or option", "default", "meaning"), rows)]
    return "\n\n".join([*parts, *([_escape(command.epilog)] if command.epilog else [])])


def _purpose(command: Any) -> str:
    return _escape(" ".join(command.help.split()))


def _describe_parameter(parameter: Any) -> tuple[str, str, str]:
    """(as written, default, meaning)."""
    is_option = parameter.opts[0].startswith("--")
    meaning = _escape(" ".join((parameter.help or "").split()))
    if not is_option:
        shown = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    elif parameter.is_flag:
        shown = " / ".join([*parameter.opts, *parameter.secondary_opts])
    else:
        shown = f"{', '.join(parameter.opts)} {parameter.name.upper()}" + (" ..." if parameter.multiple else "")
    if parameter.required:
        return shown, "(required)", meaning
    if not is_option or not parameter.is_flag:
        return shown, "" if parameter.default is None else _code(str(parameter.default)), meaning
    default = {True: parameter.opts, False: parameter.secondary_opts, None: []}[parameter.default]
    return shown, _code(default[0]) if default else "", meaning


# ---- settings, names ----------------------------------------------------------------------------------------------


def _settings() -> str:
    """Every setting of a recipe: a table for each section."""
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for key, default, meaning in describe_settings():
        row = (_code(key), default if default == "(required)" else _code(default), _escape(meaning))
        rows.setdefault(key.rpartition(".")[0], []).append(row)
    parts = []
    for section, own in rows.items():
        if section:
            kind = config.RunConfig.model_fields[section].annotation
            parts += [f"## {section}", _escape(_first_paragraph(kind))]
        parts.append(_table(("setting", "default", "meaning"), own))
    return "\n\n".join(parts)


def _choices() -> str:
    """The words that some settings take, and what they mean."""
    kinds = (choices.Pooling, choices.Loss, choices.Precision, choices.Quantization, Direction)
    rows = [
        (", ".join(_code(value) for value in kind), " ".join((inspect.getdoc(kind) or "").split())) for kind in kinds
    ]
    return _table(("words", "meaning"), rows)


def _prompts() -> str:
    rows = [
        (_code(name), _code(prompt.template.replace("\n", "⏎")), "yes" if prompt.end_token else "no", prompt.source)
        for name, prompt in PROMPTS.items()
    ]
    return _table(("name", "template (⏎: a new line)", "end token", "source"), rows)


def _families() -> str:
    """Families with known LoRA targets, fused blocks, or both; minicpm runs as granite."""
    runs_as = {name: "granite" if name == "minicpm" else name for name in (*FAMILIES, *FUSED_FAMILIES)}
    rows = []
    for name in runs_as:
        family = FAMILIES.get(name)
        targets = ", ".join(_code(target) for target in family.lora_targets) if family else "name them"
        is_fused = runs_as[name] in FUSED_FAMILIES
        rows.append((family.title if family else name, _code(name), targets, "yes" if is_fused else "no"))
    return _table(("family", "`model_type`", "LoRA targets", "fused blocks"), rows)


def _recipes(folder: str) -> str:
    """Recipes of a folder, each with the first sentence of its comment."""
    rows = []
    for path in sorted((ROOT / folder).glob("*.yaml")):
        # The comment at the top, up to a command in it (which is indented) or its end.
        lines = takewhile(re.compile("# (?! )").match, path.read_text(encoding="utf-8").splitlines())
        sentence = re.split(r"(?<=\.) (?=[A-Z])", " ".join(line[2:] for line in lines))[0]
        rows.append((f"[`{path.stem}`](../{folder}/{path.name})", _escape(sentence.rstrip(":."))))
    return _table(("recipe", "what it is"), rows)


def _paper_results() -> list[Any]:
    """What was measured with `python -m benchmarks.paper`."""
    paths = sorted((ROOT / "docs" / "results").glob("paper-*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _paper(table: Callable[[Sequence[Any]], str]) -> str:
    """A table of docs/paper.md."""
    return table(_paper_results())


def _paper_steps() -> str:
    table = steps_table(_paper_results())
    return table and f"![Score over the steps](images/{PAPER_PICTURE.name})\n\n{table}"


def paper_picture() -> str | None:
    """The SVG of that page, if there is anything to draw."""
    from benchmarks.paper_plot import steps_svg

    results = _paper_results()
    return steps_svg(results) if steps_table(results) else None


def _faults() -> str:
    rows = [(group, str(len(faults))) for group, faults in GROUPS.items()]
    return _table(("what is faulty", "rows"), [*rows, ("all", str(len(FAULTS)))])


BLOCKS: dict[str, Callable[[], str]] = {
    **{f"{name} --help": partial(_help, name, one) for name, one in commands().items()},
    "embedsmith train --settings": _settings,
    "choices": _choices,
    "prompts": _prompts,
    "families": _families,
    "faults": _faults,
    "the paper's scores": partial(_paper, scores_table),
    "the paper's arms": partial(_paper, arms_table),
    "the paper's steps": _paper_steps,
    "the paper's runs": partial(_paper, runs_table),
    **{
        folder: partial(_recipes, folder)
        for folder in ("recipes", "recipes/paper", "recipes/methods", "recipes/sweeps", "recipes/searches")
    },
}


# ---- Markdown -----------------------------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, but for code between backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*\[\]])", r"\\\1", part) for part in parts)


def _first_paragraph(section: object) -> str:
    return " ".join((inspect.getdoc(section) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    main()
