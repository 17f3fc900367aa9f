"""The entry point: run a command, and turn every way it can end into an exit code and one line."""

from __future__ import annotations

import errno
import importlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import click

from interp.cli.frame import Command, ExamplesFirst
from interp.cli.options import Settings, suggestion
from interp.cli.session import Session
from interp.errors import InterpError, out_of_memory

__all__ = ["COMMANDS", "main", "settings_of_commands"]

INTERRUPTED = 130
COMPLETE = "_INTERP_COMPLETE"
"""The variable by which a shell asks for words: ``eval "$(_INTERP_COMPLETE=bash_source interp)"``."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a system says where nothing more can be written."""

COMMANDS: dict[str, tuple[str, str]] = {
    "probe": ("probe", "Read concepts or a label from a layer, and measure it against controls."),
    "capture": ("capture", "Save a model's activations, sharded and resumable."),
    "join": ("join", "Help a capture that is running, from this machine or another."),
    "generate": ("generate", "Continue prompts, greedily or by drawing, and keep the states of the tokens."),
    "decode": ("decode", "Read concepts out of a prompt."),
    "lens": ("lens", "See which word each layer of a prompt stands for."),
    "look": ("look", "See how surprising a prompt's tokens are, or what heads attend to."),
    "edit": ("look", "Change one place of a prompt, and see the next tokens with and without."),
    "claims": ("claims", "See what a vector symbolic algebra adds, claim by claim."),
    "surgery": ("surgery", "Exchange concepts in states, and see what the model says."),
    "latent": ("latent", "Ask whether documents about codenames were connected, where, and to what use."),
    "graph": ("graph", "Trace what an answer is made of, and test every edge."),
    "steer": ("steer", "Push a model along a direction, and measure what that does."),
    "patch": ("patch", "Rank parts of a model by their causal effect on the answer."),
    "bench": ("bench", "Score a search as a public benchmark does, with intervals and chance."),
    "features": ("features", "Train, check or look at a dictionary of features."),
    "audit": ("audit", "Say whether a reader reads the model, the prompt, the world, or nothing."),
    "monitor": ("monitor", "Fit a monitor of conversations, or watch them with it."),
    "finetune": ("finetune", "Train a small adapter on pairs, or on the same pairs shuffled."),
    "compare": ("compare", "Run analyses again at other precisions, and judge what survives."),
    "serve": ("serve", "Open the explorer: a local page over a model and saved runs."),
    "doctor": ("doctor", "Check the environment and a model; exit 4 when a check fails."),
    "show": ("show", "Print a run."),
    "report": ("show", "Write a run as one self-contained HTML page."),
    "push": ("push", "Push a saved thing to the Hugging Face Hub, with a card."),
    "export": ("push", "Write a run's tables as CSV or parquet."),
    "ls": ("ls", "List models, tasks, pairs, mediators, sites, probes, runs and more."),
}
"""Command -> its file in this folder, and what it does. The file's function has the command's name."""

EXAMPLES = (
    "interp probe --layer 20",
    "interp probe --layers all --task analogy-relation",
    "interp probe --model gpt2 --layer 50% --data reviews.csv",
    'interp decode --layer 20 "Denmark : krone = Japan :"',
    "interp compare --schemes int8,int4 --analyses probe,patch",
    "interp doctor --model gpt2",
    "interp ls tasks",
)


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from interp._version import __version__

        click.echo(f"interp {__version__}")
        context.exit()


class Commands(ExamplesFirst, click.Group):
    """The group of all commands; a file is imported when one of its commands is needed."""

    examples = EXAMPLES

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        return _load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        if args and args[0] not in COMMANDS:
            raise click.UsageError(
                f"no command {args[0]!r}; allowed: {', '.join(COMMANDS)}.{suggestion(args[0], COMMANDS)}", ctx
            )
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them, then the options."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in COMMANDS.items()])
        click.Command.format_options(self, ctx, formatter)


def _load(name: str) -> Command:
    return getattr(importlib.import_module(f"interp.cli.{COMMANDS[name][0]}"), name)


def settings_of_commands() -> Mapping[str, type[Settings]]:
    """The settings of every command by name."""
    return {name: _load(name).kind for name in COMMANDS}


program = Commands(
    "interp",
    help="Look inside language models: capture, probe, check. Exit codes: 0 ok, 1 internal, 2 usage, 3 data, "
    "4 model, 5 out of memory, 6 corrupt file, 7 a gate failed, 130 interrupted.",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_version,
            help="Print the version.",
        )
    ],
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    As a program it lets OpenMP's threads wait awake for a short time only, then asleep, unless the
    environment says otherwise: threads that spin beside another busy process make both many times slower.

    Args:
        argv: the arguments without the program's name; ``None`` takes the process's own.

    Returns:
        The exit code: 0 ok, 1 internal, 2 usage or configuration, 3 data, 4 model, 5 out of memory, 6
        corrupt artefact, 7 a requested gate failed, 130 interrupted.
    """
    if argv is None and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and (asked := os.environ.get(COMPLETE)):
        from click.shell_completion import shell_complete

        return shell_complete(program, {}, "interp", COMPLETE, asked)
    session = Session(arguments, settings_of_commands)
    try:
        with nullcontext() if session.quiet else session.pulse.beating():
            code = _run(session)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - stays open until the process ends
        code = 0
    return code


def _run(session: Session) -> int:
    try:
        with program.make_context("interp", list(session.arguments), obj=session) as context:
            program.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as usage:
        click.echo(usage.format_message(), err=True)
        return 2
    except click.UsageError as error:
        session.command = session.command or _name(error)
        return session.fail(_usage(error), 2, kind="ConfigError", error=error)
    except InterpError as error:
        return session.fail(str(error), error.exit_code, kind=type(error).__name__, error=error)
    except (KeyboardInterrupt, click.Abort):
        return session.fail(_again(session), INTERRUPTED, kind="interrupted")
    except BrokenPipeError:
        raise
    except Exception as error:
        return _unexpected(session, error)


def _unexpected(session: Session, error: Exception) -> int:
    if out_of_memory(error):
        said = f"{error or 'memory ran out.'} Use a smaller --batch-size, --limit or model."
        return session.fail(said, 5, kind="OutOfMemoryError", error=error)
    if isinstance(error, OSError) and error.errno in FULL:
        said = f"cannot write: {error.strerror}. Free some space or choose another folder."
        return session.fail(said, 2, kind="ConfigError", error=error)
    hint = (
        ""
        if session.verbose
        else " This is a defect of interp: run it again with -v for the details, and please report it."
    )
    return session.fail(f"{type(error).__name__}: {error}.{hint}", 1, kind="internal error", error=error)


def _usage(error: click.UsageError) -> str:
    """Click's message with the remedy: the nearest spelling, or where to read on."""
    message = error.format_message()
    context = error.ctx
    where = context.command_path if context else "interp"
    if isinstance(error, click.NoSuchOption) and context is not None:
        known = [
            name
            for parameter in context.command.params
            for name in (*parameter.opts, *parameter.secondary_opts)
        ]
        return (
            f"{where} has no flag {error.option_name!r}.{suggestion(error.option_name, known)} See "
            f"`{where} --help`."
        )
    return message if "allowed:" in message else f"{message} See `{where} --help`."


def _name(error: click.UsageError) -> str:
    return error.ctx.info_name or "" if error.ctx and error.ctx.command is not program else ""


def _again(session: Session) -> str:
    """What an interrupted call left, and the command that continues it or does it again."""
    if session.resolved is None:
        return "nothing was written."
    if session.run is not None and session.run.resumable:
        folder = str(session.run.path)
        return (
            f"finished parts are in {folder}; continue with: {session.resolved.command_line(resume=folder)}"
        )
    out = getattr(session.resolved.settings, "out", None)
    place = f" --out {shlex.quote(out)}" if out else ""
    return f"nothing was kept; run again: {session.resolved.command_line()}{place}"
