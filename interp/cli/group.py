"""The commands as data, imported when they are used, with help that shows examples first."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import click

from interp.cli.flags import FLAGS, GROUPS, KEYS, Flag

__all__ = ["COMMANDS", "LazyGroup", "define"]

COMMANDS: dict[str, str] = {
    "probe": "Read concepts or a label from a layer, and measure it against controls.",
    "capture": "Save a model's activations, sharded and resumable.",
    "decode": "Read concepts out of a prompt.",
    "patch": "Rank parts of a model by their causal effect on the answer.",
    "compare": "Run analyses again at other precisions, and judge what survives.",
    "doctor": "Check the environment and a model; exit 4 when a check fails.",
    "show": "Print a run.",
    "report": "Write a run as one self-contained HTML page.",
    "ls": "List models, tasks, pairs, mediators, sites, probes, runs and more.",
}
"""Command -> what it does. The code of ``x`` is ``interp/cli/x.py``, its function ``command``."""

EXAMPLES = (
    "interp probe --layer 20",
    "interp probe --layers all --task analogy-relation",
    "interp probe --model gpt2 --layer 50% --data reviews.csv",
    'interp decode --layer 20 "Denmark : krone = Japan :"',
    "interp compare --schemes int8,int4 --analyses probe,patch",
    "interp doctor --model gpt2",
    "interp ls tasks",
)


class _ExamplesFirst:
    """Write help with the examples before the options."""

    examples: tuple[str, ...] = ()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples, then what it does, usage and options."""
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        self.format_help_text(ctx, formatter)  # type: ignore[attr-defined]
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)  # type: ignore[attr-defined]
        self.format_options(ctx, formatter)  # type: ignore[attr-defined]


class LazyGroup(_ExamplesFirst, click.Group):
    """Import a command's file when it is called, so that ``interp --help`` loads none of them."""

    examples = EXAMPLES

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the file of one command."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"interp.cli.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        if args and args[0] not in COMMANDS:
            from interp.config.choices import suggestion

            raise click.UsageError(
                f"no command {args[0]!r}; allowed: {', '.join(COMMANDS)}.{suggestion(args[0], COMMANDS)}", ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class _Command(_ExamplesFirst, click.Command):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by group."""
        rows = {p.name: p.get_help_record(ctx) for p in self.get_params(ctx) if isinstance(p, click.Option)}
        for group in GROUPS:
            found = [rows.pop(key) for key in [k for k in rows if k in FLAGS and FLAGS[k].group == group]]
            if group == GROUPS[-1]:
                found += list(rows.values())
            if found:
                with formatter.section(group):
                    formatter.write_dl([row for row in found if row])


def define(
    name: str, *, examples: tuple[str, ...], positional: tuple[click.Argument, ...] = ()
) -> Callable[..., click.Command]:
    """Turn a function of a session into a click command with the flags of the table."""

    def decorate(run: Callable) -> click.Command:
        def callback() -> None:
            context = click.get_current_context()
            context.obj.execute(name, context.params, run)

        made = _Command(
            name,
            callback=None,
            help=run.__doc__,
            params=[*positional, *(_option(FLAGS[key], key) for key in KEYS[name])],
        )
        made.callback = lambda **_: callback()
        made.examples = examples
        return made

    return decorate


def _option(flag: Flag, key: str) -> click.Option:
    text = flag.help + (f"  [default: {flag.default}]" if flag.default else "")
    names = [key, *flag.names]
    if flag.form == "switch":
        return click.Option(names, is_flag=True, default=None, help=text)
    return click.Option(names, metavar=flag.metavar, multiple=flag.form == "many", help=text)
