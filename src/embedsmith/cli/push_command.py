"""push."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import app, at_home, heavy_imports, make_console


@app.command("push")
def push_command(
    folder: Annotated[
        Path, typer.Argument(callback=at_home, help="Of a finished run, an average, or what export wrote.")
    ],
    repository: Annotated[str, typer.Argument(help="On the hub: owner/name.")],
    public: Annotated[bool, typer.Option("--public", help="Anybody may read it; else you alone.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Put a commit on a repository that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Send a run or an export to a model hub, with its model card; the token is the hub client's own."""
    with heavy_imports():
        from embedsmith.verbs.push import plan_push, push

    plan = plan_push(folder, repository=repository, is_public=public, is_update=update)
    who = "to a repository that is there" if update else "public: anybody may read it" if public else "private"
    lines = [f"{repository} ({who}):", *(f"  {one.path}  {one.size_bytes:,} bytes" for one in plan.uploads)]
    lines += [f"Stays here: {', '.join(plan.left_out)}"] if plan.left_out else []
    unknown = "none is named: say one in README.md (license: ...) where the base asks for it"
    lines += [f"License: {plan.license or unknown}", *plan.remarks]
    console = make_console()
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    if dry_run:
        console.print("Nothing was sent.")
        return
    console.print(f"Sent: {push(plan)}", soft_wrap=True)
