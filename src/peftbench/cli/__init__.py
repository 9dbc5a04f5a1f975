"""The command line. Each command parses its options and calls one public function; each file holds related commands."""

import io
import sys
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from peftbench.cli import (
    advise,
    authoring,
    data,
    evaluate,
    gate,
    import_export,
    list_and_show,
    plan,
    reproduce,
    score,
    verify,
)
from peftbench.cli.run_status_report import report as report
from peftbench.cli.run_status_report import run
from peftbench.cli.run_status_report import status as status
from peftbench.core.registry import UserError
from peftbench.core.text_escaping import problems, visible


class Verbs(TyperGroup):
    """All commands. An invalid value of an option is reported in the same form as other errors."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = problems(error.__cause__)[1]
            raise


app = typer.Typer(
    name="peftbench",
    cls=Verbs,
    help="Which parameter-efficient fine-tuning method should I use, and is the difference real?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    run,
    evaluate.evaluate,
    gate.gate,
    plan.plan,
    plan.calibrate,
    status,
    report,
):
    app.command()(verb)
app.command()(score.score)
app.command()(advise.advise)
app.command("import")(import_export.import_published)
app.command()(import_export.export)
app.command("list")(list_and_show.list_units)
app.command()(list_and_show.show)
app.command()(data.fetch)
app.command()(reproduce.reproduce)
app.command()(verify.verify)
app.command()(reproduce.env)

data_app = typer.Typer(help="Check local mirrors of data sets.", no_args_is_help=True, rich_markup_mode=None)
data_app.command()(data.check)
app.add_typer(data_app, name="data")
app.add_typer(authoring.new, name="new")
app.add_typer(authoring.check, name="check")


def main() -> None:
    """Entry point. A `UserError` is printed as one line on standard error, with exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show "–" gets "-": see `peftbench.core.text_escaping.encodable`.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="peftbench")
    try:
        app()
    except UserError as error:
        typer.echo(visible(f"error: {error}"), err=True)
        sys.exit(2)
