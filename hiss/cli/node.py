"""`hiss serve`, `demo`, `status`, `events`, `doctor`: a buffer as a whole. Called from the main thread."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hiss.cli.output import say_fields, say_json, say_table, size
from hiss.cli.reach import Reach, command, local_command

group = click.Group()


@group.command("serve")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.  [HISS_DATA, hiss-data]"
)
@click.option("--host", help="The address to listen at.  [127.0.0.1]")
@click.option("--port", type=int, help="The gRPC port.  [5001]")
@click.option("--http", type=int, help="The port of HTTP for operators, 0 for none.  [5080]")
@click.option("--arena-bytes", type=int, help="Memory for blocks on their way.  [1 GiB, at most a quarter of all]")
@click.option("--segment-bytes", type=int, help="Size of the log's files.  [512 MiB]")
@click.option("--tls-cert", metavar="FILE", help="Speak TLS only, with this certificate (PEM).")
@click.option("--tls-key", metavar="FILE", help="Its key.")
@click.option("--tls-client-ca", metavar="FILE", help="Clients must show a certificate that one of these has signed.")
@click.option(
    "--plain-network-is-trusted",
    is_flag=True,
    default=None,
    help="Listen beyond this machine without TLS: whoever is on the network may read and change what is sent.",
)
@click.option("--jobs", "jobs_at_once", type=int, help="Jobs that run at once.  [2]")
@click.pass_context
def serve(context: click.Context, /, **options: Any) -> None:
    """Run a buffer until Ctrl-C or SIGTERM."""
    from hiss import supervisor

    config = context.find_root().obj.settings.serve_config(**options)
    context.exit(supervisor.serve(config, lambda line: click.echo(line, err=True)))


@local_command(group, "demo")
@click.option(
    "--input", "source", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A scan to replay (HDF5)."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-out"), show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 3600), help="Stream amplified frames for so long as well.")
@click.option("--port", type=int, default=5001, show_default=True, help="The demo's own buffer listens here.")
@click.option("--keep", is_flag=True, help="Leave the buffer up at the end, to try things out.")
def demo(reach: Reach, source: Path | None, out: Path, seconds: float | None, port: int, keep: bool) -> None:
    """Show the whole at work, in about a minute.

    An instrument streams a scan, the server is killed and comes back, a kernel corrects the frames, a rule starts a
    reconstruction, another one a picture, and all is drained into a NeXus file. Ends with 0 if every promise was kept.
    """
    from hiss.demo.run import run_demo

    sys.exit(run_demo(source=source, out=out, seconds=seconds, port=port, keep=keep, as_json=reach.json))


@command(group, "status")
def status(reach: Reach) -> None:
    """Show how a running buffer is."""
    from hiss.model import now_text

    with reach.buffer() as buffer:
        found = buffer.status()
    if reach.json:
        say_json(found)
        return
    say_fields(
        (
            ("node", found.node),
            ("version", found.version),
            ("started", now_text(found.started_ns)),
            ("data", found.data_directory),
            ("disk free", size(found.disk_free_bytes)),
            ("arena", f"{size(found.arena_free_bytes)} free of {size(found.arena_bytes)}"),
            ("log", f"{size(found.log_bytes)} in {found.segments} segments, room for {size(found.room_bytes)}"),
            ("promised", f"{size(found.promised_bytes)}, {size(found.promised_used_bytes)} of it used"),
            ("collections", found.collections),
            ("streams", f"{found.streams}, {found.streams_open} open"),
            ("kernels run in", found.kernel_backend + (f" ({found.kernel_notice})" if found.kernel_notice else "")),
            ("received", f"{found.blocks_received} blocks, {size(found.bytes_received)} since the start"),
            ("recovery", "\n".join(f"{key} = {value}" for key, value in found.recovery.items())),
        )
    )


@command(group, "events")
@click.option("--after", type=int, default=0, help="Only those after this sequence number.")
@click.option("-n", "--newest", type=click.IntRange(1), help="Only the newest so many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come, until Ctrl-C.")
@click.option("--kind", help="Only this kind, such as stream.sealed.")
def events(reach: Reach, after: int, newest: int | None, follow: bool, kind: str | None) -> None:
    """Show what happened, in order.

    Streams sealed, kernels quarantined, jobs finished.
    """
    import threading
    from collections import deque

    with reach.buffer() as buffer:
        past = buffer.store.events(after, threading.Event(), follow=False)
        kept = deque((event for event in past if kind in (None, event.kind)), newest)
        last = after
        for event in kept:
            last = event.seq
            _say_event(reach, event)
        if follow:
            for event in buffer.store.events(last, threading.Event()):
                if kind in (None, event.kind):
                    _say_event(reach, event)
                    sys.stdout.flush()


def _say_event(reach: Reach, event: Any) -> None:
    from hiss.model import now_text

    if reach.json:
        say_json(event, line=True)
        return
    data = "  ".join(f"{key}={value}" for key, value in event.data.items() if isinstance(value, str | int | float))
    version = f" v{event.version}" if event.version else ""
    click.echo(f"{event.seq:>6}  {now_text(event.time_ns)}  {event.kind:<20}  {event.path}{version}  {data}".rstrip())


@local_command(group, "doctor")
@click.option("--address", metavar="HOST:PORT", help="The buffer to look for.  [HISS_ADDRESS, localhost:5001]")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.  [HISS_DATA, hiss-data]"
)
@click.pass_context
def doctor(context: click.Context, reach: Reach, address: str | None, data: Path | None) -> None:
    """Check this machine and its server.

    Python, packages, compiler, directory, file system, disk, memory, clock, limits, devices, server, promised space,
    recovery: ok, warn or fail, with what to do. Ends with 1 if one of them fails.
    """
    from hiss.cli.checkup import checkup
    from hiss.cli.machine import Outcome

    config = reach.settings.serve_config(data=data)
    findings = checkup(config, address or reach.settings.address, reach.settings.token, reach.settings.tls)
    if reach.json:
        say_json(findings)
    else:
        rows = [(finding.outcome.name.lower(), finding.what, finding.found) for finding in findings]
        say_table(("", "what", "found"), rows)
        for finding in findings:
            if finding.advice:
                click.echo(f"{finding.what}: {finding.advice}")
    context.exit(1 if any(finding.outcome is Outcome.FAIL for finding in findings) else 0)
