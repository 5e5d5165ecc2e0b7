"""`catvae-doctor`: what is installed, what would run, why not the GPU, and what to do about it."""

from pathlib import Path

import click

from ..wording import printable
from .command import bundle_option, command_entry


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="catvae")
@bundle_option(what="Bundle to test.")
def doctor(bundle_path: Path | None) -> int:
    """Look at this machine; nothing is changed.

    The exit code is 1 when something that should work is broken.
    """
    try:
        from .doctor import examine
    except ImportError as error:
        click.echo(f"runtime   broken  {error}: install it again, with pip's --force-reinstall")
        return 1
    findings = examine(bundle_path)
    for finding in findings:
        click.echo(printable(f"{finding.topic:<10}{finding.state:<8}{finding.what}"))
        if finding.fix:
            click.echo(f"{'':<18}-> {finding.fix}")
    return 1 if any(finding.state == "broken" for finding in findings) else 0


main = command_entry(doctor, "catvae-doctor", at_once=True)
