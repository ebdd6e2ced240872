"""sweep."""

from pathlib import Path
from typing import Annotated, Any

import typer

from embedsmith.cli.app import (
    SETTINGS_EPILOG,
    TAKES_SETTINGS,
    Device,
    app,
    at_home,
    heavy_imports,
    make_console,
    read_overrides,
)
from embedsmith.support.errors import ConfigError, RunError


@app.command("sweep", context_settings=TAKES_SETTINGS, epilog=SETTINGS_EPILOG)
def sweep_command(
    context: typer.Context,
    config: Annotated[Path, typer.Option(callback=at_home, help="Sweep file, or a recipe to vary (YAML).")],
    grid: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE,VALUE,... ; several behind one --grid, or repeat it."),
    ] = None,
    design: Annotated[
        str | None,
        typer.Option(help="one_at_a_time (each axis alone) or grid (every combination)."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="As in 7,8,9.")] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "--output_dir", callback=at_home, help="Folder of the runs and the pages."),
    ] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Write table and page of what there is.")] = False,
    device: Device = None,
) -> None:
    """Vary settings of a recipe, several seeds each; goes on where it was when started again."""
    with heavy_imports():
        from embedsmith.reporting.sweep_report import sweep_table
        from embedsmith.verbs.sweep import make_cells, read_sweep, report_sweep, run_sweep

    overrides: dict[str, Any] = {
        "output_dir": str(output_dir) if output_dir else None,
        "axes": read_axes(grid) if grid else None,
        "seeds": [seed.strip() for seed in seeds.split(",")] if seeds is not None else None,
        "design": design,
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    plan = read_sweep(config, overrides=given)
    cells = make_cells(plan, settings=read_overrides(context.args))
    console = make_console()
    if not report_only:
        run_sweep(plan, cells, device=device, console=console)
    points = report_sweep(plan, cells)
    console.print(sweep_table(points))
    console.print(f"Table and page: {plan.output_dir}/sweep.md, {plan.output_dir}/sweep.html")
    failures = [f"{point.axis} = {point.label}: {failure}" for point in points for failure in point.failures]
    if failures:
        raise RunError("\n".join(["Some runs failed:", *failures]))


def read_axes(grid: list[str]) -> dict[str, list[Any]]:
    """`KEY=A,B` -> {KEY: [A, B]}, the values of a setting read as everywhere on the command line.

    A comma inside brackets or braces parts nothing. A KEY of the user's own, for several settings at a time, is read as
    YAML: `KEY={label: {setting: value}},...`.

    Raises:
        ConfigError: no `=`, a KEY twice, or no YAML.
    """
    import yaml

    from embedsmith.settings.recipe import is_setting
    from embedsmith.settings.yaml_text import parse_yaml

    axes: dict[str, list[Any]] = {}
    for text in grid:
        key, equals, values = text.partition("=")
        if not equals:
            raise ConfigError(f"--grid is {text!r}. Write --grid KEY=VALUE,VALUE")
        if key in axes:
            raise ConfigError(f"--grid names {key} twice. Write all its values behind one: --grid {key}=VALUE,VALUE")
        try:
            axes[key] = split_values(values) if is_setting(key) else parse_yaml(f"[{values}]")
        except yaml.YAMLError:
            raise ConfigError(f"--grid {key}: the values cannot be read as a YAML list: {values!r}") from None
    return axes


def split_values(text: str) -> list[str]:
    """Parts between commas that stand in no bracket or brace; a text with a comma of its own needs a sweep file."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
