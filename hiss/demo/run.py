"""The demo from its first line to its closing table: `run_demo`.

It starts a buffer and an instrument as processes of their own and talks to the buffer as any client does. It breaks
things on purpose (`server` kills, `instrument` withholds a frame and brings a kernel that cannot work) and in the end
checks from outside what became of it (`promises`). All in the main thread, but for the listener's.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hiss.client import Buffer
from hiss.demo import promises
from hiss.demo.instrument import GRIDSCAN, SCAN, Plan
from hiss.demo.listener import Listener
from hiss.demo.promises import Promise
from hiss.demo.recipes.picture import picture
from hiss.demo.scan import GRIDSCAN as GRIDSCAN_FILE
from hiss.demo.scan import Scan, data_folder, load_scan
from hiss.demo.screen import Screen
from hiss.demo.server import DemoServer, Outage
from hiss.demo.snippets import snippets
from hiss.drain import DrainReport, drain
from hiss.errors import DeadlineExceeded, HissError, MissingExtra, Unavailable
from hiss.limits import GiB
from hiss.meow_bridge import provenance_page
from hiss.workflow import Job, JobState, Pattern, Recipe

RECIPES: Final = ("reconstruct", "picture")
KILL_AT: Final = 0.4  # of the projections acknowledged
SCAN_S: Final = 180.0
JOBS_S: Final = 240.0
_LOOK_S: Final = 0.1
_RATE_BYTES_MAX: Final = 8 * GiB  # of amplified frames; what the kernel makes of them takes twice that
_RATE_DISK_FRACTION: Final = 8
_RATE_BYTES_MIN: Final = 5_000_000
_NEEDED: Final = ("skimage", "matplotlib", "papermill", "ipykernel")


@dataclass(slots=True)
class _Run:
    """What is known while the demo runs."""

    scan: Scan
    plan: Plan
    server: DemoServer
    buffer: Buffer
    instrument: Listener
    outage: Outage | None = None


def run_demo(
    *, source: Path | None, out: Path, seconds: float | None, port: int, keep: bool, as_json: bool = False
) -> int:
    """Run the demo.

    Parameters
    ----------
    source : Path, optional
        A scan to replay, see `scan.load_scan`.
    out : Path
        Where the pictures, files, logs and the buffer's data directory go.
    seconds : float, optional
        Stream amplified frames for so long as well.
    port : int
        For the demo's buffer.
    keep : bool
        Leave the buffer up.

    Returns
    -------
    int
        0 if every promise was kept, else 1.

    Raises
    ------
    MissingExtra
        What the recipes need is not installed.
    PortInUse, InvalidInput, AlreadyExists
    """
    _check_extras()
    began = time.monotonic()
    screen = Screen(quiet=as_json)
    scan = load_scan(source)
    out.mkdir(parents=True, exist_ok=True)
    screen.title("hiss demo")
    for line in scan.origin:
        screen.say(line)
    plan = _plan(source, seconds, port, len(scan.projections), out)
    server = DemoServer(out / "buffer", port, out / "server.log")
    try:
        with server.connect() as buffer:
            screen.say(f"gRPC  {server.address}   (log: {server.log})")
            _add_rules(buffer, scan)
            instrument = Listener(plan, out / "instrument.log")
            try:
                run = _Run(scan, plan, server, buffer, instrument)
                status = _all_of_it(run, out, screen, began, as_json)
            finally:
                instrument.kill()
        if keep:
            _say_how_to_go_on(screen, server)
    except BaseException:
        server.stop()
        raise
    if not keep:
        server.stop()
    return status


def _check_extras() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(f"the demo needs {', '.join(missing)}: pip install 'hiss[demo]'")


def _plan(source: Path | None, seconds: float | None, port: int, projections: int, out: Path) -> Plan:
    gridscan = data_folder() / GRIDSCAN_FILE
    free = shutil.disk_usage(out).free
    return Plan(
        address=f"127.0.0.1:{port}",
        source=str(source) if source else None,
        gridscan=str(gridscan) if gridscan.is_file() else None,
        withheld=(projections * 2 // 3,),
        rate_seconds=seconds or 0.0,
        rate_bytes_max=min(_RATE_BYTES_MAX, free // _RATE_DISK_FRACTION),
    )


def _add_rules(buffer: Buffer, scan: Scan) -> None:
    """A recipe that is a notebook and one that is a function, and when each is to run. They wait for data."""
    folder = Path(__file__).parent / "recipes"
    buffer.meow.add(Recipe("reconstruct", folder / "reconstruct.ipynb", timeout_s=JOBS_S))
    buffer.meow.add(Recipe("picture", picture, timeout_s=JOBS_S))
    buffer.meow.add(
        Pattern(
            "every-scan",
            trigger="demo/*/proj",
            recipe="reconstruct",
            variables={"filter_name": "hann"},
            outputs={"volume": "{COLLECTION}/volume"},
        )
    )
    buffer.meow.add(
        Pattern("every-volume", trigger="demo/*/volume", recipe="picture", variables={"rows": list(scan.rows)})
    )


def _all_of_it(run: _Run, out: Path, screen: Screen, began: float, as_json: bool) -> int:
    screen.title("An instrument streams, in a process of its own, over gRPC, ack='durable'")
    _follow_instrument(run, screen)
    screen.title("Rules start jobs")
    jobs = _follow_jobs(run.buffer, screen)
    screen.title("Everything is drained, read back and compared")
    reports = _drain(run, out, screen)
    artefacts = _artefacts(run, out, jobs) + [Path(report.file) for report in reports]
    kept = _checked(run, jobs, artefacts)
    rows = _stream_rows(run)
    if as_json:
        document = {
            "streams": [dict(zip(_HEADS, row, strict=True)) for row in rows],
            "promises": [asdict(promise) for promise in kept],
            "artefacts": [str(path) for path in artefacts],
            "seconds": time.monotonic() - began,
            "address": run.server.address,
            "supervisor": run.server.pid,
        }
        print(json.dumps(document, indent=2))
    screen.table("What came in, and what became of it", _HEADS, rows, right=(1, 2, 3, 4))
    marks = [("yes" if promise.kept else "NO", promise.text, promise.evidence) for promise in kept]
    screen.table("What was promised", ("kept", "promise", "evidence"), marks)
    screen.title("Look at")
    for path in artefacts:
        screen.say(f"  {path}")
    broken = sum(not promise.kept for promise in kept)
    total = time.monotonic() - began
    screen.say(
        f"{len(kept) - broken} of {len(kept)} promises kept, {total:.0f} s in all", "green" if not broken else "red"
    )
    return 1 if broken else 0


# ------------------------------------------------------------------------------------------------------- data flows


def _follow_instrument(run: _Run, screen: Screen) -> None:
    """Show the progress of the instrument until it is done, and kill the server on its way."""
    instrument, path = run.instrument, f"{SCAN}/proj"
    kill_at = int(KILL_AT * len(run.scan.projections))
    deadline = time.monotonic() + SCAN_S + 2 * run.plan.rate_seconds
    seen = -1

    def count() -> int:
        return sum(len(blocks) for blocks in instrument.acked.values()) + len(instrument.reports)

    while not instrument.ended:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"the instrument did not finish in time: {instrument.last_words()}")
        before = seen
        instrument.wait(lambda before=before: count() != before, 1.0)  # type: ignore[misc]
        with instrument.changed:
            seen = count()
            far = {name: (len(instrument.acked[name]), frames) for name, frames in instrument.frames.items()}
            notes, instrument.notes = instrument.notes, []
        for note in notes:
            screen.say(note)
        for name, (done, total) in far.items():
            screen.progress(name, done, total)
        acknowledged = far.get(path, (0, 0))[0]
        if run.outage is None and kill_at <= acknowledged < len(run.scan.projections) - len(run.plan.withheld):
            screen.say(f"  ! kill -9 of the data process, {acknowledged} projections acknowledged", "bold red")
            run.outage = run.server.kill(run.buffer, acknowledged)
            screen.say(f"  ! a new one answers after {run.outage.seconds:.1f} s; the instrument goes on", "bold green")
    screen.progress_ends()
    status = instrument.finish()
    if status:
        raise HissError(f"the instrument ended with status {status}: {instrument.last_words()}")


def _follow_jobs(buffer: Buffer, screen: Screen) -> list[Job]:
    """Wait until the picture is there, or a job has failed for good."""
    deadline = time.monotonic() + JOBS_S
    shown: dict[str, JobState] = {}
    while True:
        try:
            jobs = buffer.meow.jobs()
        except Unavailable:
            jobs = []
        for job in reversed(jobs):
            if shown.get(job.id) is not job.state:
                shown[job.id] = job.state
                screen.say(f"  {job.pattern} -> {job.recipe}: {job.state.name.lower()} (on {job.path})")
        ended = {job.recipe for job in jobs if job.state.final}
        bad = any(job.state in (JobState.FAILED, JobState.CANCELLED) for job in jobs)
        if bad or set(RECIPES) <= ended or time.monotonic() > deadline:
            for job in jobs:
                if job.error:
                    screen.say(f"  {job.recipe}: {job.error}\n{job.output[-2000:]}", "red")
            return jobs
        time.sleep(_LOOK_S)


def _drain(run: _Run, out: Path, screen: Screen) -> list[DrainReport]:
    wanted = {SCAN: ("scan.nxs", "gzip")}  # gzip: any HDF5 reader opens it
    if run.plan.gridscan:
        wanted[GRIDSCAN] = ("gridscan.nxs", "auto")
    reports = []
    for collection, (name, compression) in wanted.items():
        run.buffer[collection].seal()
        report = drain(run.buffer.store, collection, out / name, compression=compression, overwrite=True)
        screen.say(f"  {report}")
        reports.append(report)
    return reports


def _artefacts(run: _Run, out: Path, jobs: list[Job]) -> list[Path]:
    """Write the picture and the provenance; a picture that was not made is not in the list."""
    made = []
    picture_path = f"{SCAN}/slice.png"
    if any(job.recipe == "picture" and job.state is JobState.DONE for job in jobs):
        picture_file = out / "slice.png"
        picture_file.write_bytes(next(iter(run.buffer.stream(picture_path))).data)
        made.append(picture_file)
    page = out / "provenance.html"
    graph = run.buffer.meow.provenance(f"{SCAN}/proj")
    page.write_text(provenance_page(graph, f"What led to what in {SCAN}"), "utf-8")
    return [*made, page]


# ---------------------------------------------------------------------------------------------------------- closing


def _checked(run: _Run, jobs: list[Job], artefacts: list[Path]) -> list[Promise]:
    buffer, instrument = run.buffer, run.instrument
    reconnects = instrument.reports.get(f"{SCAN}/proj", {}).get("reconnects", 0)
    quarantined = _paths_of(buffer, "kernel.quarantined")
    kept = [
        promises.acknowledged_blocks(buffer, instrument.acked),
        promises.came_back(run.outage, reconnects),
        promises.withheld_frames(buffer, run.plan.withheld),
        promises.corrected_frames(buffer, run.scan),
        promises.broken_kernel(buffer, quarantined),
    ]
    if run.plan.gridscan:
        kept.append(promises.vetoed_frames(buffer))
    kept.append(promises.one_job_each(jobs, RECIPES))
    pictures = [path for path in artefacts if path.suffix == ".png" and path.read_bytes().startswith(b"\x89PNG\r\n")]
    files = [path for path in artefacts if path.suffix == ".nxs"]
    evidence = f"{len(pictures)} picture; {len(files)} NeXus file(s) whose blocks were all read back and compared"
    kept.append(Promise("a picture and verified files are left", bool(pictures and files), evidence))
    return kept


def _paths_of(buffer: Buffer, kind: str) -> list[str]:
    import threading

    return [event.path for event in buffer.store.events(0, threading.Event(), follow=False) if event.kind == kind]


_HEADS: Final = ("stream", "sent", "stored", "MB", "GB/s", "gaps, and why")


def _stream_rows(run: _Run) -> list[tuple[Any, ...]]:
    """A row for each stream: blocks that were sent, blocks that are stored, size, rate where it was not paced."""
    rows = []
    streams = [stream.info for collection in run.buffer.collections("demo") for stream in collection.streams()]
    for info in sorted(streams, key=lambda info: info.created_ns):
        report = run.instrument.reports.get(info.path, {})
        rate = "paced" if info.path == f"{SCAN}/proj" else _rate_text(report)
        whole = info.completeness
        gaps = str(whole).partition("; ")[2] if whole.gaps else ""
        rows.append((_short(info.path), report.get("blocks", ""), whole.blocks, f"{whole.bytes / 1e6:.1f}", rate, gaps))
    return rows


def _rate_text(report: dict[str, Any]) -> str:
    """GB/s from opening to seal, where enough was sent for it to mean something."""
    if report.get("bytes", 0) < _RATE_BYTES_MIN:
        return ""
    return f"{report['bytes'] / report['seconds'] / 1e9:.3f}"


def _short(path: str) -> str:
    """A path whose last part is not longer than a table likes: a notebook is named by its job's long id."""
    folder, _, name = path.rpartition("/")
    stem, dot, ending = name.partition(".")
    return f"{folder}/{stem[:12]}{dot}{ending}" if len(stem) > 20 else path


def _say_how_to_go_on(screen: Screen, server: DemoServer) -> None:
    screen.title("The buffer is still up. To paste:")
    for snippet in snippets(server.address):
        screen.say(f"# {snippet.where}", "cyan")
        screen.say_verbatim(snippet.text)
    screen.say(f"To stop it: kill {server.pid}")
