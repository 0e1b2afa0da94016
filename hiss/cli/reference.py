"""The reference of the command line as Markdown, made from the commands themselves: `python -m hiss.cli.reference`.

`docs/cli.md` holds its output; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from hiss.cli import failure
from hiss.cli.main import root

_OPENING = """\
# Command line

Made by `python -m hiss.cli.reference`; do not edit.

`--json` prints JSON instead of tables; errors are then JSON too. Long work shows a progress bar where stderr is a
terminal. Commands that talk to a buffer ask the server at `--address` (or `HISS_ADDRESS`, or `address` in `hiss.toml`,
else `localhost:5001`); with `--data DIR` they open that data directory in their own process instead, for when no server
runs. On the server's own machine its owner needs no token; elsewhere `--token` or `HISS_TOKEN` has it, or the address
is a share link, `hiss://HOST:PORT/COLLECTION#TOKEN` (`hiss token share`). See [security.md](security.md).

`hiss.toml` is read once, from the working directory or from `~/.config/hiss/`. It holds `address`, `token`, and for TLS
`trust`, `client_cert` and `client_key` (files; `HISS_TLS_CA`, `HISS_TLS_CERT`, `HISS_TLS_KEY`) for clients, and for
`hiss serve` `data`, `host`, `port`, `http`, `arena_bytes`, `segment_bytes`, `log_bytes_max`, `backend` (also as
`[kernels] backend`), `jobs_at_once`, `retention_age_hours`, `retention_drained_hours`, `retention_pressure`,
`plain_network_is_trusted`, and `[tls]` with `cert`, `key` and `client_ca`. For
both it holds `[s3]` with `endpoint`, `region`, `access_key_id`, `secret_access_key`, `session_token`; what that lacks
is taken from `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
`HISS_DATA` is the data directory of `hiss serve` and `hiss doctor`.

Shell completion: `eval "$(_HISS_COMPLETE=bash_source hiss)"` in `~/.bashrc`; for zsh `zsh_source`; for fish
`_HISS_COMPLETE=fish_source hiss | source`.
"""


def reference() -> str:
    """The whole document."""
    statuses = [line.split(maxsplit=1) for line in (failure.__doc__ or "").splitlines() if line[:1].isdigit()]
    rows = "\n".join(f"| {status} | {meaning} |" for status, meaning in statuses)
    parts = [_OPENING, f"## Exit status\n\n| status | meaning |\n|---|---|\n{rows}\n"]
    parts += [_section(path, command) for path, command in _commands(root, "hiss")]
    return "\n".join(parts)


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    lines = [f"## {path}\n", f"    {usage}\n", f"{_paragraphs(command.help or '')}\n"]
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [
        f"| `{names}` | {text} |".replace("||", "|") for names, text in filter(None, records) if "--help" not in names
    ]
    if rows:
        lines += ["| option | |\n|---|---|", "\n".join(rows) + "\n"]
    return "\n".join(lines)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


if __name__ == "__main__":
    click.echo(reference(), nl=False)
