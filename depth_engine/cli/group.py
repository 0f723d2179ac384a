"""What every command of this project shares: errors told in one line, and an exit code.

Exit codes: 2 for a request that can't be done, told before weights load; 1 for a run that failed; 130 when interrupted.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from depth_engine.errors import one_line

_TYPED = ParameterSource.COMMANDLINE
# Names of parameters before what is said of them, at the start or after a file's name.
_NAMES = re.compile(r"(^|: )((?:[a-z][a-z_-]*, )*[a-z][a-z_-]*): ")


class OneLineGroup(click.Group):
    """A command group that tells every error in one line."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Run; in standalone mode turn exceptions into exit codes."""
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)
        try:
            sys.exit(super().main(*args, standalone_mode=False, **kwargs) or 0)
        except click.ClickException as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # click >= 8.2: the help is the message
                error.show()
                sys.exit(2)
            fail(error.format_message(), 2)
        except (click.Abort, KeyboardInterrupt):
            fail("interrupted; what is finished is kept", 130)


def fail(line: BaseException | str, code: int) -> NoReturn:
    """Tell one line and exit."""
    click.echo(f"{Path(sys.argv[0]).stem}: {one_line(line)}", err=True)
    sys.exit(code)


def show_notes(notes: Iterable[str], *, quiet: bool) -> None:
    """Print what a user should know, each sentence once; nothing with `--quiet`."""
    for note in dict.fromkeys(notes) if not quiet else ():
        click.echo(f"note: {note}")


@contextmanager
def told(debug: bool, code: int) -> Iterator[None]:
    """Turn the library's errors into one line and this exit code; `--debug` shows the traceback too."""
    import_error_hint = "is it installed? pip install 'depth-engine[all]'"
    try:
        yield
    except (click.ClickException, SystemExit):
        raise
    except ImportError as error:
        _trace(debug)
        fail(f"{error.name or error}: {import_error_hint}", code)
    except Exception as error:  # whatever it is, a user gets one line; --debug shows the rest
        _trace(debug)
        fail(as_typed(one_line(error)), code)


def as_typed(line: str) -> str:
    """An error of the library, with the parameters that it names called as the user typed them: `--max-res`."""
    running = click.get_current_context(silent=True)
    if running is None:
        return line
    options = {
        option.opts[-1].removeprefix("--"): running.get_parameter_source(option.name or "") is _TYPED
        for option in running.command.params
        if isinstance(option, click.Option)
    }

    def named(match: re.Match) -> str:
        names = [name.replace("_", "-") for name in match[2].split(", ")]
        names = [name if name in options else name.removesuffix("-s") for name in names]
        if not any(options.get(name) for name in names) or not options.keys() >= set(names):
            return match[0]
        return f"{match[1]}{', '.join(f'--{name}' for name in names)}: "

    return _NAMES.sub(named, line, count=1)


def _trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()
